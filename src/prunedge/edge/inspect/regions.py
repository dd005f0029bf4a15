"""Connected damaged areas of a map, with numpy alone. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from prunedge.edge.inspect.levels import Span, number_at
from prunedge.edge.inspect.measure import Measures, measure, trace
from prunedge.edge.inspect.scale.scale import Scale, width_uncertainty
from prunedge.edge.tasks.base import Findings

MOST_MEASURED = 50  # regions of a photograph: the heaviest
MOST_OUTLINED = 1000


@dataclass(frozen=True)
class Region:
    """One connected damaged area, in pixels of the upright photograph; `right` and `bottom` are the
    first pixels outside.

    `label` is the most probable damage class of its surest patch, `probability` that patch's,
    `mean_probability` the mean of the map over the area, `area` the pixels that its cells cover.
    `measures` are its length and widths, where these were taken; `outline` is that of a region
    without, as (x, y), where it was traced.
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
    outline: tuple[tuple[float, float], ...] = ()

    @property
    def weight(self) -> float:
        """What regions are ordered by: pixels that are damaged if the map is right."""
        return self.area * self.mean_probability

    def to_json(
        self, scale: Scale | None = None, span: Span | None = None, resolution: float = 1.0
    ) -> dict[str, Any]:
        """A plain dict; sizes in millimetres too when the scale is known, and the numbers that the
        probabilities stand for where they have a `span`. A pixel of the model has `resolution`
        pixels of the photograph.
        """
        width, height = self.right - self.left, self.bottom - self.top
        record = {**asdict(replace(self, measures=None)), "width": width, "height": height}
        del record["measures"], record["outline"]
        if self.outline:
            record["polygon"] = [list(point) for point in self.outline]
        if self.measures is not None:
            record |= self.measures.to_json(scale, resolution)
        if span is not None:
            record |= {
                "number": number_at(self.probability, span),
                "mean_number": number_at(self.mean_probability, span),
            }
        if scale is None:
            return record
        # The edge all around is off by as much as the width, along the whole length.
        length = self.measures.length if self.measures is not None else 0.0
        area, uncertainty = scale.area(self.area, length * width_uncertainty(resolution))
        record |= {
            "width_mm": width * scale.mm_per_pixel,
            "height_mm": height * scale.mm_per_pixel,
            "area_mm2": area,
        }
        if self.measures is not None:
            record["area_mm2_uncertainty"] = uncertainty
        return record


@dataclass(frozen=True)
class _Runs:
    """The runs of a mask: places beside each other in one row, in the order in which one reads.
    Run i is in row `rows[i]` and reaches from column `begins[i]` to before `ends[i]`; its connected
    area is `areas[i]` (from 0 to `count` - 1). All (n,) int64.
    """

    rows: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    areas: np.ndarray
    count: int


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected areas (8 neighbours) of a bool mask (rows, columns): int32 of its shape,
    0 outside, 1 to n inside; and n.
    """
    runs = _runs_in(mask)
    return _labels(mask, runs), runs.count


def _labels(mask: np.ndarray, runs: _Runs) -> np.ndarray:
    """The number of each place's area, from 1 up, 0 outside (rows, columns) int32."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[mask] = np.repeat((runs.areas + 1).astype(np.int32), runs.ends - runs.begins)
    return labels


def _runs_in(mask: np.ndarray) -> _Runs:
    """The runs of a bool mask (rows, columns), and which of them are connected (8 neighbours)."""
    framed = np.pad(mask, ((0, 0), (1, 1)))
    rows, columns = np.divmod(
        np.flatnonzero(framed[:, 1:] != framed[:, :-1]), mask.shape[1] + 1
    )  # where runs begin and end, in turns
    rows, begins, ends = rows[::2], columns[::2], columns[1::2]

    first, second = _touching(rows, begins, ends, mask.shape[1])
    roots = np.arange(len(rows))
    while True:
        # Each area's root takes the lowest root that it touches; then every run jumps to its root.
        # Areas halve in number each time.
        low, high = np.minimum(roots[first], roots[second]), np.maximum(roots[first], roots[second])
        if (low == high).all():
            break
        np.minimum.at(roots, high, low)
        while (roots != (roots := roots[roots])).any():
            pass
    names, areas = np.unique(roots, return_inverse=True)
    return _Runs(rows, begins, ends, areas, len(names))


def _touching(
    rows: np.ndarray, begins: np.ndarray, ends: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of runs that touch each other, also at a corner: (pairs,) int64 of the lower and of
    the upper one. A run touches those of the row above that end at or behind its beginning, and
    begin at or before its end; these follow each other.
    """
    row_length = width + 2  # so that no run touches one of another row than the one above
    above = (rows - 1) * row_length
    from_run = np.searchsorted(rows * row_length + ends, above + begins)
    to_run = np.searchsorted(rows * row_length + begins, above + ends, side="right")
    counts = to_run - from_run
    lower = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(lower)) - np.repeat(counts.cumsum() - counts, counts)
    return lower, from_run[lower] + within


def find_regions(
    findings: Findings, columns: np.ndarray, rows: np.ndarray, threshold: float | None = None
) -> tuple[Region, ...]:
    """The connected damaged areas of a photograph's findings, heaviest first. `columns` and `rows`
    are the edges of the findings' cells in pixels. With a `threshold`, from which on places are
    damaged, the heaviest `MOST_MEASURED` are measured, and the next traced, `MOST_OUTLINED` in all.
    """
    runs = _runs_in(findings.is_damaged)
    if not runs.count:
        return ()
    found = _regions_of(findings, runs, columns, rows)
    found.sort(key=lambda pair: (-pair[1].weight, pair[1].top, pair[1].left))
    regions = [region for _, region in found]
    if threshold is None:
        return tuple(regions)

    labels = _labels(findings.is_damaged, runs)
    cell = int(rows[1] - rows[0])
    for place, (number, region) in enumerate(found[:MOST_OUTLINED]):
        down = _around(rows, region.top, region.bottom)
        across = _around(columns, region.left, region.right)
        # Around it lie places of less probability, by which its edge is found; others' count not.
        own = labels[down, across]
        is_other = (own > 0) & (own != number + 1)
        values = np.where(is_other, 0.0, findings.mean[down, across]).astype(np.float32)
        origin = (int(columns[across.start]), int(rows[down.start]))
        is_heavy = place < MOST_MEASURED
        measures = measure(values, threshold, cell) if is_heavy else None
        if measures is not None:
            regions[place] = replace(region, measures=measures.moved(*origin))
        else:
            outline = trace(values, threshold, cell)
            moved = tuple((x + origin[0], y + origin[1]) for x, y in outline)
            regions[place] = replace(region, outline=moved)
    return tuple(regions)


def _regions_of(
    findings: Findings, runs: _Runs, columns: np.ndarray, rows: np.ndarray
) -> list[tuple[int, Region]]:
    """The areas' numbers and the regions that they are, in the order of the areas."""
    heights = np.diff(rows)[runs.rows]
    weighted = findings.mean * np.diff(columns)  # float64, so that long runs lose nothing
    sums = _over(np.add, weighted, runs) * heights
    del weighted
    sizes = (columns[runs.ends] - columns[runs.begins]) * heights
    highest = _over(np.maximum, findings.peak, runs)

    # Runs area by area; in each they stay in the order in which one reads.
    order = np.argsort(runs.areas, kind="stable")
    starts = np.searchsorted(runs.areas[order], np.arange(runs.count))
    lasts = np.append(starts[1:], len(order)) - 1
    sums = np.add.reduceat(sums[order], starts)
    sizes = np.add.reduceat(sizes[order], starts)
    lefts = np.minimum.reduceat(runs.begins[order], starts)
    rights = np.maximum.reduceat(runs.ends[order], starts)
    tops = runs.rows[order[starts]]
    bottoms = runs.rows[order[lasts]] + 1
    peaks = np.maximum.reduceat(highest[order], starts)
    is_surest = highest[order] == peaks[runs.areas[order]]
    surest = np.flatnonzero(is_surest)
    surest = order[surest[np.searchsorted(surest, starts)]]  # the first of each area

    regions = []
    for number in range(runs.count):
        run = surest[number]
        row, begin, end = runs.rows[run], runs.begins[run], runs.ends[run]
        column = begin + int(np.argmax(findings.peak[row, begin:end]))
        region = Region(
            left=int(columns[lefts[number]]),
            top=int(rows[tops[number]]),
            right=int(columns[rights[number]]),
            bottom=int(rows[bottoms[number]]),
            label=findings.names[int(findings.labels[row, column])],
            probability=float(peaks[number]),
            mean_probability=float(sums[number] / sizes[number]),
            area=int(sizes[number]),
        )
        regions.append((number, region))
    return regions


def _over(reduce: np.ufunc, values: np.ndarray, runs: _Runs) -> np.ndarray:
    """What values (rows, columns) come to over each run (n,)."""
    width = values.shape[1]
    # Every second of the ranges that reduceat takes is a run, the others are between two of them.
    ranges = np.stack([runs.rows * width + runs.begins, runs.rows * width + runs.ends], axis=1)
    if ranges[-1, 1] == values.size:
        return reduce.reduceat(values.ravel(), ranges.ravel()[:-1])[::2]
    return reduce.reduceat(values.ravel(), ranges.ravel())[::2]


def _around(edges: np.ndarray, begin: int, end: int) -> slice:
    """From one before the first of the places that lie from `begin` to before `end`, in pixels, to
    one behind the last, by the places' edges; the map ends by itself.
    """
    first, last = np.searchsorted(edges, (begin, end))
    return slice(max(0, int(first) - 1), int(last) + 1)
