"""Where an inspection found damage, region by region, and the same seen from another place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunedge.edge.image.photograph import opened_within
from prunedge.edge.inspect.compare.registration import opencv
from prunedge.edge.inspect.kept import AGAIN, KeptInspection, Record
from prunedge.edge.inspect.levels import level_of
from prunedge.errors import DataError
from prunedge.utils.machine import pass_on_reading

MOST_MEGAPIXELS = 1000.0  # of a map or mask; prunedge writes none that is larger
ROUNDING = 0.5 / 255  # of a map's values

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class DamageMap:
    """`values` (rows, columns) float32 is the probability of damage at squares of `cell` pixels,
    `labels` (rows, columns) int32 the number of the region there, from 1, and 0 where there is
    none. A place is damaged from `level` on.
    """

    values: np.ndarray
    labels: np.ndarray
    cell: int
    level: float

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The box of each region that is on the map (left, top, right, bottom), in squares."""
        rows, columns = np.nonzero(self.labels)
        numbers = self.labels[rows, columns]
        order = np.argsort(numbers, kind="stable")  # in each region row by row
        found, starts = np.unique(numbers[order], return_index=True)
        if not len(found):
            return {}
        lefts = np.minimum.reduceat(columns[order], starts)
        rights = np.maximum.reduceat(columns[order], starts) + 1
        tops = np.minimum.reduceat(rows[order], starts)
        bottoms = np.maximum.reduceat(rows[order], starts) + 1
        sides = np.stack([lefts, tops, rights, bottoms], axis=1).tolist()
        boxes = {}
        for number, (left, top, right, bottom) in zip(found.tolist(), sides, strict=True):
            boxes[number] = (left, top, right, bottom)
        return boxes

    def seen_in(self, other: DamageMap, matrix: np.ndarray) -> tuple[DamageMap, np.ndarray]:
        """The same on the squares of another photograph's map, and which of these (rows, columns)
        bool it reaches. `matrix` (3, 3) takes a place of this photograph to the other one.
        """
        cv2 = opencv()
        way = np.linalg.inv(_to_pixels(other.cell)) @ matrix @ _to_pixels(self.cell)
        rows, columns = other.values.shape
        values = cv2.warpPerspective(self.values, way, (columns, rows), flags=cv2.INTER_LINEAR)
        nearest = cv2.INTER_NEAREST
        labels = cv2.warpPerspective(
            self.labels.astype(np.float32), way, (columns, rows), flags=nearest
        )
        everywhere = np.ones(self.values.shape, np.uint8)
        is_seen = cv2.warpPerspective(everywhere, way, (columns, rows), flags=nearest) > 0
        return DamageMap(values, labels.astype(np.int32), other.cell, self.level), is_seen

    def within(self, is_seen: np.ndarray) -> DamageMap:
        """The same with nothing outside of these squares (rows, columns) bool."""
        values = np.where(is_seen, self.values, 0).astype(np.float32)
        return DamageMap(values, np.where(is_seen, self.labels, 0), self.cell, self.level)


def read_map(inspection: KeptInspection, name: str) -> DamageMap:
    """Where damage was found in a photograph.

    DataError where its map or mask is missing or damaged.
    """
    record = inspection.images[name]
    kept = record["map"]
    size = (kept["columns"], kept["rows"])
    values = _read_grey(inspection.folder / f"{name}.map.png", size).astype(np.float32) / 255
    level = level_of(inspection.threshold, record.get("span"))
    if record.get("has_mask"):
        whole = (record["width"], record["height"])
        mask = _read_grey(inspection.folder / f"{name}.mask.png", whole) > 0
        is_damaged = _at_centres(mask, kept["cell"], size)
        # The map's values are rounded, the mask is not.
        values = np.where(is_damaged, np.maximum(values, level), np.minimum(values, level - 1e-6))
        values = values.astype(np.float32)
    else:
        is_damaged = values >= level - ROUNDING
    labels = _region_labels(is_damaged, record, inspection.is_of_pixels)
    return DamageMap(values, labels, kept["cell"], level)


def _to_pixels(cell: int) -> np.ndarray:
    """From the numbers of a map's column and row to their middle, in the photograph's pixels."""
    return np.array([[cell, 0, cell / 2], [0, cell, cell / 2], [0, 0, 1]], dtype=np.float64)


def _read_grey(file: Path, size: tuple[int, int]) -> np.ndarray:
    """A grey image of this width and height, as (rows, columns) uint8."""
    try:
        with opened_within(file, MOST_MEGAPIXELS) as opened:
            if opened.size != size:
                raise DataError("not as large as its record says", where=file, remedy=AGAIN)
            return np.asarray(opened.convert("L"))
    except DataError:
        raise
    except Exception as error:  # a hostile file makes Pillow's decoders raise all kinds
        pass_on_reading(error, file)
        raise DataError("missing or damaged", where=file, remedy=AGAIN) from None


def _at_centres(mask: np.ndarray, cell: int, size: tuple[int, int]) -> np.ndarray:
    """A mask's values (height, width) at the middle of each square of a map of this size."""
    columns = np.minimum(np.arange(size[0]) * cell + cell // 2, mask.shape[1] - 1)
    rows = np.minimum(np.arange(size[1]) * cell + cell // 2, mask.shape[0] - 1)
    return mask[np.ix_(rows, columns)]


def _region_labels(is_damaged: np.ndarray, record: Record, is_of_pixels: bool) -> np.ndarray:
    """The number of each square's region (rows, columns) int32: connected squares are of the
    smallest region whose box holds them. A region of patches that no square reaches the threshold
    in is its box.
    """
    cv2 = opencv()
    cell = record["map"]["cell"]
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(
        is_damaged.astype(np.uint8), connectivity=8
    )
    regions = record["regions"]
    owners = np.zeros(count, np.int32)
    owners[1:] = _owners(boxes[1:, :4] * cell, regions, cell)
    labels: np.ndarray = owners[parts]
    if is_of_pixels:
        return labels
    has_squares = set(owners.tolist())
    for number, region in enumerate(regions, 1):
        if number in has_squares:
            continue
        rows = slice(region["top"] // cell, -(-region["bottom"] // cell))
        columns = slice(region["left"] // cell, -(-region["right"] // cell))
        box = labels[rows, columns]
        box[box == 0] = number
    return labels


def _owners(parts: np.ndarray, regions: list[Record], cell: int) -> np.ndarray:
    """The number (n,) int32 of the smallest region whose box holds the middle of each part's; parts
    (n, 4) are left, top, width and height in pixels. 0 where none does.
    """
    owners = np.zeros(len(parts), np.int32)
    if not regions or not len(parts):
        return owners
    boxes = np.array([[r["left"], r["top"], r["right"], r["bottom"]] for r in regions])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for number, (left, top, width, height) in enumerate(parts):
        x, y = left + width / 2, top + height / 2
        is_held = (boxes[:, 0] - cell <= left) & (left + width <= boxes[:, 2] + cell)
        is_held &= (boxes[:, 1] - cell <= top) & (top + height <= boxes[:, 3] + cell)
        if not is_held.any():
            is_held = (boxes[:, 0] <= x) & (x < boxes[:, 2])
            is_held &= (boxes[:, 1] <= y) & (y < boxes[:, 3])
        if is_held.any():
            owners[number] = 1 + int(np.where(is_held, areas, np.inf).argmin())
    return owners
