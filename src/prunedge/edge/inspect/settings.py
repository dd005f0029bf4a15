"""How to inspect: what counts as damage, and what a model is shown of a photograph."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any, Literal

from prunedge.edge.bundle import Bundle
from prunedge.edge.image.read import Greys
from prunedge.edge.inspect.footprint import Pose
from prunedge.edge.inspect.grid import RIM
from prunedge.edge.inspect.measure import can_measure
from prunedge.edge.inspect.scale.scaling import Scaling
from prunedge.edge.inspect.widths import Unit, WidthClasses
from prunedge.edge.manifest import Manifest, View
from prunedge.edge.tasks import decoder_of, finds_pixels
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.damage import damage_classes
from prunedge.errors import DataError, ExtraMissing

MOST_MM = 1e6  # that a pixel shows: a kilometre; the least is a nanometre
MOST_MEGAPIXELS = 1e6

Patch = int | tuple[int, int] | Literal["whole"]


@dataclass(frozen=True)
class Settings:
    """How to inspect.

    `damage`: classes that count as damage; () finds them from their names. `threshold`: an area is
    damaged from this probability on, or from this number on where the model predicts numbers; None
    is a half, or the middle of what the model learned. `patch`: width of a patch in the
    photograph's pixels (its height follows from the model's images), or its width and height, or
    `whole`: photographs are not cut; None shows the model what training showed it, as the bundle
    tells. `overlap`: share of a patch that the next one sees again. `batch`: patches at a time.
    `mm_per_pixel`: gives sizes in millimetres too; `scaling`: other ways to that. `width_classes`:
    a table of widths, in millimetres where a scale is asked for, else in pixels. `pose`: where the
    camera was, for places on a map. `range`: the stored values that are black and white in greys of
    more than eight bits, instead of the bundle's.

    `view`: what `fitted` makes of the bundle and `patch`.
    """

    damage: tuple[str, ...] = ()
    threshold: float | None = None
    patch: Patch | None = None
    overlap: float = 0.5
    batch: int = 16
    mm_per_pixel: float | None = None
    max_megapixels: float = 200.0
    range: tuple[float, float] | None = None
    scaling: Scaling = field(default_factory=Scaling)
    width_classes: WidthClasses | None = None
    pose: Pose = field(default_factory=Pose)
    view: View | None = None

    def __post_init__(self) -> None:
        wrong = [
            (
                self.threshold is not None and not isfinite(self.threshold),
                "--threshold must be a finite number",
            ),
            (
                _shortest(self.patch) < 1,
                "--patch must be at least 1 pixel",
            ),
            (not 0 <= self.overlap < 1, "--overlap must be at least 0 and below 1"),
            (self.batch < 1, "--batch must be at least 1"),
            (
                self.mm_per_pixel is not None and not 1 / MOST_MM <= self.mm_per_pixel <= MOST_MM,
                f"--mm-per-pixel must be from {1 / MOST_MM:g} to {MOST_MM:,.0f}",
            ),
            (
                len(self._scales()) > 1,
                f"{' and '.join(self._scales())} each tell the scale: give one of them",
            ),
            (
                self.scaling.distance is not None and self.pose.height is not None,
                "--distance and --height each tell the distance: give one of them",
            ),
            (
                not 0 < self.max_megapixels <= MOST_MEGAPIXELS,
                f"--max-megapixels must be above 0 and at most {MOST_MEGAPIXELS:,.0f}",
            ),
        ]
        mistakes = [what for is_wrong, what in wrong if is_wrong]
        if mistakes:
            raise DataError("; ".join(mistakes), remedy="mend these values")

    def _scales(self) -> list[str]:
        """The options that tell the scale of photographs."""
        given = {
            "--mm-per-pixel": self.mm_per_pixel,
            "--marker": self.scaling.marker,
            "--distance": self.scaling.distance,
        }
        return [option for option, value in given.items() if value is not None]

    @property
    def unit(self) -> Unit:
        """What widths are classed in: millimetres where a scale is asked for, else pixels."""
        from_height = self.pose.height is not None or self.pose.ground is not None
        return "mm" if self._scales() or from_height else "px"

    def fitted(self, manifest: Manifest) -> Settings:
        """The settings with the damage classes and the view that a bundle tells. DataError when its
        names don't tell damage.
        """
        task = manifest.task
        decoder = decoder_of(task)
        if self.width_classes is not None:
            self._refuse_unmeasured(task)
        wanted = self.damage or task.damage.classes or decoder.damage
        damage = damage_classes(task.classes, wanted, may_be_all=decoder.allows_none)
        threshold = decoder.threshold(self.threshold, damage)
        return replace(self, damage=damage, threshold=threshold, view=self._view(manifest))

    def _refuse_unmeasured(self, task: TaskSpec) -> None:
        """DataError or ExtraMissing where no region will have a width."""
        if not finds_pixels(task.name):
            raise DataError(
                f"widths are measured of damage that is found pixel by pixel, not by {task.name}",
                where="--width-classes",
                remedy="leave it out, or use a bundle of a model of segmentation",
            )
        if not can_measure():
            raise ExtraMissing(
                "lengths and widths need scikit-image", remedy="pip install 'prunedge[measure]'"
            )

    def _view(self, manifest: Manifest) -> View:
        size = manifest.task.size
        # A bundle that doesn't tell: patches as large as what the model takes.
        view = manifest.view or View(kind="patch", width=size.width, height=size.height)
        if self.patch is None:
            return view
        if self.patch == "whole":
            return view.model_copy(update={"kind": "whole"})
        if isinstance(self.patch, int):
            height = max(1, round(self.patch * size.height / size.width))
            return View(kind="patch", width=self.patch, height=height)
        width, height = self.patch
        return View(kind="patch", width=width, height=height)

    def greys(self, bundle: Bundle) -> Greys | None:
        """What greys of more than eight bits mean; None when neither the settings nor the bundle
        tell.
        """
        greys = bundle.greys
        if self.range is None:
            return greys
        return Greys(*self.range, mixed=greys is None or greys.mixed)

    def looked(self, manifest: Manifest) -> str:
        """How photographs are looked at, in words, after `fitted`."""
        assert self.view is not None
        if self.view.kind == "whole":
            whole = "each photograph whole"
            if manifest.task.resize == "crop":
                whole = "the middle of each photograph, in the shape of the model's images"
            return whole + ("" if self.patch else ", as in training")
        size = f"patches of {self.view.width} x {self.view.height} pixels"
        if self.overlap < RIM:
            shared = f"that share {self.overlap:.0%}" if self.overlap else "that share nothing"
            size += (
                f" {shared}: damage across their edges may be missed, and a region end where "
                f"its patch does (--overlap {RIM} or more)"
            )
        if self.patch is not None:
            return size
        if manifest.view is None:
            remedy = "export it again, or give --patch"
            return (
                f"{size}, for want of better: the bundle doesn't say what its training "
                f"images showed ({remedy})"
            )
        return f"{size}, as in training"


def _shortest(patch: Patch | None) -> int:
    """The shorter side of a patch in pixels; 1 where none is given."""
    if patch is None or patch == "whole":
        return 1
    return patch if isinstance(patch, int) else min(patch)


def parse_patch(text: str) -> Patch:
    """`224` (a width), `96x48` (width and height) or `whole`. Raises DataError when it is none of
    these.
    """
    if text == "whole":
        return "whole"
    match = re.fullmatch(r"(\d{1,6})(?:[xX×](\d{1,6}))?", text.strip())
    if match is None:
        remedy = (
            "give its side, its width and height, or whole: --patch 224, --patch 96x48, "
            "--patch whole"
        )
        raise DataError(f"'{text}' is no size of a patch", where="--patch", remedy=remedy)
    width = int(match[1])
    return width if match[2] is None else (width, int(match[2]))


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """The settings that decide what is found; how many patches go at a time doesn't."""
    record = asdict(settings)
    del record["batch"]
    del record["max_megapixels"]
    record["view"] = None if settings.view is None else settings.view.model_dump()
    return record
