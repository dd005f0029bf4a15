"""The learning curves of a run: its first training, and each fine-tuning after it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from prunedge.pruning.steps import Step
from prunedge.report.metric_text import axis_title, axis_value
from prunedge.report.run.figures import AFTER, BEFORE, GRID, MUTED, styled
from prunedge.runs.learning import LearnedEpoch
from prunedge.tasks import Metric

HEIGHT = 340


@dataclass(frozen=True)
class _Stretch:
    """A step's epochs, the first of which is the run's epoch `start`, from 1."""

    step: Step
    start: int
    epochs: Sequence[LearnedEpoch]

    @property
    def end(self) -> int:
        """The number of its last epoch."""
        return self.start + len(self.epochs) - 1


def loss_by_epoch(
    steps: Sequence[Step], learned: Mapping[int, Sequence[LearnedEpoch]]
) -> go.Figure:
    """The loss on training images in each epoch, and on validation images where it was measured."""
    stretches = _stretches(steps, learned)
    epochs: list[int | None] = []
    losses: list[float | None] = []
    for stretch in stretches:
        epochs += [*range(stretch.start, stretch.end + 1), None]
        losses += [*(epoch.loss for epoch in stretch.epochs), None]
    figure = go.Figure()
    _add_line(figure, "training images", epochs, losses, BEFORE)
    _add_line(figure, "validation images", *_validated(stretches, "loss"), AFTER)
    return styled(_divided(figure, stretches), "epoch", "loss", HEIGHT)


def metric_by_epoch(
    steps: Sequence[Step], learned: Mapping[int, Sequence[LearnedEpoch]], metric: Metric
) -> go.Figure:
    """The metric on validation images where it was measured."""
    stretches = _stretches(steps, learned)
    epochs, values = _validated(stretches, metric.name)
    drawn = [None if value is None else axis_value(metric, value) for value in values]
    figure = go.Figure()
    _add_line(figure, metric.name, epochs, drawn, AFTER)
    title = axis_title(metric, "validation")
    return styled(_divided(figure, stretches), "epoch", title, HEIGHT)


def _stretches(
    steps: Sequence[Step], learned: Mapping[int, Sequence[LearnedEpoch]]
) -> list[_Stretch]:
    """The epochs of all steps in a row."""
    stretches = []
    start = 1
    for step in steps:
        epochs = learned.get(step.index, ())
        if epochs:
            stretches.append(_Stretch(step, start, epochs))
            start += len(epochs)
    return stretches


def _validated(
    stretches: Sequence[_Stretch], name: str
) -> tuple[list[int | None], list[float | None]]:
    """A metric after each epoch of the first training; of a fine-tuning, of which the last epoch
    alone is judged, after that.
    """
    epochs: list[int | None] = []
    values: list[float | None] = []
    for stretch in stretches:
        for place, epoch in enumerate(stretch.epochs):
            if epoch.metrics is not None:
                epochs.append(stretch.start + place)
                values.append(epoch.metrics.get(name))
        if stretch.epochs[-1].metrics is None:
            epochs.append(stretch.end)
            values.append(stretch.step.metrics.get(name))
    return epochs, values


def _add_line(
    figure: go.Figure,
    name: str,
    epochs: Sequence[int | None],
    values: Sequence[float | None],
    colour: str,
) -> None:
    figure.add_scatter(
        x=epochs,
        y=values,
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 6},
        hovertemplate="epoch %{x}: %{y:.3g}<extra>" + name + "</extra>",
    )


def _divided(figure: go.Figure, stretches: Sequence[_Stretch]) -> go.Figure:
    """A line where each fine-tuning begins."""
    for stretch in stretches:
        if stretch.step.index == 0:
            continue
        label = "polish" if stretch.step.is_polish else str(stretch.step.number)
        figure.add_vline(
            x=stretch.start - 0.5,
            line={"color": GRID, "width": 1.5},
            annotation_text=label,
            annotation_position="top right",
            annotation_font={"color": MUTED, "size": 11},
        )
    return figure
