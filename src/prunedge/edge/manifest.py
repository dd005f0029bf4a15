"""What a bundle's manifest says: its records, and why one of another format is not read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunedge.edge.image.size import Size
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import Decision
from prunedge.utils import checksums
from prunedge.utils.formats import UPDATE, of_0_1
from prunedge.utils.sanitize import shown

MANIFEST = "manifest.json"
FORMAT: Literal[3] = 3
UNSEALED_FORMAT = 2  # what prunedge 0.1 wrote, without a checksum of the manifest itself
LARGEST = 4 * 2**30  # bytes; no model that we export comes near
LARGEST_MANIFEST = 16 * 2**20
MOST_PIXELS = 1_000_000  # of a side
LONGEST_NAME = 200  # bytes of a file's name in a manifest
DEEPEST_NAME = 8  # levels of it
NEARLY_ALL = 0.95  # of the images
ALIKE = 0.1  # of a side, by which images of one size may differ
SHRUNK = 2.0  # times as long as the model's images: photographs that are seen whole


class FileEntry(BaseModel):
    """One file of a bundle: its SHA-256 and its size. What is not `needed` on a device (torch's
    weights) may be left out there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=LARGEST)
    needed: bool = True


class ExportCheck(BaseModel):
    """How an exported model compares with torch on real images.

    `agreement` is the share of images that get torch's label. `metrics`, where the target is not
    exact, are shares on the validation split: the metric of the float model and of this one, and
    their agreement there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(ge=1)
    max_abs_difference: float = Field(ge=0)
    agreement: float = Field(ge=0, le=1)
    metrics: dict[str, float] = {}


class Form(BaseModel):
    """One form of the model, for one runtime: its files (the first is the one to load), and how
    it was checked.

    `check` is None where the runtime is only on the device (TensorRT): the self-test judges it
    there. `decision` is its own where it is not exact, in place of the task's. `float_layers` are
    those of a form in integers that are float, the most sensitive first, since the metric fell too
    far with them in integers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: list[str] = Field(min_length=1)
    check: ExportCheck | None
    decision: Decision | None = None
    float_layers: list[str] = []


class View(BaseModel):
    """What a training image showed, so that a device shows the model the same.

    `whole`: whole photographs, each as it is made one of the model's size. `patch`: images of one
    size, which were cut from larger photographs or may well have been; a larger photograph is
    looked at in patches of that size. `width` and `height` are the usual ones (of the upright
    images, in pixels).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["whole", "patch"]
    width: int = Field(ge=1, le=MOST_PIXELS)
    height: int = Field(ge=1, le=MOST_PIXELS)

    def is_like(self, width: int, height: int) -> bool:
        """Whether a photograph is about as large as the training images: nothing would be gained
        by cutting it.
        """
        return (
            abs(width - self.width) <= ALIKE * self.width
            and abs(height - self.height) <= ALIKE * self.height
        )


def view_of(sizes: Sequence[tuple[int, int]], shrinks_patches_to: Size | None = None) -> View:
    """The view of training images of these sizes (width, height): `whole` when they differ, and
    `patch` when nearly all are about as large as the middle one.

    With `shrinks_patches_to`, the size of a model's images, they are `whole` as well where both
    sides are at least `SHRUNK` times as long: nobody cuts patches to throw three quarters of their
    pixels away, and photographs of one camera have one size. None where that tells nothing: the
    images are known to be cut, or the model finds pixels, which must be as large as in training.
    """
    width = round(median(width for width, _ in sizes))
    height = round(median(height for _, height in sizes))
    usual = View(kind="patch", width=width, height=height)
    alike = sum(usual.is_like(*size) for size in sizes)
    size = shrinks_patches_to
    is_shrunk = size is not None and min(width / size.width, height / size.height) >= SHRUNK
    if alike >= NEARLY_ALL * len(sizes) and not is_shrunk:
        return usual
    return View(kind="whole", width=width, height=height)


class GreyRange(BaseModel):
    """The stored values that are black and white in greys of more than eight bits
    (`prunedge.edge.image.read.Greys`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    mixed: bool = False

    @model_validator(mode="after")
    def _low_is_lower(self) -> GreyRange:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


class Manifest(BaseModel):
    """What a device must know of a model. `metrics` are shares (0 to 1) by name, on `validation`
    and `test` images; `decision` is what the threshold finds of the former, `test_twins` how many
    test images look like one of another split, with the metrics of the others. `macs` are for one
    image. `task` says what it predicts, from images of which size and how many channels; `mean` and
    `std` are those of each channel, of values from 0 to 1.

    `view` is what a training image showed; None in bundles that don't tell. `greys` is the range
    of greys of more than eight bits; None when the model was trained on eight-bit images.

    `forms` are the model for each target that was exported (`prunedge.edge.targets`), the first
    runs when none is named. `zeroed` counts the weights and folded constants that were too small to
    matter and are zero in them (`prunedge.edge.denormals`). `sha256` is the checksum of all the
    rest (`prunedge.utils.checksums`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[3]
    model: str
    task: TaskSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view: View | None = None
    greys: GreyRange | None = None
    metrics: dict[str, Any] = {}
    macs: int = Field(ge=0)
    params: int = Field(ge=0)
    forms: dict[str, Form] = Field(min_length=1)
    zeroed: int = Field(default=0, ge=0)
    versions: dict[str, str] = {}
    about: dict[str, Any] = {}
    files: dict[str, FileEntry]
    sha256: str

    @model_validator(mode="after")
    def _statistics_are_of_each_channel(self) -> Manifest:
        channels = self.task.in_channels
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(f"mean and std of {channels} channels")
        return self


def parse_manifest(text: bytes) -> Manifest:
    """The manifest of these bytes. ValidationError where they are none, ValueError where a key
    stands there twice.

    Readers differ in which of the two they take, so that what was looked at would not be what is
    run.
    """
    manifest = Manifest.model_validate_json(text)
    json.loads(text, object_pairs_hook=_refuse_repeated)
    return manifest


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{shown(repeated)}' stands there twice")
    return record


def other_format(text: bytes) -> tuple[str, str] | None:
    """Why a manifest of another format is not read, and the remedy; None for one of ours, and for
    what is no manifest at all.

    To be asked first: what another version wrote has other fields, perhaps another kind of
    checksum, and is not damaged.
    """
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        return None
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if type(number) is not int or number == FORMAT:
        return None
    if number == UNSEALED_FORMAT and checksums.KEY not in manifest:
        return of_0_1("bundle"), "export it again"

    what = f"this bundle is of format {number}; this prunedge reads format {FORMAT}"
    version = _version_of(manifest)
    maker = f"pip install prunedge=={version}"
    if number > FORMAT:
        how = maker if version else UPDATE
        return what, f"update prunedge ({how}), or export it again with this one"
    remedy = "export it again"
    if version:
        remedy += f", or use the prunedge that made it ({maker})"
    return what, remedy


def _version_of(manifest: dict[str, Any]) -> str | None:
    """The version of prunedge that made a bundle, as its manifest says; None where that is no
    version that pip could be asked for.
    """
    versions = manifest.get("versions")
    version = versions.get("prunedge") if isinstance(versions, dict) else None
    if not isinstance(version, str):
        return None
    is_version = re.fullmatch(r"[0-9]{1,4}(\.[0-9a-z]{1,12}){1,5}", version) is not None
    return version if is_version else None


def is_sound_name(name: str) -> bool:
    """Whether a manifest may name a file so: below the bundle's folder, printable, and neither long
    nor deep enough to make trouble.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name:
        return False
    if not name.isprintable():
        return False
    return len(name.encode()) <= LONGEST_NAME and len(path.parts) <= DEEPEST_NAME
