"""What every form of annotations is read into: the shapes of each image, the later ones above."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunedge.edge.tasks.base import SEPARATOR
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import DataError
from prunedge.utils.wording import counted, first_of

IGNORED = "__ignore__"  # LabelMe's name for what counts for nothing
MOST_CLASSES = IGNORE - 1  # numbers from 1 up to the one that is ignored


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of one class as run lengths: `counts` (n,) int64 pixels outside and inside in turn,
    row after row, or column after column (`by_columns`), of a box that begins at `left`, `top`.
    """

    left: int
    top: int
    width: int
    height: int
    counts: np.ndarray
    by_columns: bool = False


@dataclass(frozen=True, eq=False)
class Shape:
    """An area of one class: `polygons`, each (n, 2) float64 x and y in pixels, or `runs`.

    Coordinates are those of OpenCV and scikit-image: the centre of the first pixel is (0, 0).
    """

    label: str
    polygons: tuple[np.ndarray, ...] = ()
    runs: Runs | None = None


@dataclass(frozen=True, eq=False)
class Drawing:
    """The shapes of one image, the later ones above. `size` is the width and height that the
    annotations say of it, None where they don't, and polygons are then in shares of both. `fault`
    says why they can't be used.
    """

    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    fault: str | None = None

    @cached_property
    def digest(self) -> str:
        """Stands for all of it."""
        digest = hashlib.sha256(f"{self.size} {self.fault}".encode(errors="surrogateescape"))
        for shape in self.shapes:
            digest.update(f"\n{shape.label}".encode(errors="surrogateescape"))
            for polygon in shape.polygons:
                digest.update(f"\t{len(polygon)}\t".encode())
                digest.update(np.ascontiguousarray(polygon).tobytes())
            if shape.runs is not None:
                runs = shape.runs
                box = (runs.left, runs.top, runs.width, runs.height, runs.by_columns)
                digest.update(f"\t{box}\t".encode())
                digest.update(np.ascontiguousarray(runs.counts).tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class Annotated:
    """An annotated image: the names under which its photograph may lie, the likeliest first, and
    what is drawn on it.
    """

    names: tuple[str, ...]
    drawing: Drawing


@dataclass(frozen=True)
class Annotations:
    """What annotations hold: their `form` by its name, all labels in the order of the form's own
    list, and the images. `takes_rest_for_sound`: photographs without annotation show no damage, as
    this form has it.
    """

    form: str
    where: Path
    labels: tuple[str, ...]
    images: Sequence[Annotated]
    takes_rest_for_sound: bool = False

    def shape_count(self) -> dict[str, int]:
        """How many polygons and how many masks there are."""
        polygons = masks = 0
        for image in self.images:
            for shape in image.drawing.shapes:
                polygons += len(shape.polygons)
                masks += shape.runs is not None
        return {"polygon": polygons, "mask": masks}


def is_background(label: str) -> bool:
    """Whether a label says that something is none of the others: `background`, `_background_`."""
    return label.strip("_ ").casefold() == "background"


def classes_of(annotations: Annotations) -> tuple[str, ...]:
    """The classes that shapes have, in the order of the labels, the background first: by the name
    that the labels give it, or `background`. DataError for names that a class can't have.
    """
    used = {shape.label for image in annotations.images for shape in image.drawing.shapes}
    own = [label for label in annotations.labels if is_background(label)]
    if len(own) > 1:
        raise DataError(
            f"two labels are the background: {own[0]} and {own[1]}",
            where=annotations.where,
            remedy="keep one",
        )
    others = []
    for label in annotations.labels:
        if label in used and label != IGNORED and not is_background(label):
            others.append(label)
    wrong = [label for label in others if SEPARATOR in label or not label.strip()]
    if wrong:
        raise DataError(
            f"'{wrong[0][:100]}' can't be the name of a class",
            where=annotations.where,
            remedy=f"give it a name without {SEPARATOR}",
        )
    if len(others) > MOST_CLASSES:
        raise DataError(
            f"shapes of {counted(len(others), 'class', 'classes')}: {first_of(others)}",
            where=annotations.where,
            remedy=f"a mask can tell {MOST_CLASSES} apart: join some of them",
        )
    return (own[0] if own else "background", *others)


def numbers_of(classes: Sequence[str]) -> dict[str, int]:
    """The number of each label in a mask of these classes, the background first."""
    return {**{name: number for number, name in enumerate(classes)}, IGNORED: IGNORE}
