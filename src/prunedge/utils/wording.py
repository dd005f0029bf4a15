"""Numbers with their nouns, as sentences have them."""

from __future__ import annotations

from collections.abc import Sequence

MOST_DIGITS = 6  # that two numbers are told apart with
FINE = 1.1  # a ratio below has two decimals: "1.0 x fewer" says nothing


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


def significant_pair(before: float, after: float, digits: int = 3) -> tuple[str, str]:
    """The same with so many significant digits, whole numbers being written out (`1,800`)."""
    while digits < MOST_DIGITS and before != after:
        if _significant(before, digits) != _significant(after, digits):
            break
        digits += 1
    return _significant(before, digits), _significant(after, digits)


def _significant(value: float, digits: int) -> str:
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:,.{digits}g}"


def times_words(ratio: float, word: str, sign: str = "x") -> str:
    """`2.4 x smaller`, or `unchanged`."""
    return "unchanged" if ratio == 1 else f"{times(ratio)} {sign} {word}"


def times(ratio: float) -> str:
    """How many times as much: `2.4`, and with two decimals where one would say nothing (`1.03`)."""
    return f"{ratio:.2f}" if 1 < ratio < FINE else f"{ratio:.1f}"
