"""By which figures a task's models are judged: what each is called, and how it is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass

POINTS = "points"


@dataclass(frozen=True)
class Metric:
    """A figure that models are judged by.

    `unit` is `points` for a share from 0 to 1 whose changes are told in hundredths, or the name of
    the metric's own unit (`mm`). `has_interval`: it is the mean over the images of what
    `prunedge.tasks.Metrics.correct` keeps of each, so that two models can be compared image by
    image. `is_macro`: it is the mean over the classes, so that rare ones count as much as common
    ones.
    """

    name: str
    higher_is_better: bool = True
    unit: str = POINTS
    has_interval: bool = False
    is_macro: bool = False

    def change(self, before: float, after: float) -> float:
        """From `before` to `after`, in the metric's unit."""
        return 100 * (after - before) if self.unit == POINTS else after - before

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`, in the metric's unit; negative where better."""
        change = self.change(before, after)
        return -change if self.higher_is_better else change

    def order(self, value: float) -> float:
        """A number that is the higher the better the model."""
        return value if self.higher_is_better else -value

    def text(self, value: float) -> str:
        """The value for a reader: `91.7%`, `0.42 mm`."""
        return f"{value:.1%}" if self.unit == POINTS else f"{value:.3g} {self.unit}"
