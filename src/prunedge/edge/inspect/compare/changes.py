"""What became of each damaged region: which regions of both inspections are the same place, and
whether it grew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np

from prunedge.edge.inspect.compare.damage_maps import Box, DamageMap
from prunedge.edge.inspect.compare.extents import Extent, doubt_of_length, extent_of, growth_of
from prunedge.edge.inspect.compare.registration import Registration, moved, opencv

Kind = Literal["new", "grown", "smaller", "gone", "unchanged", "unclear", "outside"]
KINDS: tuple[Kind, ...] = ("new", "grown", "smaller", "gone", "unchanged", "unclear", "outside")
HARDLY = 0.02  # of a region, beyond what both photographs show, that is nothing to mention
HALF = 0.5  # a square: as far as an edge may lie beside where it is measured
MOST_MEASURED = 200  # places of a pair whose lengths and widths are measured: the largest

Group = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Change:
    """One place. `old` and `new` are the numbers of the regions that lie there, from 1 as in
    findings.csv. `before` and `after` are what both inspections found; None where nothing.

    `uncertainty` is by how many pixels a width may differ with nothing having changed, and
    `length_uncertainty` a length; None where no matched point is near. `is_cut`: it reaches beyond
    what both photographs show, and was compared inside alone. `elsewhere` is the highest
    probability that the other inspection has at a place that is new or gone.
    """

    kind: Kind
    old: tuple[int, ...]
    new: tuple[int, ...]
    before: Extent | None
    after: Extent | None
    uncertainty: float | None
    is_cut: bool = False
    elsewhere: float | None = None

    @property
    def box(self) -> Box:
        """The box of both, in pixels of the old photograph."""
        boxes = [extent.box for extent in (self.before, self.after) if extent is not None]
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    @property
    def length_uncertainty(self) -> float | None:
        """By how many pixels lengths may differ with nothing having changed."""
        if self.uncertainty is None:
            return None
        return doubt_of_length(self.before, self.after, self.uncertainty)

    @property
    def area(self) -> float:
        """The larger of both areas."""
        return max(extent.area for extent in (self.before, self.after) if extent is not None)


def compare_maps(
    old: DamageMap, new: DamageMap, registration: Registration, step: float, *, is_measured: bool
) -> tuple[list[Change], DamageMap]:
    """What became of the regions of two photographs' maps, the largest of each kind first, and the
    new map as the old photograph has it. `step` is by how many pixels of the old photograph the
    edges of regions of patches may lie elsewhere with nothing having changed.
    """
    new_here, is_seen = new.seen_in(old, registration.matrix)
    _, is_shown = old.seen_in(new, np.linalg.inv(registration.matrix))
    comparing = _Comparing(
        old=old.within(is_seen),
        new=new_here,
        old_shares=_shares(old.labels, is_seen),
        new_shares=_shares(new.labels, is_shown),
        registration=registration,
        step=step,
    )
    changes = comparing.changes(is_measured=is_measured)
    changes += _not_compared(old, new, comparing)
    changes.sort(key=lambda change: (KINDS.index(change.kind), -change.area))
    return changes, new_here


@dataclass(frozen=True)
class _Comparing:
    """Two maps on the same squares, and how much of each region lies on them (0 to 1)."""

    old: DamageMap
    new: DamageMap
    old_shares: dict[int, float]
    new_shares: dict[int, float]
    registration: Registration
    step: float

    def changes(self, *, is_measured: bool) -> list[Change]:
        """What became of the regions that both photographs show."""
        reach = ceil(self._doubt(self.registration.error) / self.old.cell)
        pairs = touching(self.old.labels, self.new.labels, reach)
        groups = groups_of(pairs, self.old.boxes, self.new.boxes)
        groups.sort(key=self._squares, reverse=True)
        changes = []
        for place, group in enumerate(groups):
            changes.append(self._change(group, is_measured=is_measured and place < MOST_MEASURED))
        return changes

    def _change(self, group: Group, *, is_measured: bool) -> Change:
        old, new = group
        before = extent_of(self.old, old, is_measured=is_measured)
        after = extent_of(self.new, new, is_measured=is_measured)
        shares = [self.old_shares[number] for number in old]
        shares += [self.new_shares[number] for number in new]
        change = Change("unclear", old, new, before, after, None, min(shares) < 1 - HARDLY)
        off = self.registration.error_at(change.box)
        if off is None:
            return change
        uncertainty = self._doubt(off)
        if before is None:
            seen = self._highest(self.old, self.new, new)
            return replace(change, kind="new", uncertainty=uncertainty, elsewhere=seen)
        if after is None:
            seen = self._highest(self.new, self.old, old)
            return replace(change, kind="gone", uncertainty=uncertainty, elsewhere=seen)
        growth = growth_of(before, after, uncertainty)
        return replace(change, kind=growth, uncertainty=uncertainty)

    def _doubt(self, off: float) -> float:
        """By how many pixels a place may seem to have changed where the registration is so many
        pixels off.
        """
        return off + HALF * self.old.cell + self.step

    def _squares(self, group: Group) -> int:
        """The squares of the boxes of a group's regions."""
        boxes = [self.old.boxes[number] for number in group[0]]
        boxes += [self.new.boxes[number] for number in group[1]]
        return sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)

    def _highest(self, other: DamageMap, own: DamageMap, numbers: Sequence[int]) -> float:
        """The highest probability that the other map has where these regions are."""
        highest = 0.0
        for number in numbers:
            left, top, right, bottom = own.boxes[number]
            around = np.s_[top:bottom, left:right]
            is_own = own.labels[around] == number
            highest = max(highest, float(other.values[around][is_own].max()))
        return highest


def _not_compared(old: DamageMap, new: DamageMap, comparing: _Comparing) -> list[Change]:
    """The regions that the other photograph doesn't show, and those that are too small to be left
    when the new photograph is laid on the old one.
    """
    changes = []
    for number in old.boxes:
        if number not in comparing.old.boxes:
            extent = extent_of(old, [number], is_measured=False)
            changes.append(Change("outside", (number,), (), extent, None, None))
    for number, box in new.boxes.items():
        if number not in comparing.new.boxes:
            is_outside = not comparing.new_shares[number]
            extent = _moved_extent(box, new.cell, comparing.registration.matrix)
            kind: Kind = "outside" if is_outside else "unclear"
            changes.append(Change(kind, (), (number,), None, extent, None))
    return changes


def _moved_extent(box: Box, cell: int, matrix: np.ndarray) -> Extent:
    """A box of squares of the new photograph's map as the old photograph has it."""
    left, top, right, bottom = (side * cell for side in box)
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    around = moved(matrix, corners)
    first, last = around.min(0), around.max(0)
    sides = (round(first[0]), round(first[1]), round(last[0]), round(last[1]))
    width, height = (last - first).tolist()
    return Extent(sides, width * height, max(width, height))


def _shares(labels: np.ndarray, is_seen: np.ndarray) -> dict[int, float]:
    """The share of each region's squares that the other photograph shows, by number."""
    whole = np.bincount(labels.ravel())
    seen = np.bincount(labels[is_seen], minlength=len(whole))
    return {
        number: float(seen[number] / whole[number]) for number in np.flatnonzero(whole).tolist()
    }


def groups_of(
    pairs: Iterable[tuple[int, int]], old: Iterable[int], new: Iterable[int]
) -> list[Group]:
    """The regions of both that belong together by `pairs` of touching ones (old, new): a crack
    that the model saw in two pieces and then as one is one place. In the order of the old regions,
    then of the new ones.
    """
    beside: dict[tuple[str, int], set[tuple[str, int]]] = defaultdict(set)
    for first, second in pairs:
        beside["old", first].add(("new", second))
        beside["new", second].add(("old", first))
    groups = []
    seen: set[tuple[str, int]] = set()
    nodes = [("old", number) for number in sorted(old)] + [("new", each) for each in sorted(new)]
    for start in nodes:
        if start in seen:
            continue
        waiting = [start]
        seen.add(start)
        members = []
        while waiting:
            node = waiting.pop()
            members.append(node)
            fresh = beside[node] - seen
            seen |= fresh
            waiting += fresh
        first_side = tuple(sorted(number for side, number in members if side == "old"))
        second_side = tuple(sorted(number for side, number in members if side == "new"))
        groups.append((first_side, second_side))
    return groups


def touching(old: np.ndarray, new: np.ndarray, reach: int) -> set[tuple[int, int]]:
    """The pairs of regions (old, new) that overlap, or come within `reach` squares of each other.
    `old` and `new` are labels (rows, columns) int32.
    """
    pairs: set[tuple[int, int]] = set()
    for first, second in ((_dilated(old, reach), new), (old, _dilated(new, reach))):
        is_both = (first > 0) & (second > 0)
        both = np.stack([first[is_both], second[is_both]], axis=1)
        if len(both):
            pairs |= {(int(a), int(b)) for a, b in np.unique(both, axis=0)}
    return pairs


def _dilated(labels: np.ndarray, reach: int) -> np.ndarray:
    """Labels with a rim of so many squares."""
    if not reach:
        return labels
    cv2 = opencv()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = cv2.dilate(labels.astype(np.float32), disc).astype(np.int32)
    return np.where(labels > 0, labels, wide)
