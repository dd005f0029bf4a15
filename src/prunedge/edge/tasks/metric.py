"""By which figures a task's models are judged: what each is called, how it is told, and how much of
it a smaller model may lose. Pure.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from prunedge.utils.wording import figure

POINTS = "points"
USUAL_POINTS = 3.0
USUAL_SHARE = "5%"

# How much worse a model may be: in the metric's unit, or a share of the first model's value ("5%").
Drop = float | str


def as_drop(given: object) -> Drop:
    """A drop that a user writes: a number, as a text too, or a share of the first model's value,
    `5%`. ValueError for anything else, and below 0.
    """
    text = str(given).strip() if isinstance(given, str | int | float) else ""
    number = text.removesuffix("%").strip()
    is_number = re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", number, re.IGNORECASE)
    if not is_number or isinstance(given, bool) or not math.isfinite(float(number)):
        raise ValueError("no drop, write it as 3 (in the metric's unit) or 5% (of its value)")
    if float(number) < 0:
        raise ValueError("must be 0 or more")
    return f"{float(number):g}%" if text.endswith("%") else float(number)


def called(name: str) -> str:
    """The name of a metric as it is kept, of one that a user writes: `balanced-accuracy`."""
    return name.replace("-", "_")


@dataclass(frozen=True)
class Metric:
    """A figure that models are judged by.

    `unit` is `points` for a share from 0 to 1 whose changes are told in hundredths, or the name of
    the metric's own unit (`mm`), empty where only the user knows it. `has_interval`: it is the mean
    over the images of what `prunedge.tasks.Metrics.correct` keeps of each, so that two models can
    be compared image by image. `is_macro`: it is the mean over the classes, so that rare ones count
    as much as common ones. `of_damage`: it asks whether damage is found, so that the classes' names
    have to say which of them are sound (`prunedge.edge.tasks.damage`).
    `is_slow`: it takes long to measure, so that a training's epochs are judged without it unless it
    is what they are judged by.
    """

    name: str
    higher_is_better: bool = True
    unit: str = POINTS
    has_interval: bool = False
    is_macro: bool = False
    of_damage: bool = False
    is_slow: bool = False

    def change(self, before: float, after: float) -> float:
        """From `before` to `after`, in the metric's unit."""
        return 100 * (after - before) if self.unit == POINTS else after - before

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`, in the metric's unit; negative where better."""
        change = self.change(before, after)
        return -change if self.higher_is_better else change

    def allowed(self, drop: Drop, first: float) -> float:
        """A drop in the metric's unit, where the first model's value is `first`."""
        if isinstance(drop, str):
            return abs(self.change(0.0, first)) * float(drop.removesuffix("%")) / 100
        return drop

    @property
    def usual_drop(self) -> Drop:
        """What a pruned model may lose unless the user says: points are known, another unit is the
        user's own.
        """
        return USUAL_POINTS if self.unit == POINTS else USUAL_SHARE

    def number(self, value: float, *, signed: bool = True) -> str:
        """A change or a drop without its unit: `-1.20`, `+0.0312`."""
        if self.unit == POINTS:
            return f"{value:{'+' if signed else ''}.2f}"
        return figure(value, signed=signed)

    def in_unit(self, number: str) -> str:
        """A number with the metric's unit, if it has a name."""
        return f"{number} {self.unit}".rstrip()

    def drop_text(self, drop: Drop) -> str:
        """A drop that is allowed, for a reader: `3 points`, `0.2 mm`, `5% of its value`."""
        if isinstance(drop, str):
            return f"{drop} of its value"
        number = f"{drop:g}"
        return "1 point" if self.unit == POINTS and number == "1" else self.in_unit(number)

    def order(self, value: float) -> float:
        """A number that is the higher the better the model."""
        return value if self.higher_is_better else -value

    def text(self, value: float) -> str:
        """The value for a reader: `91.7%`, `0.42 mm`."""
        return f"{value:.1%}" if self.unit == POINTS else self.in_unit(figure(value))
