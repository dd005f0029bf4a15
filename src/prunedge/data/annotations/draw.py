"""A drawing as the mask of its photograph: class numbers, drawn one shape above the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunedge.data.annotations.fill import Area, fill_polygon
from prunedge.data.annotations.run_lengths import area_of
from prunedge.data.annotations.shapes import Drawing, Shape
from prunedge.edge.tasks.mask_targets import IGNORE


@dataclass(frozen=True, eq=False)
class DrawnMask:
    """A mask that is drawn when it is read: its shapes, and the number of each label."""

    drawing: Drawing
    numbers: Mapping[str, int]

    @cached_property
    def digest(self) -> str:
        """Stands for all that it shows."""
        text = f"{self.drawing.digest} {sorted(self.numbers.items())}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class DrawnNotes:
    """What is unusual about a drawn mask.

    `overlapping` pixels lie in shapes of several classes, of which the last counts; `disputed` ones
    are enclosed twice by an outline that crosses itself, and left out. `cut` shapes reach beyond
    the image. `nested` polygons lie inside of another one of the same shape, and are filled.
    """

    overlapping: int = 0
    disputed: int = 0
    cut: int = 0
    nested: int = 0


def draw(mask: DrawnMask, width: int, height: int) -> tuple[np.ndarray, DrawnNotes]:
    """The numbers of classes (height, width) uint8 in an image of this size, and what is unusual
    about them. Raises ValueError where they can't be drawn.
    """
    drawing = mask.drawing
    if drawing.fault is not None:
        raise ValueError(drawing.fault)
    values = np.zeros((height, width), np.uint8)
    overlapping = disputed = cut = nested = 0
    for place, shape in enumerate(drawing.shapes):
        number = mask.numbers[shape.label]
        # Of one shape no part is above another.
        own = np.zeros((height, width), bool) if len(shape.polygons) > 1 else None
        is_cut = False
        try:
            areas = list(_areas(shape, drawing.size is None, width, height))
        except ValueError as error:
            raise ValueError(f"shape {place + 1}, {shape.label}: {error}") from None
        for area in areas:
            inside = area.is_inside
            rows = slice(area.top, area.top + inside.shape[0])
            columns = slice(area.left, area.left + inside.shape[1])
            if own is not None:
                nested += bool(inside.any() and own[rows, columns][inside].all())
                own[rows, columns] |= inside
            part = values[rows, columns]
            if number not in (0, IGNORE):
                is_other = inside & (part != 0) & (part != number) & (part != IGNORE)
                overlapping += int(is_other.sum())
            part[inside] = number
            disputed += area.disputed
            is_cut = is_cut or area.is_cut
        cut += is_cut
    return values, DrawnNotes(overlapping, disputed, cut, nested)


def _areas(shape: Shape, in_shares: bool, width: int, height: int) -> Iterator[Area]:
    for polygon in shape.polygons:
        yield fill_polygon(polygon * (width, height) if in_shares else polygon, width, height)
    if shape.runs is not None:
        yield area_of(shape.runs, width, height)
