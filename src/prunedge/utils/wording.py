"""Numbers with their nouns, as sentences have them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_DIGITS = 6  # that two numbers are told apart with
SMALL_MB = 0.1  # what is less is told by its first two digits
FINE = 1.1  # a ratio below has two decimals: "1.0 x fewer" says nothing


@dataclass(frozen=True)
class Unit:
    """A unit of large numbers, for those from `least` on: its word and its letter."""

    least: float
    per: float
    word: str
    letter: str

    def digits(self, of_millions: int) -> int:
        """How many decimals its numbers have, where millions have so many."""
        return {"M": of_millions, "k": min(1, of_millions)}.get(self.letter, 0)

    def text(self, value: float, of_millions: int) -> str:
        """A number in this unit, without its word; below 1 with two decimals, not rounded away."""
        return f"{value / self.per:,.{self.digits_of(value, of_millions)}f}"

    def digits_of(self, value: float, of_millions: int) -> int:
        """How many decimals this number has in this unit."""
        digits = self.digits(of_millions)
        return max(digits, 2) if 0 < value < self.per and self.letter else digits


UNITS = (Unit(1e5, 1e6, "million", "M"), Unit(1e3, 1e3, "thousand", "k"), Unit(0, 1, "", ""))


def unit_of(value: float) -> Unit:
    """The unit that a number of parameters or MACs is told in: thousands below 0.1 million."""
    return next(unit for unit in UNITS if value >= unit.least)


def figure(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with so many significant digits, whole numbers being written out: `0.0312`,
    `2,600`.
    """
    sign = "+" if signed else ""
    if abs(value) >= 10**digits:
        return f"{value:{sign},.0f}"
    return f"{value:{sign},.{digits}g}"


def probability(value: float) -> str:
    """A probability with three significant digits, and with more where these would make one of it:
    `0.207`, `0.9999`.
    """
    text = f"{value:.3g}"
    return _short_of(value, 1.0) if float(text) >= 1 > value else text


def percentage(share: float) -> str:
    """A share in whole percent, and with decimals where these would make all or nothing of it:
    `12%`, `99.99%`.
    """
    text = f"{share:.0%}"
    if text == "100%" and share < 1:
        return f"{_short_of(100 * share, 100.0)}%"
    return f"{100 * share:.2g}%" if text == "0%" and share > 0 else text


def _short_of(value: float, whole: float) -> str:
    """A number just below another, with as many decimals as tell them apart."""
    decimals = min(12, 2 - math.floor(math.log10(whole - value)))
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `2 images`, `1,860 patches`: a number and its noun. `plural` is given where it is
    not the noun with an s (`patches`, `messages that wait`).
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {plural or f'{noun}s'}"


def first_of(things: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first of what is listed, and how many more there are: `a, b, c and 2,997 more`."""
    more = f" and {len(things) - most:,} more" if len(things) > most else ""
    return between.join(things[:most]) + more


def words_of(error: BaseException) -> str:
    """What an error of somebody else's says; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def pair(before: float, after: float, decimals: int) -> tuple[str, str]:
    """Two numbers with so many decimals; with more where rounding would hide that they differ
    (`12`, `12` for 12.3 and 11.9 million).
    """
    while decimals < MOST_DIGITS and before != after:
        if f"{before:.{decimals}f}" != f"{after:.{decimals}f}":
            break
        decimals += 1
    return f"{before:,.{decimals}f}", f"{after:,.{decimals}f}"


def amount(value: float, decimals: int = 1) -> str:
    """A number of parameters or MACs in the unit that its size asks for: `11.2 million`, `96.8
    thousand`, `968`. `decimals` are those of millions.
    """
    unit = unit_of(value)
    return f"{unit.text(value, decimals)} {unit.word}".rstrip()


def amounts(before: float, after: float, decimals: int = 1, between: str = " -> ") -> str:
    """Two of them, with the unit once where it is the same: `11.2 -> 1.1 million`."""
    unit = unit_of(before)
    if unit_of(after) != unit:
        return f"{amount(before, decimals)}{between}{amount(after, decimals)}"
    digits = unit.digits_of(min(before, after), decimals)
    first, second = pair(before / unit.per, after / unit.per, digits)
    return f"{first}{between}{second} {unit.word}".rstrip()


def megabytes(size_mb: float, decimals: int = 1) -> str:
    """A size, also that of a tiny model, without its unit: `44.7`, `0.0039`."""
    return f"{size_mb:,.{decimals}f}" if size_mb >= SMALL_MB else f"{size_mb:.2g}"


def megabytes_pair(before: float, after: float) -> tuple[str, str]:
    """Two sizes; with more digits where rounding would hide that they differ."""
    if min(before, after) >= SMALL_MB:
        return pair(before, after, 1)
    return megabytes(before), megabytes(after)


def significant_pair(before: float, after: float, digits: int = 3) -> tuple[str, str]:
    """The same with so many significant digits, whole numbers being written out (`1,800`)."""
    while digits < MOST_DIGITS and before != after:
        if figure(before, digits) != figure(after, digits):
            break
        digits += 1
    return figure(before, digits), figure(after, digits)


def times_words(ratio: float, word: str, sign: str = "x") -> str:
    """`2.4 x smaller`, `hardly smaller`, or `unchanged`."""
    if ratio == 1:
        return "unchanged"
    return f"hardly {word}" if is_hardly(ratio) else f"{times(ratio)} {sign} {word}"


def is_hardly(ratio: float) -> bool:
    """Whether a ratio would be written as `1.00`, which says nothing."""
    return f"{ratio:.2f}" == "1.00"


def times(ratio: float) -> str:
    """How many times as much: `2.4`, and with two decimals where one would say nothing (`1.03`)."""
    return f"{ratio:.2f}" if 1 / FINE < ratio < FINE and ratio != 1 else f"{ratio:.1f}"
