"""What the values of a set of masks mean: which classes there are, and which values are each.

The masks of a set are looked at together: 0 and 1 beside masks of 0 to 5 are numbers of classes,
and 0 and 255 are damage or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from prunedge.data.masks import HALF, LOSSY, MOST_CLASSES, Pair, mask_values
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.edge.tasks.segmentation import IGNORE
from prunedge.errors import DataError
from prunedge.utils.wording import counted

NAMES = "classes.txt"  # beside masks: the name of each class in a line, from number 0 up
DAMAGED = ("background", "damage")  # what classes are called that nobody names
WHITE = 255

_lock = Lock()
REMEDY = f"name the classes in {NAMES} beside the masks, one in a line, from number 0 up"


@dataclass(frozen=True)
class MaskLook:
    """What one mask holds: its different `values` from 0 to 255. `is_numbered`: its file has a
    palette, so that they are numbers of classes; `is_lossy`: they are none exactly (JPEG).
    """

    values: tuple[int, ...]
    is_numbered: bool
    is_lossy: bool


@dataclass(frozen=True)
class MaskReading:
    """How masks are read: `names` has the class of each value, and none of those that are ignored;
    `classes` are all of them in the order of their numbers.
    """

    names: Mapping[int, str]
    classes: tuple[str, ...]

    def shown(self, look: MaskLook) -> str:
        """The classes that a mask shows, but for the first, as labels list them."""
        there = {self.names.get(value) for value in look.values}
        return SEPARATOR.join(name for name in self.classes[1:] if name in there)

    def table(self, classes: Sequence[str]) -> np.ndarray:
        """(256,) uint8: the place among these classes of each value, IGNORE where it has none."""
        table = np.full(WHITE + 1, IGNORE, np.uint8)
        for value, name in self.names.items():
            if name in classes:
                table[value] = classes.index(name)
        return table


def values_of(pair: Pair) -> tuple[np.ndarray, str]:
    """What a mask, or the part of it that is meant, holds as (height, width) uint8, where white is
    255 whatever the file's depth, and the mode in which Pillow reads it. Raises what `mask_values`
    does.
    """
    assert pair.mask is not None
    if pair.box is None:
        return _whole(pair.mask, pair.photo)
    changed = (pair.mask.stat().st_mtime_ns, pair.photo.stat().st_mtime_ns)
    with _lock:  # several threads come for tiles of one mask at once
        values, mode = _kept_whole(pair.mask, pair.photo, changed)
    left, top, right, bottom = pair.box
    return np.ascontiguousarray(values[top:bottom, left:right]), mode


def _whole(mask: Path, photo: Path) -> tuple[np.ndarray, str]:
    values, mode = mask_values(mask, photo, is_grey=True)
    if mode == "1":
        values = values * WHITE
    return values.clip(0, WHITE).astype(np.uint8), mode


@lru_cache(maxsize=2)
def _kept_whole(mask: Path, photo: Path, changed: tuple[int, int]) -> tuple[np.ndarray, str]:
    """A whole mask, as long as others don't take its place: its tiles are read one after the
    other.
    """
    return _whole(mask, photo)


def look_at_mask(pair: Pair) -> MaskLook:
    """What the mask of a photograph holds. Raises what `mask_values` does."""
    assert pair.mask is not None
    values, mode = values_of(pair)
    different = tuple(np.flatnonzero(np.bincount(values.ravel(), minlength=WHITE + 1)).tolist())
    return MaskLook(different, mode == "P", pair.mask.suffix.lower() in LOSSY)


def names_beside(masks: Path) -> tuple[str, ...] | None:
    """The classes that a file beside the masks names; None where there is none. DataError where it
    can't be used.
    """
    file = masks / NAMES
    if not file.is_file():
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't be read: {error}", where=file, remedy="save it in UTF-8") from None
    names = tuple(line.strip() for line in lines if line.strip())
    wrong = [name for name in names if SEPARATOR in name]
    if len(names) == 1 and not wrong:
        return (DAMAGED[0], *names)
    if len(set(names)) < len(names) or not names or wrong:
        raise DataError(
            f"'{wrong[0]}' can't be the name of a class" if wrong else "no names, or one twice",
            where=file,
            remedy="give each class a line with a name of its own, from number 0 up",
        )
    return names


def reading_of(
    looks: Sequence[tuple[str, MaskLook]], names: Sequence[str] | None, where: object
) -> MaskReading:
    """How these masks, by their names, are read; `names` are their classes where somebody knows.

    Two values (black and white), greys and JPEGs are damage above the middle of the greys. Else
    values are the numbers of classes, and 255 beside them is ignored. DataError where a mask has a
    number that the names lack.
    """
    values = {value for _, look in looks for value in look.values}
    if _is_grey([look for _, look in looks], values, names):
        classes = DAMAGED if names is None else tuple(names)
        if len(classes) != len(DAMAGED):
            raise DataError(
                f"masks of black and white for {counted(len(classes), 'class', 'classes')}",
                where=where,
                remedy=f"give masks whose values are the numbers of the classes; {REMEDY}",
            )
        sides = {value: classes[value > HALF] for value in range(WHITE + 1)}
        return MaskReading(sides, classes)

    numbers = sorted(values - {IGNORE})
    if names is None:
        usual = {number: f"class {number}" for number in numbers}
        usual[0] = DAMAGED[0]
        if numbers[-1:] == [1]:
            usual[1] = DAMAGED[1]
        return MaskReading(usual, tuple(usual[number] for number in sorted(usual)))
    if numbers and numbers[-1] >= len(names):
        number = numbers[-1]
        first = next(name for name, look in looks if number in look.values)
        raise DataError(
            f"the mask {first} has the number {number}, and the classes are "
            f"{len(names)} ({', '.join(names)})",
            where=where,
            remedy=REMEDY,
        )
    return MaskReading(dict(enumerate(names)), tuple(names))


def _is_grey(looks: Sequence[MaskLook], values: set[int], names: Sequence[str] | None) -> bool:
    """Whether masks are bright where there is damage, and hold no numbers."""
    if values <= {0, WHITE}:
        return True
    most = MOST_CLASSES if names is None else max(MOST_CLASSES, len(names))
    return any(
        look.is_lossy
        or (not look.is_numbered and any(most < value < WHITE for value in look.values))
        for look in looks
    )
