"""Labels that are no classes: lists of several, and numbers. prunedge would make a class of each
without a word. Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?\s*(%|[a-zµ]{1,3})?", re.IGNORECASE)
PLAIN_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
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
    "classification tells one class an image from the others: give each image one label, numbers "
    "as a few classes (low, high); what is a class of its own all the same needs a name without "
    "separators"
)


def number_in(label: str) -> float | None:
    """The finite number that a label is, with a decimal point or comma; None where it is none."""
    if not PLAIN_NUMBER.fullmatch(label):
        return None
    number = float(label.replace(",", "."))
    return number if math.isfinite(number) else None


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels sorted, as numbers when all are, so that class 10 comes after class 9."""

    def order(label: str) -> tuple[int, str]:
        return (int(label), label) if label.isdecimal() else (-1, label)

    return tuple(sorted(labels, key=order))


def refusal(labels: Mapping[str, int], where: str = "label") -> str | None:
    """What speaks against taking these labels (with their numbers of images) for classes; None
    when nothing does.

    `where` says what holds them: a column, folders.
    """
    lists = _lists(labels)
    if lists:
        return f"these look like lists of labels ({where}): {listed(lists, labels)}"
    numbers = numbers_to_estimate(labels)
    if numbers:
        return (
            f"these look like numbers to estimate, not classes ({where}): {listed(numbers, labels)}"
        )
    return None


def doubt(labels: Mapping[str, int], where: str = "label") -> str | None:
    """What is to be said of labels that can be taken for classes, and may not be."""
    combined = [label for label in labels if _parts_known(label, labels)]
    if combined:
        return (
            f"these may be lists of labels, and are taken for classes of their own ({where}): "
            f"{listed(combined, labels)}"
        )
    numbers = [label for label in labels if FRACTION.fullmatch(label)]
    if numbers and _mostly_numbers(labels):
        return (
            f"these look like numbers, and are taken for classes of their own ({where}): "
            f"{listed(numbers, labels)}"
        )
    holding = [label for label in labels if any(sign in label for sign in (";", "|"))]
    if holding:
        return (
            f"these hold a separator, and are taken for classes of their own ({where}): "
            f"{listed(holding, labels)}"
        )
    return None


def _lists(labels: Mapping[str, int]) -> list[str]:
    """Labels that list others: `crack;rust` beside `crack`, `[crack, rust]`, `0,1,0` beside
    `1,0,0`.
    """
    lists = [label for label in labels if BRACKETS.fullmatch(label)]
    for sign in SEPARATORS:
        split = {}
        times: Counter[str] = Counter()
        for label in labels:
            parts = _parts(label, sign) if sign in label else []
            if parts:
                split[label] = parts
                times.update(set(parts))

        for label, parts in split.items():
            if sign == "," and NUMBER.fullmatch(label):
                continue  # a decimal comma
            known = [part in labels or times[part] > 1 for part in parts]
            # A comma also stands in names with their explanation (`maillot, tank suit` beside
            # `maillot`): all parts must be known.
            if all(known) if sign == "," else any(known):
                lists.append(label)
    return list(dict.fromkeys(lists))


def _parts(label: str, sign: str) -> list[str]:
    parts = [part.strip() for part in label.split(sign)]
    return [part for part in parts if part]


def _parts_known(label: str, labels: Mapping[str, int]) -> bool:
    """Whether a label is made of several others."""
    for sign in DOUBTFUL:
        parts = _parts(label, sign)
        if len(parts) > 1 and all(part in labels for part in parts):
            return True
    return False


def numbers_to_estimate(labels: Mapping[str, int]) -> list[str]:
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
    numbers = sum(NUMBER.fullmatch(label) is not None for label in labels)
    return numbers > 0 and numbers >= MOSTLY * len(labels)


def listed(names: Sequence[str], labels: Mapping[str, int]) -> str:
    """The first of these labels, with their numbers of images."""
    first = ", ".join(f"'{name}' ({labels[name]:,})" for name in names[:SHOWN])
    if len(names) > SHOWN:
        return f"{first} and {len(names) - SHOWN} more of {len(labels)} labels"
    return f"{first}, of {len(labels)} labels"
