"""One photograph through the model: patches in batches, a map, regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil, sqrt
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from PIL import Image

from prunedge.edge.bundle import Bundle
from prunedge.edge.image.gps import Position
from prunedge.edge.image.photograph import Photo, open_photo
from prunedge.edge.image.size import Size
from prunedge.edge.inspect.footprint import Footprint, footprint_of, without_height
from prunedge.edge.inspect.grid import MOST_PATCHES, Grid
from prunedge.edge.inspect.levels import number_at
from prunedge.edge.inspect.measure import can_measure
from prunedge.edge.inspect.regions import Region, find_regions
from prunedge.edge.inspect.scale.scale import Scale
from prunedge.edge.inspect.scale.scaling import scale_of
from prunedge.edge.inspect.settings import Settings
from prunedge.edge.inspect.tiling import Tiling, tiling_of
from prunedge.edge.inspect.widths import Unit, WidthClasses
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import Findings
from prunedge.errors import BundleError, DataError

MOST_SQUARES = 4_000_000  # of a map
UNMEASURED = "lengths and widths need scikit-image: pip install 'prunedge[measure]'"
Progress = Callable[[int, int], None]  # patches done, patches in all


class Classifier(Protocol):
    """What an inspection needs of a session."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that it runs."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Predictions for images (n, height, width, channels) uint8."""


@dataclass(frozen=True)
class Inspection:
    """What was found in one image, in pixels of the upright photograph.

    `probability` is of the surest patch, `damaged` counts patches at or above the threshold,
    `regions` come worst first. `map` is (rows, columns) float32, the damage probability of each
    `cell` x `cell` pixels; those at the right and bottom edge may be smaller. `patch` is the width
    and height of what the model was shown at a time. `position` is latitude, longitude (degrees)
    and altitude (metres) from the EXIF.

    Of a model that predicts numbers, `numbers` are what the image is estimated at, by name, and a
    number's place in `span` stands for the probability (`prunedge.edge.tasks.base.Findings`). Of
    one that finds damage pixel by pixel, `mask` (rows, columns) bool is where it is.

    `scale` is None where it is not known. A pixel of the model has `resolution` pixels of the
    photograph. `width_classes` are in `unit`. `footprint` is where the photograph lies on a map, or
    what is missing for that, in words.
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
    scale: Scale | None = None
    span: tuple[float, float] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    mask: np.ndarray | None = None
    resolution: float = 1.0
    width_classes: WidthClasses | None = None
    unit: Unit = "px"
    footprint: Footprint | str = ""

    @property
    def mm_per_pixel(self) -> float | None:
        """How many millimetres a pixel shows; None where the scale is not known."""
        return None if self.scale is None else self.scale.mm_per_pixel

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
        position = None
        if self.position:
            latitude, longitude, altitude = self.position
            position = {"latitude": latitude, "longitude": longitude, "altitude_m": altitude}
        estimated: dict[str, Any] = {}
        if self.span is not None:
            highest = number_at(self.probability, self.span)
            estimated = {"numbers": dict(self.numbers), "highest": highest, "span": self.span}
        return {
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "patch": self.patch,
            "patches": self.patches,
            "damaged": self.damaged,
            "probability": self.probability,
            **estimated,
            "seconds": self.seconds,
            "damaged_share": self.damaged_share,
            "severity": self.severity,
            "mm_per_pixel": self.mm_per_pixel,
            "scale": None if self.scale is None else self.scale.to_json(),
            "resolution": self.resolution,
            "footprint": self._footprint(),
            "map": {"cell": self.cell, "rows": self.map.shape[0], "columns": self.map.shape[1]},
            "position": position,
            "notes": list(self.notes),
            "regions": [self._region(region) for region in self.regions],
        }

    def _region(self, region: Region) -> dict[str, Any]:
        record = region.to_json(self.scale, self.span, self.resolution)
        if self.width_classes is not None:
            record |= self.width_classes.of_region(record, self.unit)
        return record

    def _footprint(self) -> dict[str, Any]:
        if isinstance(self.footprint, str):
            return {"missing": self.footprint}
        return self.footprint.to_json()


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
    if name is None:
        name = image.name if isinstance(image, Path) else "image"
    inspection = inspect_photo(photo, session, settings, name, progress)
    return replace(inspection, seconds=perf_counter() - started)


def inspect_photo(
    photo: Photo,
    session: Classifier,
    settings: Settings,
    name: str,
    progress: Progress | None = None,
) -> Inspection:
    """The same for a photograph that is open already; `seconds` are without decoding."""
    started = perf_counter()
    manifest = session.bundle.manifest
    settings = settings.fitted(manifest)
    scale, scale_notes = _scale(photo, settings, name)
    tiling = tiling_of(photo, settings, manifest.task)
    grid = tiling.grid
    _refuse_too_many(grid, name)
    batches = _predictions(photo, tiling, session, settings.batch, progress)
    decoder = decoder_of(manifest.task)
    predictions = decoder.joined(batches, grid)
    assert settings.threshold is not None  # after `fitted`
    findings = decoder.findings(predictions, grid, settings.damage, settings.threshold)
    rows, columns = findings.edges or grid.edges
    cell = _cell(grid, findings)
    regions, unmeasured = _regions(findings, columns, rows, settings.threshold)
    notes = (*photo.notes, *scale_notes, *tiling.notes, *unmeasured)
    return Inspection(
        name=name,
        width=photo.width,
        height=photo.height,
        patches=grid.patches,
        damaged=findings.tiles,
        regions=regions,
        probability=findings.surest,
        map=grid.uniform(findings.mean, (rows, columns), cell),
        cell=cell,
        patch=grid.patch,
        seconds=perf_counter() - started,
        position=photo.position,
        notes=notes,
        scale=scale,
        span=findings.span,
        numbers=findings.numbers,
        mask=None if findings.edges is None else findings.is_damaged,
        resolution=_resolution(grid, manifest.task.size, findings),
        width_classes=settings.width_classes,
        unit=settings.unit,
        footprint=footprint_of(photo, settings.pose, scale),
    )


def _scale(photo: Photo, settings: Settings, name: str) -> tuple[Scale | None, tuple[str, ...]]:
    """The photograph's scale and notes about it; DataError, which names it, where it is not found
    and such photographs are to be skipped.
    """
    pose = settings.pose
    height_mm = pose.height_mm(photo)
    is_lacking = pose.ground is not None and height_mm is None
    no_height = without_height(photo, pose) if is_lacking else ""
    try:
        return scale_of(photo, settings.mm_per_pixel, settings.scaling, height_mm, no_height)
    except DataError as error:
        raise DataError(error.what, where=name, remedy=error.remedy) from error


def _refuse_too_many(grid: Grid, name: str) -> None:
    if grid.patches > MOST_PATCHES:
        raise DataError(
            f"{grid.patches:,} patches are too many",
            where=name,
            remedy="raise --patch or lower --overlap",
        )


def _regions(
    findings: Findings, columns: np.ndarray, rows: np.ndarray, threshold: float
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """The damaged regions, measured where damage is found pixel by pixel, and a note where they
    can't be.
    """
    has_lines = findings.edges is not None and bool(findings.is_damaged.any())
    is_measured = has_lines and can_measure()
    regions = find_regions(findings, columns, rows, threshold if is_measured else None)
    return regions, (UNMEASURED,) if has_lines and not is_measured else ()


def _resolution(grid: Grid, size: Size, findings: Findings) -> float:
    """How many pixels of the photograph are one of the model, or one place of its map: the larger,
    at least 1.
    """
    cell = 1.0 if findings.edges is None else float(findings.edges[0][1])
    return max(1.0, cell, grid.patch[0] / size.width, grid.patch[1] / size.height)


def _cell(grid: Grid, findings: Findings) -> int:
    """The side of the map's squares, in pixels: that of findings with cells of their own, else a
    quarter of a step between patches; larger where that would make too many.
    """
    fewest = ceil(sqrt(grid.width * grid.height / MOST_SQUARES))
    side = min(grid.stride) // 4
    if findings.edges is not None:
        side = int(findings.edges[0][1])
    return max(1, side, fewest)


def _predictions(
    photo: Photo, tiling: Tiling, session: Classifier, batch: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    """The predictions for what a photograph is shown as, a batch at a time."""
    task = session.bundle.manifest.task
    boxes = tiling.boxes()
    done = 0
    while batch_boxes := list(islice(boxes, batch)):
        patches = []
        for box in batch_boxes:
            patches.append(photo.patch(box, task.size, task.resize, task.in_channels))
        predictions = session.predict(np.stack(patches))
        if not np.isfinite(predictions).all():
            raise BundleError(
                "the model's answers are no numbers",
                where=session.bundle.path,
                remedy="export the bundle again",
            )
        yield predictions
        done += len(batch_boxes)
        if progress is not None:
            progress(done, tiling.grid.patches)
