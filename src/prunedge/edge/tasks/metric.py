"""By which figures a task's models are judged: what each is called, how it is told, and how much of
it a smaller model may lose. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from prunedge.errors import TrainError
from prunedge.utils.wording import figure

POINTS = "points"
USUAL_POINTS = 3.0
USUAL_SHARE = "5%"
DECIMALS = 4  # of a level

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
        raise ValueError("no drop: write it as 3 (in the metric's unit) or 5% (of its value)")
    if float(number) < 0:
        raise ValueError("must be 0 or more")
    return f"{float(number):g}%" if text.endswith("%") else float(number)


def called(name: str) -> str:
    """The name of a metric as it is kept, of one that a user writes: `balanced-accuracy`,
    `recall@alarms = 3%` (`recall@alarms=0.03`). A level that is none stays as it is written.
    """
    stem, equals, text = name.partition("=")
    stem = stem.strip().replace("-", "_")
    level = level_in(text)
    return f"{stem}{equals}{text.strip()}" if level is None else f"{stem}={level:g}"


def level_in(text: str) -> float | None:
    """The level that a user writes, as `0.05` or `5%`: between 0 and 1, of at most `DECIMALS`
    decimals; None where it is none.
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)\s*", text)
    if found is None:
        return None
    level = Decimal(found[1]) / (100 if found[2] else 1)
    if not 0 < level < 1 or level != round(level, DECIMALS):
        return None
    return float(level)


@dataclass(frozen=True)
class Metric:
    """A figure that models are judged by.

    `unit` is `points` for a share from 0 to 1 whose changes are told in hundredths, or the name of
    the metric's own unit (`mm`), empty where only the user knows it. `has_interval`: it is the mean
    over the images of what `prunedge.tasks.Metrics.correct` keeps of each, so that two models can
    be compared image by image. `is_macro`: it is the mean over the classes, so that rare ones count
    as much as common ones. `of_damage`: it asks whether damage is found, so that the classes' names
    have to say which of them are sound (`prunedge.edge.tasks.damage`). `is_slow`: it takes long to
    measure, so that a training's epochs are judged without it unless it is what they are judged by.
    `is_at_best`: it is measured at the best threshold of the images themselves, which compares
    models; no device knows it.
    """

    name: str
    higher_is_better: bool = True
    unit: str = POINTS
    has_interval: bool = False
    is_macro: bool = False
    of_damage: bool = False
    is_slow: bool = False
    is_at_best: bool = False

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


@dataclass(frozen=True)
class MetricFamily:
    """Metrics that are the same but for a level, a share that the user chooses between 0 and 1: an
    operating point of damage. `stem` is what stands before it (`recall@alarms`), `usual` are the
    levels that are measured unless others are asked for, `example` is one to show.
    """

    stem: str
    usual: tuple[float, ...]
    example: float
    higher_is_better: bool = True

    @property
    def form(self) -> str:
        """How one is written: `recall@alarms=LEVEL`."""
        return f"{self.stem}=LEVEL"

    @property
    def levels(self) -> dict[str, float]:
        """The usual levels by the metrics' names."""
        return {self.at(level).name: level for level in self.usual}

    def at(self, level: float) -> Metric:
        """The metric of a level."""
        name = f"{self.stem}={level:g}"
        return Metric(name, higher_is_better=self.higher_is_better, of_damage=True, is_at_best=True)

    def level_of(self, name: str) -> float | None:
        """The level of a metric, by its name as it is kept; None where it is none of these."""
        stem, _, text = name.partition("=")
        return level_in(text) if stem == self.stem else None

    def named(self, name: str, where: object = None) -> Metric | None:
        """The metric of that name; None where it is of another kind. TrainError where its level is
        none.
        """
        stem, _, text = name.partition("=")
        if stem != self.stem:
            return None
        level = level_in(text)
        if level is None:
            what = f"{stem} has no level '{text[:100]}'" if text else f"{stem} needs a level"
            remedy = (
                f"give a share between 0 and 1 of at most {DECIMALS} decimals, as "
                f"{self.stem}={self.example:g}"
            )
            raise TrainError(what, where=where, remedy=remedy)
        return self.at(level)


def metric_among(
    metrics: Mapping[str, Metric],
    name: str | None,
    where: object = None,
    families: Sequence[MetricFamily] = (),
) -> Metric:
    """The metric of that name among a task's and those of its `families`, its first without a
    name. TrainError where there is none.
    """
    if name is None:
        return next(iter(metrics.values()))
    name = called(name)
    if name in metrics:
        return metrics[name]
    for family in families:
        found = family.named(name, where)
        if found is not None:
            return found
    raise TrainError(
        f"no metric is called '{name}'",
        where=where,
        remedy=f"choose {', '.join(forms_of(metrics, families))}",
    )


def forms_of(metrics: Iterable[str], families: Iterable[MetricFamily]) -> list[str]:
    """What a user may ask for: the metrics' names, of families how one is written."""
    forms: dict[str, None] = {}
    for name in metrics:
        family = next((one for one in families if one.level_of(name) is not None), None)
        forms[name if family is None else family.form] = None
    return list(forms)
