"""Labels that are no classes: lists of several, and numbers. prunedge would make a class of each
without a word. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?\s*(%|[a-zµ]{1,3})?", re.IGNORECASE)
FRACTION = re.compile(
    r"[+-]?\d*[.,]\d+(e[+-]?\d+)?\s*(%|[a-zµ]{1,3})?|[+-]?\d+(\.\d*)?e[+-]?\d+", re.IGNORECASE
)
BRACKETS = re.compile(r"\s*(\[.*\]|\{.*\}|\(.*[,;|].*\))\s*", re.DOTALL)
SEPARATORS = (";", "|", ",")  # names of classes seldom hold these
DOUBTFUL = ("+", "&", "/", " and ", " ")  # and these often: told, not refused
MOSTLY = 0.8  # of the labels are numbers: a few words among them say that a value is missing
FEW_EACH = 5  # images for each label: numbers that stand for classes have more
SHOWN = 3

REMEDY = (
    "prunedge tells one class an image from the others: give each image one label, numbers as a "
    "few classes (low, high), several kinds "
    "of damage as one manifest each; what is a class of its own all the same needs a name without "
    "separators"
)


def refusal(labels: Mapping[str, int], where: str = "label") -> str | None:
    """What speaks against taking these labels (with their numbers of images) for classes; None
    when nothing does.

    `where` says what holds them: a column, folders.
    """
    if found := _lists(labels):
        return f"these look like lists of labels ({where}): {_shown(found, labels)}"
    if found := _numbers(labels):
        return (
            f"these look like numbers to estimate, not classes ({where}): {_shown(found, labels)}"
        )
    return None


def doubt(labels: Mapping[str, int], where: str = "label") -> str | None:
    """What is to be said of labels that can be taken for classes, and may not be."""
    combined = [label for label in labels if _parts_known(label, labels)]
    if combined:
        return (
            f"these may be lists of labels, and are taken for classes of their own ({where}): "
            f"{_shown(combined, labels)}"
        )
    numbers = [label for label in labels if FRACTION.fullmatch(label)]
    if numbers and _mostly_numbers(labels):
        return (
            f"these look like numbers, and are taken for classes of their own ({where}): "
            f"{_shown(numbers, labels)}"
        )
    holding = [label for label in labels if any(sign in label for sign in (";", "|"))]
    if holding:
        return (
            f"these hold a separator, and are taken for classes of their own ({where}): "
            f"{_shown(holding, labels)}"
        )
    return None


def _lists(labels: Mapping[str, int]) -> list[str]:
    """Labels that list others: `crack;rust` beside `crack`, `[crack, rust]`, `0,1,0` beside
    `1,0,0`.
    """
    found = [label for label in labels if BRACKETS.fullmatch(label)]
    for sign in SEPARATORS:
        split = {
            label: parts for label in labels if sign in label and (parts := _parts(label, sign))
        }
        times = Counter(part for parts in split.values() for part in set(parts))
        for label, parts in split.items():
            if sign == "," and NUMBER.fullmatch(label):
                continue  # a decimal comma
            known = [part in labels or times[part] > 1 for part in parts]
            # A comma also stands in names with their explanation (`maillot, tank suit` beside
            # `maillot`): all parts must be known.
            if all(known) if sign == "," else any(known):
                found.append(label)
    return list(dict.fromkeys(found))


def _parts(label: str, sign: str) -> list[str]:
    return [part for piece in label.split(sign) if (part := piece.strip())]


def _parts_known(label: str, labels: Mapping[str, int]) -> bool:
    """Whether a label is made of several others."""
    for sign in DOUBTFUL:
        parts = _parts(label, sign)
        if len(parts) > 1 and all(part in labels for part in parts):
            return True
    return False


def _numbers(labels: Mapping[str, int]) -> list[str]:
    """Labels that are numbers of something: fractions, or many whole ones with hardly an image
    each.
    """
    if not _mostly_numbers(labels):
        return []
    each = sum(labels.values()) / len(labels)
    fractions = [label for label in labels if FRACTION.fullmatch(label)]
    if fractions and each < FEW_EACH:
        return fractions
    whole = [label for label in labels if NUMBER.fullmatch(label)]
    return whole if len(whole) > 20 and each < 2 else []


def _mostly_numbers(labels: Mapping[str, int]) -> bool:
    return sum(NUMBER.fullmatch(label) is not None for label in labels) >= MOSTLY * len(labels)


def _shown(found: Iterable[str], labels: Mapping[str, int]) -> str:
    names = list(found)
    said = ", ".join(f"'{name}' ({labels[name]:,})" for name in names[:SHOWN])
    return said + (
        f" and {len(names) - SHOWN} more of {len(labels)} labels"
        if len(names) > SHOWN
        else f", of {len(labels)} labels"
    )
