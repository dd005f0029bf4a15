"""How large the damage at a place is in either inspection, and whether it grew by more than can be
told. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from prunedge.edge.inspect.compare.damage_maps import Box, DamageMap
from prunedge.edge.inspect.measure import measure

# Of a length, beside what its ends are uncertain by: 127 of 127 drawn cracks, bent and taken from
# another place, were measured within both together.
REPEATS_TO = 0.02

Growth = Literal["grown", "smaller", "unchanged"]


@dataclass(frozen=True)
class Extent:
    """How large the damage of one inspection is at a place, in pixels of the old photograph.

    `area` in square pixels, `longest` the longer side of its `box` (left, top, right, bottom).
    `length`, `mean_width` and `largest_width` along and across centrelines, where they were taken.
    """

    box: Box
    area: float
    longest: float
    length: float | None = None
    mean_width: float | None = None
    largest_width: float | None = None

    @property
    def reach(self) -> float:
        """Its length; without a centreline the longer side of its box."""
        return self.longest if self.length is None else self.length

    @property
    def half_outline(self) -> float:
        """About half of its outline: by how much its area changes where its edge moves by half a
        pixel to either side.
        """
        if self.length is not None and self.mean_width is not None:
            return self.length + self.mean_width
        left, top, right, bottom = self.box
        return (right - left) + (bottom - top)


def doubt_of_length(before: Extent | None, after: Extent | None, uncertainty: float) -> float:
    """By how many pixels a length may differ with nothing having changed, where a width may by
    `uncertainty`: by that at each of both ends, and by what centrelines repeat to.
    """
    lengths = [extent.reach for extent in (before, after) if extent is not None]
    return 2 * uncertainty + REPEATS_TO * max(lengths)


def growth_of(before: Extent, after: Extent, uncertainty: float) -> Growth:
    """Whether a place grew: in length, width or area, by more than can be told, where a width may
    differ by `uncertainty` pixels with nothing having changed.

    An area is uncertain by as much as it changes where its whole edge moves by the half of that.
    What grew in one measure and shrank in another has grown.
    """
    if before.length is None or after.length is None:
        before, after = replace(before, length=None), replace(after, length=None)
    steps = [(after.reach - before.reach, doubt_of_length(before, after, uncertainty))]
    if before.mean_width is not None and after.mean_width is not None:
        steps.append((after.mean_width - before.mean_width, uncertainty))
    of_area = uncertainty * max(before.half_outline, after.half_outline)
    steps.append((after.area - before.area, of_area))
    if any(step > doubt for step, doubt in steps):
        return "grown"
    if any(step < -doubt for step, doubt in steps):
        return "smaller"
    return "unchanged"


def extent_of(found: DamageMap, numbers: Sequence[int], *, is_measured: bool) -> Extent | None:
    """How large these regions are together; None where nothing of them is on the map. Measured
    along their centrelines where that is asked for, and possible for all.
    """
    boxes, areas, measures = [], [], []
    for number in numbers:
        box = found.boxes.get(number)
        if box is None:
            continue
        left, top, right, bottom = box
        around = np.s_[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
        labels = found.labels[around]
        boxes.append(box)
        areas.append(int((labels == number).sum()))
        if is_measured:
            is_other = (labels > 0) & (labels != number)
            values = np.where(is_other, 0, found.values[around]).astype(np.float32)
            measures.append(measure(values, found.level, found.cell))
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    cell = found.cell
    box = (min(lefts) * cell, min(tops) * cell, max(rights) * cell, max(bottoms) * cell)
    area = float(sum(areas)) * cell**2
    longest = float(max(box[2] - box[0], box[3] - box[1]))
    taken = [each for each in measures if each is not None]
    if not is_measured or len(taken) < len(measures):
        return Extent(box, area, longest)
    length = sum(each.length for each in taken)
    weighted = sum(each.mean_width * each.length for each in taken)
    largest = max(each.largest_width for each in taken)
    return Extent(box, area, longest, length, weighted / length, largest)
