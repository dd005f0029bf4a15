"""Classes of widths, by a table of the user's: each region's, and how sure it is. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Literal

from prunedge.errors import DataError

Unit = Literal["mm", "px"]
NUMBER = r"(\d+\.?\d*|\.\d+)"
EXAMPLE = '--width-classes "< 0.1, 0.1-0.3, > 0.3"'
MOST_CLASSES = 8  # that colours tell apart


@dataclass(frozen=True)
class WidthClasses:
    """Classes of widths without gaps: `limits` (n,) rise, and `names` (n + 1,) are of those below
    the first, between them, and from the last on. A limit is of the class above it.
    """

    limits: tuple[float, ...]
    names: tuple[str, ...]

    def number(self, width: float) -> int:
        """The number of a width's class, from 0."""
        return bisect_right(self.limits, width)

    def is_sure(self, width: float, uncertainty: float) -> bool:
        """Whether all of `width` ± `uncertainty` lies in one class."""
        return self.number(max(0.0, width - uncertainty)) == self.number(width + uncertainty)

    def of_region(self, region: Mapping[str, Any], unit: Unit) -> dict[str, Any]:
        """What is added to a region's JSON: the class of its largest width, and whether that is
        sure. Nothing where it has no such width.
        """
        width = region.get(f"largest_width_{unit}")
        if width is None:
            return {}
        uncertainty = region[f"largest_width_{unit}_uncertainty"]
        return {
            "width_class": self.names[self.number(width)],
            "width_class_is_sure": self.is_sure(width, uncertainty),
        }


def parse_width_classes(text: str) -> WidthClasses:
    """`< 0.1, 0.1-0.3, > 0.3`, narrowest first. DataError where a part is no class, or two leave a
    gap or overlap.
    """
    parts = [part.strip() for part in text.split(",")]
    spans = [_span(part, text) for part in parts]
    if not 2 <= len(spans) <= MOST_CLASSES:
        raise _refusal(f"{len(spans)} classes in '{text}', from 2 to {MOST_CLASSES} can be", "give")
    for place, ((_, end), (start, _)) in enumerate(pairwise(spans)):
        if start != end:
            what = "leave a gap" if start > end else "overlap"
            raise _refusal(
                f"'{parts[place]}' and '{parts[place + 1]}' {what}: one ends at {end:g}, the next "
                f"begins at {start:g}",
                "give them from narrow to wide, each from where the one before ends, as",
            )
    if spans[0][0] != 0 or spans[-1][1] != inf:
        which = f"below {spans[0][0]:g}" if spans[0][0] else f"above {spans[-1][1]:g}"
        raise _refusal(f"no class in '{text}' is for widths {which}", "give one, as in")
    return WidthClasses(tuple(start for start, _ in spans[1:]), tuple(parts))


def _span(part: str, text: str) -> tuple[float, float]:
    """From which width a class reaches to before which."""
    if match := re.fullmatch(rf"<\s*{NUMBER}", part):
        start, end = 0.0, float(match[1])
    elif match := re.fullmatch(rf"(?:>=?|≥)\s*{NUMBER}", part):
        start, end = float(match[1]), inf
    elif match := re.fullmatch(rf"{NUMBER}\s*-\s*{NUMBER}", part):
        start, end = float(match[1]), float(match[2])
    else:
        raise _refusal(f"'{part}' in '{text}' is no class of widths", "give")
    if not start < end:
        raise _refusal(f"'{part}' in '{text}' is empty", "give")
    return start, end


def _refusal(what: str, remedy: str) -> DataError:
    return DataError(what, where="--width-classes", remedy=f"{remedy} {EXAMPLE}")


def counts_in_words(records: Iterable[Mapping[str, Any]], names: Iterable[str]) -> str:
    """`< 0.1: 3, 0.1-0.3: 5, > 0.3: 0, not measured: 1 (2 of them within their uncertainty of a
    limit)`.
    """
    records = list(records)
    counts, unsure = count_classes(records, names)
    if unmeasured := count_unmeasured(records):
        counts = {**counts, "not measured": unmeasured}
    text = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    if not unsure:
        return text
    return f"{text} ({unsure:,} of them within their uncertainty of a limit)"


def count_unmeasured(records: Iterable[Mapping[str, Any]]) -> int:
    """How many regions of images' JSON are of no class: too small for a centreline, beyond those
    that are measured, or in photographs without the scale that was asked for.
    """
    regions = [region for record in records for region in record["regions"]]
    return sum("width_class" not in region for region in regions)


def count_classes(
    records: Iterable[Mapping[str, Any]], names: Iterable[str]
) -> tuple[dict[str, int], int]:
    """How many regions of images' JSON are of each class, and how many of those are not sure."""
    counts = dict.fromkeys(names, 0)
    unsure = 0
    for record in records:
        for region in record["regions"]:
            if "width_class" in region:
                counts[region["width_class"]] += 1
                unsure += not region["width_class_is_sure"]
    return counts, unsure
