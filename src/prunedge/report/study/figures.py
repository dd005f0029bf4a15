"""The figures of a study. Pure: groups of trials in, plotly figures out; where there are several
views, a list to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from prunedge.report.metric_text import (
    axis_title,
    axis_unit,
    axis_value,
    is_share,
    metric_spread,
)
from prunedge.report.run.figures import AFTER, INK, MUTED, styled
from prunedge.report.study.numbers import FEW_GROUPS, Groups, drawn_curve, end, shares
from prunedge.study.statistics import Spread
from prunedge.tasks import Metric

# Okabe and Ito's colours (told apart also by the colour-blind), the darker ones first.
COLOURS = (
    "#0b6e99",
    "#c9822b",
    "#00856a",
    "#b0508a",
    "#1d2733",
    "#56b4e9",
    "#d55e00",
    "#8a8f98",
    "#6a51a3",
    "#a6761d",
    "#66a61e",
    "#e7298a",
)
# Where no list of views is in the way, however many lines the legend has on a phone.
LEGEND_BELOW = {"y": -0.22, "yanchor": "top"}
Views = Mapping[str, Groups]
# Each view with its traces.
Traces = list[tuple[str, list[Any]]]


def curves(views: Views, metric: Metric, phases: Sequence[str] = ("after", "before")) -> go.Figure:
    """The metric against the fraction of channels pruned: means, with a band of one standard
    deviation where few overlap.
    """
    made: Traces = []
    for name, groups in views.items():
        traces: list[Any] = []
        for number, (label, trials) in enumerate(groups.items()):
            for phase in phases:
                most_with_band = FEW_GROUPS if phase == "after" else 2
                means = drawn_curve(trials, f"metric_{phase}")
                line = _Line(label, COLOURS[number % len(COLOURS)], phase, metric)
                if len(groups) <= most_with_band:
                    traces += _band(means, line)
                traces.append(_line(means, line))
        made.append((name, traces))
    height = 430 + 16 * _most_groups(views)
    title = axis_title(metric, "validation")
    figure = styled(chosen_view(made), "channels pruned (%)", title, height=height)
    return figure.update_layout(legend=LEGEND_BELOW)


def ends(views: Views) -> go.Figure:
    """Where the rule stopped each trial: one marker a trial, a box for each combination."""
    made: Traces = []
    for name, groups in views.items():
        labels = []
        removed = []
        reasons = []
        for label, trials in reversed(groups.items()):
            for trial in trials:
                labels.append(label)
                removed.append(_percent(end(trial)["fraction_removed"]))
                reasons.append(str(trial[0]["stop"]))
        box = go.Box(
            y=labels,
            x=removed,
            orientation="h",
            boxpoints="all" if len(labels) <= 400 else "outliers",
            jitter=0.4,
            pointpos=0,
            marker={"color": AFTER, "size": 6, "opacity": 0.6},
            line={"color": MUTED, "width": 1.2},
            fillcolor="rgba(11,110,153,.10)",
            showlegend=False,
            text=reasons,
            hovertemplate="%{x:.1f} % of the channels pruned<br>%{text}<extra></extra>",
        )
        made.append((name, [box]))
    height = 150 + 38 * _most_groups(views)
    return styled(chosen_view(made), "channels pruned (%)", "", height=height)


def layers(views: Views) -> go.Figure:
    """The mean share of its channels that each layer of one model kept: layers from top to
    bottom, combinations from left to right.
    """
    made: Traces = []
    names: dict[str, None] = {}
    for name, groups in views.items():
        columns = [shares(trials) for trials in groups.values()]
        in_view: dict[str, None] = {}
        for column in columns:
            in_view.update(dict.fromkeys(column))
        names.update(in_view)

        order = list(in_view)[::-1]
        cells = [[_percent_of(column, layer) for column in columns] for layer in order]
        heat = go.Heatmap(
            z=cells,
            x=list(groups),
            y=order,
            zmin=0,
            zmax=100,
            colorscale=[[0, "#ffffff"], [1, AFTER]],
            xgap=2,
            ygap=1,
            texttemplate="%{z:.0f}" if len(groups) <= FEW_GROUPS else None,
            showscale=len(groups) > FEW_GROUPS,
            colorbar={"ticksuffix": " %", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:.1f} % kept<extra></extra>",
        )
        made.append((name, [heat]))
    figure = styled(chosen_view(made), "", "", height=max(320, 170 + 19 * len(names)))
    return figure.update_yaxes(showgrid=False, dtick=1).update_xaxes(showgrid=False)


def times(combinations: Mapping[str, Mapping[int, Spread]]) -> go.Figure:
    """The pruning time for each number of fine-tuning epochs, with its standard deviation."""
    figure = go.Figure()
    for number, (name, by_epochs) in enumerate(combinations.items()):
        figure.add_bar(
            x=[str(epochs) for epochs in by_epochs],
            y=[seconds.mean for seconds in by_epochs.values()],
            name=name,
            marker_color=COLOURS[number % len(COLOURS)],
            error_y={
                "type": "data",
                "array": [_deviation(seconds) for seconds in by_epochs.values()],
            },
            hovertemplate="%{x} epochs: %{y:.1f} s",
        )
    title = "epochs of fine-tuning in each step"
    return styled(figure, title, "pruning time (seconds)").update_xaxes(type="category")


@dataclass(frozen=True)
class _Line:
    """What a curve is of, and its colour. `phase` is `after` or `before` (fine-tuning)."""

    label: str
    colour: str
    phase: str
    metric: Metric


def _band(means: Mapping[float, Spread], line: _Line) -> list[go.Scatter]:
    """One standard deviation around the means; nothing where each is of one trial."""
    repeated = {fraction: mean for fraction, mean in means.items() if mean.n > 1}
    if not repeated:
        return []
    edge = [_percent(fraction) for fraction in repeated]
    upper = []
    lower = []
    for mean in repeated.values():
        high = height_of(line.metric, mean.mean + _deviation(mean))
        low = height_of(line.metric, mean.mean - _deviation(mean))
        if is_share(line.metric):
            high = min(100.0, high)
            low = max(0.0, low)
        upper.append(high)
        lower.append(low)
    band = go.Scatter(
        x=[*edge, *edge[::-1]],
        y=[*upper, *lower[::-1]],
        fill="toself",
        fillcolor=line.colour,
        opacity=0.15,
        mode="none",
        legendgroup=line.label,
        showlegend=False,
        hoverinfo="skip",
    )
    return [band]


def _line(means: Mapping[float, Spread], line: _Line) -> go.Scatter:
    is_after = line.phase == "after"
    x = [_percent(fraction) for fraction in means]
    return go.Scatter(
        x=x,
        y=[height_of(line.metric, mean.mean) for mean in means.values()],
        mode="lines+markers" if len(x) < 3 else "lines",
        name=line.label,
        legendgroup=line.label,
        showlegend=is_after,
        text=[_mean_in_words(line.metric, mean) for mean in means.values()],
        line={
            "color": line.colour,
            "width": 2.4 if is_after else 1.6,
            "dash": "solid" if is_after else "dot",
        },
        hovertemplate=f"%{{x:.1f}} % pruned: %{{text}}<extra>{line.phase} fine-tuning</extra>",
    )


def _mean_in_words(metric: Metric, mean: Spread) -> str:
    if not is_share(metric):
        return f"{metric_spread(metric, mean)}, n = {mean.n}"
    deviation = f" ± {100 * _deviation(mean):.1f}" if mean.n > 1 else ""
    return f"{_percent(mean.mean):.1f} {axis_unit(metric)}{deviation}, n = {mean.n}"


def chosen_view(made: Traces) -> go.Figure:
    """All views in one figure, the first of them seen, with a list to choose another."""
    figure = go.Figure()
    owners = []
    for number, (_, traces) in enumerate(made):
        figure.add_traces(traces)
        owners += [number] * len(traces)
    if len(made) < 2:
        return figure
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = owner == 0
    buttons = []
    for number, (name, _) in enumerate(made):
        is_seen = [owner == number for owner in owners]
        buttons.append({"label": name, "method": "update", "args": [{"visible": is_seen}]})
    menu = {
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "pad": {"b": 26},
        "bgcolor": "white",
        "font": {"color": INK},
    }
    return figure.update_layout(updatemenus=[menu])


def _most_groups(views: Views) -> int:
    return max((len(groups) for groups in views.values()), default=0)


def height_of(metric: Metric, value: float) -> float:
    """A value as it is drawn, without digits that nobody sees."""
    if is_share(metric):
        return round(axis_value(metric, value), 3)
    return float(f"{value:.5g}")


def _percent(share: float) -> float:
    return round(100 * share, 3)


def _percent_of(shares_of_layers: Mapping[str, float], layer: str) -> float | None:
    share = shares_of_layers.get(layer)
    return None if share is None else _percent(share)


def _deviation(spread: Spread) -> float:
    return spread.variance**0.5 if spread.n > 1 else 0.0
