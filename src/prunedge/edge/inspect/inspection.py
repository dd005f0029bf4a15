"""One photograph through the model: patches in batches, a map, regions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import ceil, sqrt
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from prunedge.edge.bundle import Bundle
from prunedge.edge.image.gps import Position
from prunedge.edge.image.photograph import Photo, open_photo
from prunedge.edge.image.read import Greys
from prunedge.edge.inspect.damage import damage_classes
from prunedge.edge.inspect.grid import MOST_PATCHES, RIM, Grid
from prunedge.edge.inspect.regions import Region, find_regions
from prunedge.edge.manifest import Manifest, View
from prunedge.edge.tasks import decoder_of
from prunedge.errors import BundleError, DataError

MOST_SQUARES = 4_000_000  # of a map
MOST_MM = 1e6  # that a pixel shows: a kilometre; the least is a nanometre
MOST_MEGAPIXELS = 1e6
Progress = Callable[[int, int], None]  # patches done, patches in all


class Classifier(Protocol):
    """What an inspection needs of a session."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that it runs."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predictions for images (n, height, width, 3) uint8."""


@dataclass(frozen=True)
class Settings:
    """How to inspect.

    `damage`: classes that count as damage; () finds them from their names. `threshold`: an area is
    damaged from this probability on. `patch`: side of a patch, or its width and height, in the
    photograph's pixels, or `whole`: photographs are not cut; None shows the model what training
    showed it, as the bundle tells. `overlap`: share of a patch that the next one sees again.
    `batch`: patches at a time. `mm_per_pixel`: gives sizes in millimetres too. `range`: the stored
    values that are black and white in greys of more than eight bits, instead of the bundle's.
    `view`: what `fitted` makes of the bundle and `patch`.
    """

    damage: tuple[str, ...] = ()
    threshold: float = 0.5
    patch: int | tuple[int, int] | Literal["whole"] | None = None
    overlap: float = 0.5
    batch: int = 16
    mm_per_pixel: float | None = None
    max_megapixels: float = 200.0
    range: tuple[float, float] | None = None
    view: View | None = None

    def __post_init__(self) -> None:
        wrong = [
            (not 0 < self.threshold <= 1, "--threshold must be above 0 and at most 1"),
            (
                self._sides() is not None and min(self._sides() or ()) < 1,
                "--patch must be at least 1 pixel",
            ),
            (not 0 <= self.overlap < 1, "--overlap must be at least 0 and below 1"),
            (self.batch < 1, "--batch must be at least 1"),
            (
                self.mm_per_pixel is not None and not 1 / MOST_MM <= self.mm_per_pixel <= MOST_MM,
                f"--mm-per-pixel must be from {1 / MOST_MM:g} to {MOST_MM:,.0f}",
            ),
            (
                not 0 < self.max_megapixels <= MOST_MEGAPIXELS,
                f"--max-megapixels must be above 0 and at most {MOST_MEGAPIXELS:,.0f}",
            ),
        ]
        if said := [what for is_wrong, what in wrong if is_wrong]:
            raise DataError("; ".join(said), remedy="mend these values")

    def fitted(self, manifest: Manifest) -> Settings:
        """The settings with the damage classes and the view that a bundle tells. DataError when its
        names don't tell damage.
        """
        view = manifest.view or _guessed(manifest)
        if (sides := self._sides()) is not None:
            view = View(kind="patch", width=sides[0], height=sides[1])
        elif self.patch == "whole":
            view = view.model_copy(update={"kind": "whole"})
        return replace(self, damage=damage_classes(manifest.task.classes, self.damage), view=view)

    def greys(self, bundle: Bundle) -> Greys | None:
        """What greys of more than eight bits mean; None when neither the settings nor the bundle
        tell.
        """
        told = bundle.greys
        return told if self.range is None else Greys(*self.range, mixed=told is None or told.mixed)

    def looked(self, manifest: Manifest) -> str:
        """How photographs are looked at, in words, after `fitted`."""
        assert self.view is not None
        if self.view.kind == "whole":
            return "each photograph whole" + ("" if self.patch else ", as in training")
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

    def _sides(self) -> tuple[int, int] | None:
        if isinstance(self.patch, int):
            return self.patch, self.patch
        return None if self.patch is None or self.patch == "whole" else self.patch


def _guessed(manifest: Manifest) -> View:
    """The view of a bundle that doesn't tell it: patches as large as what the model takes."""
    return View(kind="patch", width=manifest.task.size.width, height=manifest.task.size.height)


@dataclass(frozen=True)
class Inspection:
    """What was found in one image, in pixels of the upright photograph.

    `probability` is of the surest patch, `damaged` counts patches at or above the threshold,
    `regions` come worst first. `map` is (rows, columns) float32, the damage probability of each
    `cell` x `cell` pixels; those at the right and bottom edge may be smaller. `patch` is the width
    and height of what the model was shown at a time. `position` is latitude, longitude (degrees)
    and altitude (metres) from the EXIF.
    """

    name: str
    width: int
    height: int
    patches: int
    damaged: int
    regions: tuple[Region, ...]
    probability: float
    map: np.ndarray
    cell: int
    patch: tuple[int, int]
    seconds: float
    position: Position | None
    notes: tuple[str, ...] = ()
    mm_per_pixel: float | None = None

    @property
    def damaged_share(self) -> float:
        """Share of the image (0 to 1) that the regions cover."""
        return sum(region.area for region in self.regions) / (self.width * self.height)

    @property
    def severity(self) -> float:
        """What images are ordered by: the share that is damaged if the map is right, 0 to 1."""
        return sum(region.weight for region in self.regions) / (self.width * self.height)

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything but the map's values."""
        plain = {
            field: getattr(self, field)
            for field in (
                "name",
                "width",
                "height",
                "patch",
                "patches",
                "damaged",
                "probability",
                "seconds",
            )
        }
        position = (
            dict(zip(("latitude", "longitude", "altitude_m"), self.position, strict=True))
            if self.position
            else None
        )
        return {
            **plain,
            "damaged_share": self.damaged_share,
            "severity": self.severity,
            "mm_per_pixel": self.mm_per_pixel,
            "map": {"cell": self.cell, "rows": self.map.shape[0], "columns": self.map.shape[1]},
            "position": position,
            "notes": list(self.notes),
            "regions": [region.to_json(self.mm_per_pixel) for region in self.regions],
        }


def inspect_image(
    image: Path | Image.Image,
    session: Classifier,
    settings: Settings,
    *,
    name: str | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Look for damage in an image (a file, or a Pillow image).

    Raises DataError when the image can't be decoded whole or is too large, BundleError when the
    model's answers are no numbers.
    """
    started = perf_counter()
    settings = settings.fitted(session.bundle.manifest)
    photo = open_photo(image, settings.max_megapixels, settings.greys(session.bundle))
    found = inspect_photo(
        photo,
        session,
        settings,
        name or (image.name if isinstance(image, Path) else "image"),
        progress,
    )
    return replace(found, seconds=perf_counter() - started)


def inspect_photo(
    photo: Photo,
    session: Classifier,
    settings: Settings,
    name: str,
    progress: Progress | None = None,
) -> Inspection:
    """The same for a photograph that is open already; `seconds` are without decoding."""
    started = perf_counter()
    settings = settings.fitted(session.bundle.manifest)
    grid = _grid(photo, settings)
    if grid.patches > MOST_PATCHES:
        raise DataError(
            f"{grid.patches:,} patches are too many",
            where=name,
            remedy="raise --patch or lower --overlap",
        )
    predictions = np.concatenate(list(_predictions(photo, grid, session, settings.batch, progress)))
    decoder = decoder_of(session.bundle.manifest.task)
    findings = decoder.findings(predictions, grid, settings.damage, settings.threshold)
    regions = find_regions(findings, grid.across.edges, grid.down.edges)
    notes = photo.notes
    if photo.width < grid.patch[0] or photo.height < grid.patch[1]:
        size = f"{grid.patch[0]} x {grid.patch[1]}"
        notes = (
            *notes,
            (
                f"{photo.width} x {photo.height} pixels are smaller than a patch of {size}: "
                "stretched to one"
            ),
        )
    cell = _cell(grid)
    return Inspection(
        name,
        photo.width,
        photo.height,
        grid.patches,
        findings.tiles,
        regions,
        findings.surest,
        grid.uniform(findings.mean, cell),
        cell,
        grid.patch,
        perf_counter() - started,
        photo.position,
        notes,
        settings.mm_per_pixel,
    )


def _grid(photo: Photo, settings: Settings) -> Grid:
    """What the model is shown of a photograph: all of it at once, or patches as large as
    training's.
    """
    view = settings.view
    assert view is not None
    is_whole = view.kind == "whole" or (
        settings.patch is None and view.is_like(photo.width, photo.height)
    )
    patch = (photo.width, photo.height) if is_whole else (view.width, view.height)
    across, down = (max(1, round(side * (1 - settings.overlap))) for side in patch)
    return Grid(photo.width, photo.height, patch, (across, down))


def _cell(grid: Grid) -> int:
    """The side of the map's squares, in pixels: a quarter of a step between patches, larger where
    that would make too many.
    """
    fewest = ceil(sqrt(grid.width * grid.height / MOST_SQUARES))
    return max(1, min(grid.stride) // 4, fewest)


def parse_patch(text: str) -> int | tuple[int, int] | Literal["whole"]:
    """`224`, `96x48` (width and height) or `whole`. Raises DataError when it is none of these."""
    if text == "whole":
        return "whole"
    found = re.fullmatch(r"(\d{1,6})(?:[xX×](\d{1,6}))?", text.strip())
    if found is None:
        remedy = (
            "give its side, its width and height, or whole: --patch 224, --patch 96x48, "
            "--patch whole"
        )
        raise DataError(f"'{text}' is no size of a patch", where="--patch", remedy=remedy)
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """The settings that decide what is found; how many patches go at a time doesn't."""
    found = {
        key: value
        for key, value in asdict(settings).items()
        if key not in ("batch", "max_megapixels")
    }
    return {**found, "view": None if settings.view is None else settings.view.model_dump()}


def _predictions(
    photo: Photo, grid: Grid, session: Classifier, batch: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    """The predictions for the grid's patches, a batch at a time."""
    done = 0
    size = session.bundle.manifest.task.size
    boxes = grid.boxes()
    while batch_boxes := list(islice(boxes, batch)):
        predictions = session.predict(np.stack([photo.patch(box, size) for box in batch_boxes]))
        if not np.isfinite(predictions).all():
            raise BundleError(
                "the model's answers are no numbers",
                where=session.bundle.path,
                remedy="export the bundle again",
            )
        yield predictions
        done += len(batch_boxes)
        if progress is not None:
            progress(done, grid.patches)
