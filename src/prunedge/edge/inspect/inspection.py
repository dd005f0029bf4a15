"""One photograph through the network: patches in batches, a map, regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from PIL import Image

from prunedge.edge.bundle import Bundle, Manifest
from prunedge.edge.inspect.damage import damage_classes
from prunedge.edge.inspect.grid import MOST_PATCHES, Grid
from prunedge.edge.inspect.photo import Photo, open_photo
from prunedge.edge.inspect.place import Position
from prunedge.edge.inspect.regions import Region, find_regions
from prunedge.errors import BundleError, DataError

Progress = Callable[[int, int], None]  # patches done, patches in all


class Classifier(Protocol):
    """What an inspection needs of a session."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that it runs."""

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float32 for pictures (n, size, size, 3) uint8."""


@dataclass(frozen=True)
class Settings:
    """How to inspect.

    `damage`: classes that count as damage; () finds them from their names. `threshold`: an area is damaged from this probability on.
    `patch`: side of a patch in the photograph's pixels; None is what the network was trained on, as far as the bundle tells.
    `overlap`: share of a patch that the next one sees again. `batch`: patches at a time. `mm_per_pixel`: gives sizes in millimetres too.
    """

    damage: tuple[str, ...] = ()
    threshold: float = 0.5
    patch: int | None = None
    overlap: float = 0.5
    batch: int = 16
    mm_per_pixel: float | None = None
    max_megapixels: float = 200.0

    def __post_init__(self) -> None:
        wrong = [
            (not 0 < self.threshold <= 1, "--threshold must be above 0 and at most 1"),
            (self.patch is not None and self.patch < 1, "--patch must be at least 1 pixel"),
            (not 0 <= self.overlap < 1, "--overlap must be at least 0 and below 1"),
            (self.batch < 1, "--batch must be at least 1"),
            (self.mm_per_pixel is not None and not 0 < self.mm_per_pixel < float("inf"), "--mm-per-pixel must be above 0"),
            (not 0 < self.max_megapixels < float("inf"), "--max-megapixels must be above 0"),
        ]
        if said := [what for is_wrong, what in wrong if is_wrong]:
            raise DataError("; ".join(said), remedy="mend these values")

    def fitted(self, manifest: Manifest) -> Settings:
        """The settings with the damage classes and the size of a patch that a bundle tells. DataError when its names don't tell damage."""
        told = manifest.about.get("patch_size")
        patch = self.patch or (told if isinstance(told, int) and told >= 1 else manifest.input_size)
        return replace(self, damage=damage_classes(manifest.classes, self.damage), patch=patch)


@dataclass(frozen=True)
class Inspection:
    """What was found in one picture, in pixels of the upright photograph.

    `probability` is of the surest patch, `damaged` counts patches at or above the threshold, `regions` come worst first. `map` is
    (rows, columns) float32, the damage probability of each `cell` x `cell` pixels; those at the right and bottom edge may be smaller.
    `position` is latitude, longitude (degrees) and altitude (metres) from the EXIF.
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
    patch: int
    seconds: float
    position: Position | None
    notes: tuple[str, ...] = ()
    mm_per_pixel: float | None = None

    @property
    def damaged_share(self) -> float:
        """Share of the picture (0 to 1) that the regions cover."""
        return sum(region.area for region in self.regions) / (self.width * self.height)

    @property
    def severity(self) -> float:
        """What pictures are ordered by: the share that is damaged if the map is right, 0 to 1."""
        return sum(region.weight for region in self.regions) / (self.width * self.height)

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything but the map's values."""
        plain = {
            field: getattr(self, field) for field in ("name", "width", "height", "patch", "patches", "damaged", "probability", "seconds")
        }
        position = dict(zip(("latitude", "longitude", "altitude_m"), self.position, strict=True)) if self.position else None
        return {
            **plain, "damaged_share": self.damaged_share, "severity": self.severity, "mm_per_pixel": self.mm_per_pixel,
            "map": {"cell": self.cell, "rows": self.map.shape[0], "columns": self.map.shape[1]}, "position": position,
            "notes": list(self.notes), "regions": [region.to_json(self.mm_per_pixel) for region in self.regions],
        }  # fmt: skip


def inspect_picture(
    picture: Path | Image.Image, session: Classifier, settings: Settings, *, name: str | None = None, progress: Progress | None = None
) -> Inspection:
    """Look for damage in a picture (a file, or a Pillow picture).

    Raises DataError when the picture can't be decoded whole or is too large, BundleError when the network's answers are no numbers.
    """
    started = perf_counter()
    photo = open_photo(picture, settings.max_megapixels)
    found = inspect_photo(photo, session, settings, name or (picture.name if isinstance(picture, Path) else "picture"), progress)
    return replace(found, seconds=perf_counter() - started)


def inspect_photo(photo: Photo, session: Classifier, settings: Settings, name: str, progress: Progress | None = None) -> Inspection:
    """The same for a photograph that is open already; `seconds` are without decoding."""
    started = perf_counter()
    manifest = session.bundle.manifest
    settings = settings.fitted(manifest)
    assert settings.patch is not None
    grid = Grid(photo.width, photo.height, settings.patch, max(1, round(settings.patch * (1 - settings.overlap))))
    if grid.patches > MOST_PATCHES:
        raise DataError(f"{grid.patches:,} patches are too many", where=name, remedy="raise --patch or lower --overlap")
    chosen = [manifest.classes.index(label) for label in settings.damage]
    values = np.concatenate(list(_probabilities(photo, grid, session, settings.batch, chosen, progress)))  # (patches, damage classes)
    sums = values.sum(1, dtype=np.float64).clip(0, 1).astype(np.float32)
    mean, surest = grid.maps(sums.reshape(len(grid.ys), len(grid.xs)))
    labels = np.asarray(settings.damage)[values.argmax(1)]
    columns, rows = grid.cells()
    regions = find_regions(mean, sums[surest], labels[surest], columns, rows, mean >= settings.threshold)
    notes = photo.notes
    if photo.width < settings.patch or photo.height < settings.patch:
        notes = (*notes, f"{photo.width} x {photo.height} pixels are smaller than a patch of {settings.patch}: stretched to one")
    return Inspection(
        name, photo.width, photo.height, grid.patches, int((sums >= settings.threshold).sum()), regions, float(sums.max()), mean,
        grid.stride, settings.patch, perf_counter() - started, photo.position, notes, settings.mm_per_pixel,
    )  # fmt: skip


def settings_to_json(settings: Settings) -> dict[str, Any]:
    """The settings that decide what is found; how many patches go at a time doesn't."""
    return {key: value for key, value in asdict(settings).items() if key not in ("batch", "max_megapixels")}


def _probabilities(
    photo: Photo, grid: Grid, session: Classifier, batch: int, chosen: list[int], progress: Progress | None
) -> Iterator[np.ndarray]:
    done, size, left = 0, session.bundle.manifest.input_size, grid.boxes()
    while boxes := list(islice(left, batch)):
        found = session.predict(np.stack([photo.patch(box, size) for box in boxes]))[:, chosen]
        if not np.isfinite(found).all():
            raise BundleError("the network's answers are no numbers", where=session.bundle.path, remedy="export the bundle again")
        yield found
        done += len(boxes)
        if progress is not None:
            progress(done, grid.patches)
