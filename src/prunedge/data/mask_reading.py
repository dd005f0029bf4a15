"""What the values of a set of masks mean: which classes there are, and which values are each.

The masks of a set are looked at together: 0 and 1 beside masks of 0 to 5 are numbers of classes,
and 0 and 255 are damage or none. What could be both is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunedge.data.mask_look import Kind, MaskLook
from prunedge.data.mask_values import MOST_CLASSES, WHITE
from prunedge.data.masks import HALF
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import DataError
from prunedge.utils.wording import counted, first_of

NAMES = "classes.txt"  # beside masks: the name of each class in a line, from number 0 up
DAMAGED = ("background", "damage")  # what classes are called that nobody names
_UNNAMED = re.compile(r"class (\d+)")
REMEDY = f"name the classes in {NAMES} beside the masks, one in a line, from number 0 up"


@dataclass(frozen=True)
class MaskReading:
    """How masks are read: `names` has the class of each value, and none of those that are ignored;
    `classes` are all of them in the order of their numbers. `are_greys`: bright is damage, and
    values are no numbers.
    """

    names: Mapping[int, str]
    classes: tuple[str, ...]
    are_greys: bool = False

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
    return names_in(lines, file)


def names_in(lines: Sequence[str], file: object) -> tuple[str, ...]:
    """The classes that the lines of such a file name. DataError where they can't be used."""
    names = tuple(line.strip() for line in "\n".join(lines).rstrip().splitlines())
    if "" in names:
        raise DataError(
            f"line {names.index('') + 1} is empty, so that the names after it would be those of "
            "other numbers",
            where=file,
            remedy="give each number a name from 0 up, or take the line out",
        )
    wrong = [name for name in names if SEPARATOR in name]
    if names == DAMAGED[:1]:
        raise DataError(
            f"'{names[0]}' alone names no damage",
            where=file,
            remedy="name the damage as well, in the next line",
        )
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
    looks: Sequence[tuple[str, MaskLook]],
    names: Sequence[str] | None,
    where: object,
    *,
    is_said: bool = False,
) -> MaskReading:
    """How these masks, by their files' names, are read; `names` are their classes where somebody
    knows, and `is_said` where they stand beside the masks.

    Two values (black and white), greys and JPEGs are damage above the middle of the greys. Else
    values are the numbers of classes, and 255 beside them is ignored. DataError where a mask has a
    number that the names lack, or where masks could be read in either way.
    """
    kinds = kinds_of(looks, names)
    _refuse_classes_in_greys(looks, kinds, where)
    # Three names or more say that masks hold numbers: what is white in some of them is ignored.
    is_settled = is_said and names is not None and len(names) > len(DAMAGED)
    others: tuple[Kind, ...] = ("greys",) if is_settled else ("greys", "white")
    _refuse_mixed(looks, kinds, others, where)
    if "numbers" not in kinds:
        return _of_greys(names, where)

    numbers = sorted({value for _, look in looks for value in look.values} - {IGNORE})
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


def known_reading(
    looks: Sequence[tuple[str, MaskLook]], known: Sequence[str], where: object
) -> MaskReading:
    """How masks that nobody named are read for a model of these classes: by their numbers where
    nobody named the model's either, else by their order. DataError as of `reading_of`.
    """
    kinds = kinds_of(looks, known)
    numbered = _numbers_in(known)
    if numbered is not None and "numbers" in kinds:
        found = reading_of(looks, None, where)
        usual = {number: f"class {number}" for number in found.names if number}
        names = {0: DAMAGED[0], **usual, **numbered}
        return MaskReading(names, tuple(names[number] for number in sorted(names)))
    if "numbers" not in kinds and set(DAMAGED) <= set(known):
        return reading_of(looks, None, where)
    return reading_of(looks, known, where)


def kinds_of(looks: Sequence[tuple[str, MaskLook]], names: Sequence[str] | None) -> list[Kind]:
    """What the values of each mask are, where these are the names of all classes."""
    most = MOST_CLASSES if names is None else max(MOST_CLASSES, len(names) - 1)
    return [look.kind(most) for _, look in looks]


def _numbers_in(classes: Sequence[str]) -> dict[int, str] | None:
    """The classes by their numbers where nobody named them; None where somebody did."""
    numbered = {}
    for name in classes:
        match = _UNNAMED.fullmatch(name)
        if match is not None:
            numbered[int(match[1])] = name
        elif name in DAMAGED:
            numbered[DAMAGED.index(name)] = name
        else:
            return None
    return numbered


def _of_greys(names: Sequence[str] | None, where: object) -> MaskReading:
    """Bright is damage."""
    classes = DAMAGED if names is None else tuple(names)
    if len(classes) != len(DAMAGED):
        raise DataError(
            f"masks of black and white for {counted(len(classes), 'class', 'classes')}",
            where=where,
            remedy=f"give masks whose values are the numbers of the classes; {REMEDY}",
        )
    sides = {value: classes[value > HALF] for value in range(WHITE + 1)}
    return MaskReading(sides, classes, are_greys=True)


def _refuse_classes_in_greys(
    looks: Sequence[tuple[str, MaskLook]], kinds: Sequence[Kind], where: object
) -> None:
    """DataError where values above `MOST_CLASSES` are no greys at edges, but areas, or nothing is
    white: high numbers of classes that nobody named.
    """
    greys = [named for named, kind in zip(looks, kinds, strict=True) if kind == "greys"]
    exact = [(name, look) for name, look in greys if not look.is_lossy]
    is_bright = any(max(look.values) >= WHITE - MOST_CLASSES for _, look in looks)
    for name, look in exact:
        if look.may_be_classes or (not is_bright and len(exact) == len(greys)):
            number = max(value for value in look.values if value < WHITE)
            raise DataError(
                f"the mask {name} has values such as {number}, which are no greys at the edges of "
                "white",
                where=where,
                remedy=f"{REMEDY}; or make damage white",
            )


def _refuse_mixed(
    looks: Sequence[tuple[str, MaskLook]],
    kinds: Sequence[Kind],
    others: Sequence[Kind],
    where: object,
) -> None:
    """DataError where some masks hold numbers and some are of these other kinds."""
    numbers = next((i for i, kind in enumerate(kinds) if kind == "numbers"), None)
    other = next((i for i, kind in enumerate(kinds) if kind in others), None)
    if numbers is None or other is None:
        return
    values = [str(value) for value in looks[numbers][1].values]
    held = "is black and white" if kinds[other] == "white" else "is grey"
    if looks[other][1].is_lossy:
        held = "has no exact values (JPEG)"
    raise DataError(
        f"the mask {looks[numbers][0]} holds numbers ({first_of(values)}), and {looks[other][0]} "
        f"{held}",
        where=where,
        remedy="give all of them numbers of classes, or all of them white damage",
    )


def told(looks: Sequence[tuple[str, MaskLook]], reading: MaskReading) -> str:
    """In a line, how these masks are read."""
    several = [set(look.values) for _, look in looks]
    first = reading.classes[0]
    showing = 0
    for values in several:
        showing += any(reading.names.get(value, first) != first for value in values)
    of_all = f"{showing:,} of {len(looks):,}"
    if reading.are_greys:
        is_two = set.union(*several) <= {0, WHITE}
        how = "black and white" if is_two else f"greys, damage above {HALF}"
        return f"masks: {how}; {of_all} hold {'damage' if first in DAMAGED else reading.classes[1]}"
    line = (
        f"masks: numbers of {counted(len(reading.classes), 'class', 'classes')} "
        f"({', '.join(reading.classes)}); {of_all} hold more than {first}"
    )
    ignored = sum(IGNORE in values for values in several)
    return f"{line}; {IGNORE} ignored in {ignored:,}" if ignored else line
