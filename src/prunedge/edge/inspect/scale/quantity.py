"""Numbers with an uncertainty and a unit, as users write them: `0.12`, `0.12±0.01`, `2.5±0.1m`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from prunedge.errors import DataError

# What stands behind ± is an expanded uncertainty, of this many standard ones: an interval of about
# 95 % (GUM, JCGM 100:2008, 6.2.2 and 7.2.2).
COVERAGE = 2.0

MM_OF_LENGTHS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
METRES_OF_LENGTHS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "ft": 0.3048}

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FORM = re.compile(rf"({NUMBER})\s*([a-zA-Z]*)(?:\s*(?:±|\+/?-)\s*({NUMBER})\s*([a-zA-Z]*))?")


@dataclass(frozen=True)
class Quantity:
    """A value and its expanded uncertainty (k = 2), in one unit."""

    value: float
    uncertainty: float = 0.0

    @property
    def standard(self) -> float:
        """The standard uncertainty."""
        return self.uncertainty / COVERAGE

    def text(self, unit: str) -> str:
        """`2.5 ± 0.1 m`; without an uncertainty the value alone."""
        if not self.uncertainty:
            return f"{self.value:g} {unit}"
        return f"{self.value:g} ± {self.uncertainty:g} {unit}"


def parse_quantity(
    text: str,
    option: str,
    units: Mapping[str, float],
    example: str,
    *,
    may_be_negative: bool = False,
) -> Quantity:
    """The quantity that a text tells, in the unit that `units` have the factors to. With no `units`
    it is a plain number, else each needs one; a single one counts for both numbers.

    Raises DataError, which names the `option` and the `example`, where it is none, or (unless it
    `may_be_negative`) not above 0 and more than its uncertainty.
    """
    remedy = f"give it as {option} {example}"
    match = FORM.fullmatch(text.strip())
    if match is None:
        raise DataError(f"'{text}' is no number with a unit", where=option, remedy=remedy)
    value, unit, uncertainty, other = match.groups()
    unit = unit or other or ""
    other = other or unit
    unknown = [each for each in (unit, other) if each not in (units or {"": 1.0})]
    if unknown:
        what = f"'{unknown[0]}' is no unit here" if unknown[0] else f"'{text}' has no unit"
        raise DataError(what, where=option, remedy=remedy)

    factors = units or {"": 1.0}
    found = Quantity(float(value) * factors[unit], float(uncertainty or 0) * factors[other])
    is_sound = isfinite(found.value) and isfinite(found.uncertainty) and found.uncertainty >= 0
    if not is_sound or not (may_be_negative or found.uncertainty < found.value):
        raise DataError(
            f"'{text}' must be above 0, and its uncertainty less than it",
            where=option,
            remedy=remedy,
        )
    return found
