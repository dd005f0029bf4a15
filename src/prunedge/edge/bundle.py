"""A folder that a device needs and no more: manifest, model, labels, preprocessing, self-test,
checksums.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunedge.edge.image.read import Greys
from prunedge.edge.targets import TARGETS
from prunedge.errors import BundleError
from prunedge.utils import checksums
from prunedge.utils.advice import command
from prunedge.utils.files import real_path, require_regular
from prunedge.utils.filetypes import instead
from prunedge.utils.formats import UPDATE, of_0_1
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.sanitize import shown
from prunedge.utils.systems import sync_open_file

MANIFEST = "manifest.json"
SELFTEST = "selftest.npz"
FORMAT: Literal[2] = 2
LARGEST = 4 * 2**30  # bytes; no model that we export comes near
LARGEST_MANIFEST = 16 * 2**20
MOST_PIXELS = 1_000_000  # of a side
LONGEST_NAME, DEEPEST_NAME = 200, 8  # bytes and levels of a file's name in a manifest
NEARLY_ALL = 0.95  # of the images
ALIKE = 0.1  # of a side, by which images of one size may differ


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
    there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: list[str] = Field(min_length=1)
    check: ExportCheck | None


class View(BaseModel):
    """What a training image showed, so that a device shows the model the same.

    `whole`: photographs of many sizes, each stretched to the model's square as it is. `patch`:
    images of one size, which were cut from larger photographs or may well have been; a larger
    photograph is looked at in patches of that size. `width` and `height` are the usual ones (of the
    upright images, in pixels).
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


def view_of(sizes: Sequence[tuple[int, int]]) -> View:
    """The view of training images of these sizes (width, height): `patch` when nearly all are
    about as large as the middle one.
    """
    width, height = (round(median(side)) for side in zip(*sizes, strict=True))
    usual = View(kind="patch", width=width, height=height)
    alike = sum(usual.is_like(*size) for size in sizes)
    return (
        usual
        if alike >= NEARLY_ALL * len(sizes)
        else View(kind="whole", width=width, height=height)
    )


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
    """What a device must know of a model. `metrics` are shares (0 to 1) by name; `macs` are for
    one image.

    `view` is what a training image showed; None in bundles that don't tell. `greys` is the range
    of greys of more than eight bits; None when the model was trained on eight-bit images.

    `forms` are the model for each target that was exported (`prunedge.edge.targets`), the first
    runs when none is named. `sha256` is the checksum of all the rest (`prunedge.utils.checksums`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2]
    model: str
    classes: list[str] = Field(min_length=1)
    input_size: int = Field(ge=1, le=8192)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: View | None = None
    greys: GreyRange | None = None
    metrics: dict[str, Any] = {}
    macs: int = Field(ge=0)
    params: int = Field(ge=0)
    forms: dict[str, Form] = Field(min_length=1)
    versions: dict[str, str] = {}
    about: dict[str, Any] = {}
    files: dict[str, FileEntry]
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A folder whose files were all found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def target(self) -> str:
        """The target that runs when none is named."""
        return next(iter(self.manifest.forms))

    @property
    def greys(self) -> Greys | None:
        """What greys of more than eight bits mean to its model; None when it was trained on
        eight-bit images.
        """
        told = self.manifest.greys
        return None if told is None else Greys(told.low, told.high, told.mixed)

    def form(self, target: str | None = None) -> Form:
        """The model for a target; BundleError when it was not exported."""
        name = target or self.target
        if name not in self.manifest.forms:
            there = ", ".join(self.manifest.forms)
            remedy = f"it holds {there}; {command('export', 'RUN', '--format', name)} makes it"
            raise BundleError(f"the bundle holds no '{name}'", where=self.path, remedy=remedy)
        return self.manifest.forms[name]

    def model(self, target: str | None = None) -> Path:
        """The file that the target's runtime loads."""
        return self.path / self.form(target).files[0]

    def size_bytes(self, target: str | None = None) -> int:
        """Bytes of the model that the target's runtime loads."""
        return sum(self.manifest.files[name].bytes for name in self.form(target).files)


def open_bundle(path: Path | str) -> Bundle:
    """The bundle in a folder, every file verified against its SHA-256.

    Raises BundleError when the folder holds no bundle, the manifest is damaged, names a file
    outside the folder, or a file is missing, has another size or another checksum.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    for name, entry in manifest.files.items():
        file = _inside(folder, name)
        require_regular(file, BundleError)
        if not entry.needed and not file.exists():
            continue
        if file.is_file() and file.stat().st_size == entry.bytes and sha256(file) == entry.sha256:
            continue
        _check_seal(folder / MANIFEST)  # or is it the manifest that is damaged?
        if not file.is_file():
            raise BundleError(
                "a file of the bundle is missing",
                where=file,
                remedy="export or copy the bundle again",
            )
        raise BundleError(
            "a file differs from its checksum", where=file, remedy="export or copy the bundle again"
        )
    for target, form in manifest.forms.items():
        wrong = target not in TARGETS or form.files[0] != TARGETS[target].file
        if wrong or any(
            name not in manifest.files or not manifest.files[name].needed for name in form.files
        ):
            known = f"targets of this prunedge: {', '.join(TARGETS)}"
            raise BundleError(
                f"the manifest's '{target}' is not one that can be run",
                where=folder / MANIFEST,
                remedy=known,
            )
    _check_seal(folder / MANIFEST)
    if SELFTEST not in manifest.files:
        raise BundleError(
            f"the manifest names no {SELFTEST}",
            where=folder / MANIFEST,
            remedy="export the bundle again",
        )
    return Bundle(folder, manifest)


def write_manifest(
    folder: Path, names: list[str], optional: Collection[str] = (), **values: Any
) -> Manifest:
    """Write the manifest of a folder whose files are there, the `optional` ones being of no use to
    a device; returns it.
    """
    files = {
        name: FileEntry(
            sha256=sha256(folder / name),
            bytes=(folder / name).stat().st_size,
            needed=name not in optional,
        )
        for name in names
    }
    manifest = Manifest(format=FORMAT, files=files, sha256="", **values)
    told = checksums.sealed(manifest.model_dump(exclude={"sha256"}), MANIFEST)
    with (folder / MANIFEST).open("w", encoding="utf-8") as opened:
        opened.write(json.dumps(told, indent=1))
        sync_open_file(opened)
    return manifest.model_copy(update={"sha256": told[checksums.KEY]})


def sha256(file: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return checksums.file_digest(file)


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    require_regular(file, BundleError)
    if not file.is_file():
        why, remedy = instead(folder, MANIFEST, "name the folder that `prunedge export` made")
        if (folder / "config.toml").is_file():
            remedy = f"{command('export', folder, '--out', 'BUNDLE')} makes one of it"
        raise BundleError(f"not a bundle ({why})", where=folder, remedy=remedy)
    try:
        if file.stat().st_size > LARGEST_MANIFEST:
            raise BundleError(
                "the manifest is too large to be one", where=file, remedy="don't trust this bundle"
            )
        text = file.read_bytes()
        if (other := other_format(text)) is not None:
            raise BundleError(other[0], where=folder, remedy=other[1])
        return parse_manifest(text)
    except (OSError, ValueError) as error:
        pass_on_reading(error, file)
        found = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, found['loc']))}: {found['msg']}" if found else str(error)
        raise BundleError(
            f"the manifest is damaged ({why})", where=file, remedy="export or copy the bundle again"
        ) from None


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
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{shown(twice)}' stands there twice")
    return found


def other_format(text: bytes) -> tuple[str, str] | None:
    """Why a manifest of another format is not read, and the remedy; None for one of ours, and for
    what is no manifest at all.

    To be asked first: what another version wrote has other fields, perhaps another kind of
    checksum, and is not damaged.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    number = found.get("format") if isinstance(found, dict) else None
    if type(number) is not int:
        return None
    if number == FORMAT:
        # A damaged key would be one that is not known.
        is_unsealed = checksums.KEY not in found and found.keys() <= Manifest.model_fields.keys()
        return (of_0_1("bundle"), "export it again") if is_unsealed else None
    what = f"this bundle is of format {number}; this prunedge reads format {FORMAT}"
    version = _version_of(found)
    if number > FORMAT:
        return (
            what,
            (
                "update prunedge "
                f"({f'pip install prunedge=={version}' if version else UPDATE}), or export it "
                "again with this one"
            ),
        )
    return what, "export it again" + (
        f", or use the prunedge that made it (pip install prunedge=={version})" if version else ""
    )


def _version_of(manifest: dict[str, Any]) -> str | None:
    """The version of prunedge that made a bundle, as its manifest says; None where that is no
    version that pip could be asked for.
    """
    versions = manifest.get("versions")
    said = versions.get("prunedge") if isinstance(versions, dict) else None
    return (
        said
        if isinstance(said, str) and re.fullmatch(r"[0-9]{1,4}(\.[0-9a-z]{1,12}){1,5}", said)
        else None
    )


def _check_seal(file: Path) -> None:
    """BundleError where a manifest is not what was written. (Whether that was by whom it should be,
    a signature says.)
    """
    try:
        checksums.opened(json.loads(file.read_bytes()), MANIFEST)
    except ValueError as error:
        raise BundleError(
            f"the manifest is damaged ({error})",
            where=file,
            remedy="export or copy the bundle again",
        ) from None


def is_sound_name(name: str) -> bool:
    """Whether a manifest may name a file so: below the bundle's folder, printable, and neither long
    nor deep enough to make trouble.
    """
    path = PurePosixPath(name)
    is_below = (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    )
    return (
        is_below
        and name.isprintable()
        and len(name.encode()) <= LONGEST_NAME
        and len(path.parts) <= DEEPEST_NAME
    )


def _inside(folder: Path, name: str) -> Path:
    file = folder / name
    if not is_sound_name(name) or not real_path(file).is_relative_to(real_path(folder)):
        told = shown(name) if len(name) < LONGEST_NAME else shown(name[:LONGEST_NAME]) + " ..."
        raise BundleError(
            (
                "the manifest names a file outside the bundle, or in a way that is not taken: "
                f"'{told}'"
            ),
            where=folder / MANIFEST,
            remedy="don't trust this bundle",
        )
    return file
