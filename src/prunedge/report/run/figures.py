"""The figures of a run's steps, from its history alone, and the look that all figures share."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from prunedge.edge.tasks.metric import Drop
from prunedge.pruning.steps import Step
from prunedge.report.metric_text import (
    axis_title,
    axis_value,
    hover_value,
    rule_height,
    rule_text,
)
from prunedge.tasks import Metric

INK = "#1d2733"
MUTED = "#6b7785"
BEFORE = "#c9822b"
AFTER = "#0b6e99"
BAD = "#b3261e"
GRID = "#e6eaee"
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def metric_by_channels(steps: Sequence[Step], metric: Metric, max_drop: Drop | None) -> go.Figure:
    """The metric before and after fine-tuning against the share of channels removed."""
    costs = [100 * step.fraction_removed for step in steps]
    figure = _metric_by(costs, steps, metric, max_drop, "%{x:.1f} % removed")
    return styled(figure, "channels removed (%)", axis_title(metric, "validation"))


def metric_by_macs(steps: Sequence[Step], metric: Metric, max_drop: Drop | None) -> go.Figure:
    """The same against the multiply-accumulates of one image."""
    costs = [step.macs / 1e6 for step in steps]
    figure = _metric_by(costs, steps, metric, max_drop, "%{x:,.1f} million MACs")
    styled(figure, "million MACs (logarithmic)", axis_title(metric, "validation"))
    return _falling(figure, [step.macs / 1e6 for step in steps if step.accepted])


def metric_by_latency(steps: Sequence[Step], metric: Metric, max_drop: Drop | None) -> go.Figure:
    """The same against the milliseconds of one image on the device that steered."""
    costs = [step.latency_ms or 0.0 for step in steps]
    figure = _metric_by(costs, steps, metric, max_drop, "%{x:.3g} ms")
    title = "ms for an image on the device (logarithmic)"
    styled(figure, title, axis_title(metric, "validation"))
    return _falling(figure, [s.latency_ms for s in steps if s.accepted and s.latency_ms])


def layers(first: Step, best: Step) -> go.Figure:
    """How many channels each layer kept and lost, in the model's order."""
    names = list(first.original)[::-1]
    kept = [best.kept.get(name, 0) for name in names]
    lost = [first.original[name] - count for name, count in zip(names, kept, strict=True)]
    figure = go.Figure(
        [
            go.Bar(
                y=names,
                x=kept,
                name="kept",
                orientation="h",
                marker_color=AFTER,
                hovertemplate="%{y}: %{x} kept<extra></extra>",
            ),
            go.Bar(
                y=names,
                x=lost,
                name="removed",
                orientation="h",
                marker_color="#d5dbe1",
                hovertemplate="%{y}: %{x} removed<extra></extra>",
            ),
        ]
    )
    figure.update_layout(barmode="stack")
    return styled(figure, "channels of the layer", "", height=max(320, 90 + 17 * len(names)))


def _metric_by(
    costs: Sequence[float],
    steps: Sequence[Step],
    metric: Metric,
    max_drop: Drop | None,
    hover_cost: str,
) -> go.Figure:
    """The metric of each step against a cost of it, with the steps that were taken back and the
    rule's line, where `max_drop` is known. `hover_cost` is how plotly writes the cost under the
    pointer.
    """
    # The first model of the chain leads the run's own steps.
    has_first = len(steps) > 1 and steps[1].index == 0
    names = [step.name for step in steps]
    if has_first:
        names[0] = "first model"
    points = list(zip(costs, steps, names, strict=True))
    accepted = [point for point in points if point[1].accepted]
    taken_back = [point for point in points if not point[1].accepted]

    hover = f"%{{text}}, {hover_cost}<br>{metric.name} {hover_value(metric)}"
    figure = go.Figure()
    for name, key, colour, dash in (
        ("after fine-tuning", "metric_after", AFTER, "solid"),
        ("before fine-tuning", "metric_before", BEFORE, "dot"),
    ):
        figure.add_scatter(
            x=[cost for cost, _, _ in accepted],
            y=[axis_value(metric, getattr(step, key)) for _, step, _ in accepted],
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5},
            marker={"size": 8},
            text=[step_name for _, _, step_name in accepted],
            hovertemplate=f"{hover} {name}<extra></extra>",
        )
    if taken_back:
        figure.add_scatter(
            x=[cost for cost, _, _ in taken_back],
            y=[axis_value(metric, step.metric_after) for _, step, _ in taken_back],
            name="taken back",
            mode="markers",
            marker={"symbol": "x", "size": 10, "color": BAD},
            text=[step_name for _, _, step_name in taken_back],
            hovertemplate=f"{hover}: taken back<extra></extra>",
        )
    if max_drop is None:
        return figure
    figure.add_hline(
        y=rule_height(metric, steps[0].metric_after, max_drop),
        line={"color": BAD, "dash": "dash", "width": 1},
        annotation_text=rule_text(metric, max_drop),
        annotation_position="bottom left" if metric.higher_is_better else "top left",
        annotation_font={"color": BAD, "size": 12},
    )
    return figure


def _falling(figure: go.Figure, costs: Sequence[float]) -> go.Figure:
    """A logarithmic axis of costs that fall from left to right."""
    # A handful of powers of ten says little: the steps' own values are the ticks.
    ticks = sorted({float(f"{cost:.2g}") for cost in costs})
    return figure.update_xaxes(
        type="log",
        autorange="reversed",
        tickmode="array",
        tickvals=ticks,
        ticktext=[f"{tick:,g}" for tick in ticks],
    )


def styled(figure: go.Figure, x: str, y: str, height: int = 400) -> go.Figure:
    """The look that every figure shares, with the titles of its axes."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"bgcolor": "white"},
        bargap=0.25,
    )
    figure.update_xaxes(title=x, gridcolor=GRID, automargin=True)
    figure.update_yaxes(title=y, gridcolor=GRID, automargin=True)
    return figure
