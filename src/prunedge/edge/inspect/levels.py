"""How damaged something is, for a reader: a probability in percent, or the number that it stands
for. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunedge.utils.wording import figure

Span = Sequence[float]  # the numbers that 0 and 1 stand for


def number_at(level: float, span: Span) -> float:
    """The number that a level from 0 to 1 stands for."""
    lowest, highest = span
    return lowest + level * (highest - lowest)


def level_of(number: float, span: Span | None) -> float:
    """The inverse: where a number lies, from 0 to 1; a probability is a level itself."""
    if span is None:
        return number
    lowest, highest = span
    return (number - lowest) / (highest - lowest)


def level_text(level: float, span: Span | None, digits: int = 0) -> str:
    """A level for a reader: `73%`, with so many `digits` behind the point, or `0.42`."""
    if span is None:
        return f"{level:.{digits}%}"
    return figure(number_at(level, span))
