"""Connected damaged areas of a map, with numpy alone. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from prunedge.edge.inspect.levels import Span, number_at
from prunedge.edge.inspect.measure import Measures, measure
from prunedge.edge.tasks.base import Findings

MOST_MEASURED = 50  # regions of a photograph: the heaviest


@dataclass(frozen=True)
class Region:
    """One connected damaged area, in pixels of the upright photograph; `right` and `bottom` are the
    first pixels outside.

    `label` is the most probable damage class of its surest patch, `probability` that patch's,
    `mean_probability` the mean of the map over the area, `area` the pixels that its cells cover.
    `measures` are its length and widths, where these were taken.
    """

    left: int
    top: int
    right: int
    bottom: int
    label: str
    probability: float
    mean_probability: float
    area: int
    measures: Measures | None = None

    @property
    def weight(self) -> float:
        """What regions are ordered by: pixels that are damaged if the map is right."""
        return self.area * self.mean_probability

    def to_json(
        self, mm_per_pixel: float | None = None, span: Span | None = None
    ) -> dict[str, Any]:
        """A plain dict; sizes in millimetres too when the scale is known, and the numbers that the
        probabilities stand for where they have a `span`.
        """
        width, height = self.right - self.left, self.bottom - self.top
        record = {**asdict(self), "width": width, "height": height}
        del record["measures"]
        if self.measures is not None:
            record |= self.measures.to_json(mm_per_pixel)
        if span is not None:
            record |= {
                "number": number_at(self.probability, span),
                "mean_number": number_at(self.mean_probability, span),
            }
        if mm_per_pixel is not None:
            record |= {
                "width_mm": width * mm_per_pixel,
                "height_mm": height * mm_per_pixel,
                "area_mm2": self.area * mm_per_pixel**2,
            }
        return record


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected areas (8 neighbours) of a bool mask (rows, columns): int64 of its shape,
    0 outside, 1 to n inside; and n.
    """
    labels = np.zeros(mask.shape, dtype=np.int64)
    count = int(mask.sum())
    cells = np.full(
        (mask.shape[0] + 2, mask.shape[1] + 2), -1
    )  # a frame, so that each cell has eight neighbours
    cells[1:-1, 1:-1][mask] = np.arange(count)
    inner = cells[1:-1, 1:-1]
    pairs = []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        beside = cells[1 + down : cells.shape[0] - 1 + down, 1 + right : cells.shape[1] - 1 + right]
        both = (inner >= 0) & (beside >= 0)
        pairs.append(np.stack([inner[both], beside[both]]))
    first, second = np.concatenate(pairs, axis=1)
    roots = np.arange(count)
    while True:
        # Each area's root takes the lowest root that it touches; then every cell jumps to its root.
        # Areas halve in number each time.
        low, high = np.minimum(roots[first], roots[second]), np.maximum(roots[first], roots[second])
        if (low == high).all():
            break
        np.minimum.at(roots, high, low)
        while (roots != (roots := roots[roots])).any():
            pass
    names, numbers = np.unique(roots, return_inverse=True)
    labels[mask] = numbers + 1
    return labels, len(names)


def find_regions(
    findings: Findings, columns: np.ndarray, rows: np.ndarray, threshold: float | None = None
) -> tuple[Region, ...]:
    """The connected damaged areas of a photograph's findings, heaviest first. `columns` and `rows`
    are the edges of the findings' cells in pixels. With a `threshold`, from which on places are
    damaged, the heaviest `MOST_MEASURED` are measured.
    """
    labels, count = label_components(findings.is_damaged)
    if not count:
        return ()
    order = np.argsort(labels[findings.is_damaged], kind="stable")
    y, x = (indices[order] for indices in np.nonzero(findings.is_damaged))
    starts = np.searchsorted(labels[y, x], np.arange(2, count + 1))
    areas = np.outer(np.diff(rows), np.diff(columns))

    regions = []
    boxes = {}
    for cells in np.split(np.arange(len(order)), starts):
        at = (y[cells], x[cells])
        area = int(areas[at].sum())
        surest = int(np.argmax(findings.peak[at]))
        region = Region(
            left=int(columns[at[1].min()]),
            top=int(rows[at[0].min()]),
            right=int(columns[at[1].max() + 1]),
            bottom=int(rows[at[0].max() + 1]),
            label=str(findings.labels[at][surest]),
            probability=float(findings.peak[at][surest]),
            mean_probability=float((findings.mean[at] * areas[at]).sum() / area),
            area=area,
        )
        regions.append(region)
        spans = (_around(at[0]), _around(at[1]))
        boxes[id(region)] = (int(labels[at][0]), spans)
    regions.sort(key=lambda region: (-region.weight, region.top, region.left))
    if threshold is None:
        return tuple(regions)

    cell = int(rows[1] - rows[0])
    for place, region in enumerate(regions[:MOST_MEASURED]):
        label, spans = boxes[id(region)]
        # Around it lie places of less probability, by which its edge is found; others' count not.
        is_other = (labels[spans] > 0) & (labels[spans] != label)
        values = np.where(is_other, 0.0, findings.mean[spans]).astype(np.float32)
        measures = measure(values, threshold, cell)
        if measures is not None:
            down, across = spans
            measures = measures.moved(int(columns[across.start]), int(rows[down.start]))
        regions[place] = replace(region, measures=measures)
    return tuple(regions)


def _around(places: np.ndarray) -> slice:
    """From one before the first of these places (n,) of a side to one behind the last; the map ends
    by itself.
    """
    return slice(max(0, int(places.min()) - 1), int(places.max()) + 2)
