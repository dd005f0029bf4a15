"""The figures of a study. Pure: groups of trials in, plotly figures out; where there are several
views, a list to choose from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prunedge.report.run.figures import AFTER, BEFORE, INK, MUTED, styled
from prunedge.report.study.numbers import FEW_GROUPS, Groups, Place, drawn_curve, end, front, shares
from prunedge.study.statistics import Spread

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
_BELOW = {
    "y": -0.22,
    "yanchor": "top",
}  # where no list of views is in the way, however many lines the legend has on a phone
Views = Mapping[str, Groups]


def curves(views: Views, metric: str, parts: Sequence[str] = ("after", "before")) -> go.Figure:
    """The metric against the fraction of channels pruned: means, with a band of one standard
    deviation where few overlap.
    """
    made = []
    for name, found in views.items():
        traces: list[Any] = []
        for place, (label, trials) in enumerate(found.items()):
            for part in parts:
                means = drawn_curve(trials, f"metric_{part}")
                traces += _line(
                    means,
                    label,
                    COLOURS[place % len(COLOURS)],
                    part,
                    metric,
                    has_band=len(found) <= (FEW_GROUPS if part == "after" else 2),
                )
        made.append((name, traces))
    most = max((len(found) for found in views.values()), default=0)
    figure = styled(
        _chosen(made), "channels pruned (%)", f"validation {metric} (%)", height=430 + 16 * most
    )
    return figure.update_layout(legend=_BELOW)


def ends(views: Views) -> go.Figure:
    """Where the rule stopped each trial: one marker a trial, a box for each combination."""
    made: list[tuple[str, list[Any]]] = []
    for name, found in views.items():
        flat = [(label, trial) for label, trials in reversed(found.items()) for trial in trials]
        box = go.Box(
            y=[label for label, _ in flat],
            x=[_percent(end(trial)["fraction_removed"]) for _, trial in flat],
            orientation="h",
            boxpoints="all" if len(flat) <= 400 else "outliers",
            jitter=0.4,
            pointpos=0,
            marker={"color": AFTER, "size": 6, "opacity": 0.6},
            line={"color": MUTED, "width": 1.2},
            fillcolor="rgba(11,110,153,.10)",
            showlegend=False,
            text=[str(trial[0]["stop"]) for _, trial in flat],
            hovertemplate="%{x:.1f} % of the channels pruned<br>%{text}<extra></extra>",
        )
        made.append((name, [box]))
    most = max((len(found) for found in views.values()), default=0)
    return styled(_chosen(made), "channels pruned (%)", "", height=150 + 38 * most)


def layers(views: Views) -> go.Figure:
    """The mean share of its channels that each layer of one model kept: layers from top to
    bottom, combinations from left to right.
    """
    made: list[tuple[str, list[Any]]] = []
    names: list[str] = []
    for name, found in views.items():
        columns = [shares(trials) for trials in found.values()]
        names = list(dict.fromkeys([*names, *(layer for column in columns for layer in column)]))
        order = list(dict.fromkeys(layer for column in columns for layer in column))[::-1]
        cells = [
            [_percent(column[layer]) if layer in column else None for column in columns]
            for layer in order
        ]
        heat = go.Heatmap(
            z=cells,
            x=list(found),
            y=order,
            zmin=0,
            zmax=100,
            colorscale=[[0, "#ffffff"], [1, AFTER]],
            xgap=2,
            ygap=1,
            texttemplate="%{z:.0f}" if len(found) <= FEW_GROUPS else None,
            showscale=len(found) > FEW_GROUPS,
            colorbar={"ticksuffix": " %", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:.1f} % kept<extra></extra>",
        )
        made.append((name, [heat]))
    figure = styled(_chosen(made), "", "", height=max(320, 170 + 19 * len(names)))
    return figure.update_yaxes(showgrid=False, dtick=1).update_xaxes(showgrid=False)


def times(found: Mapping[str, Mapping[int, Spread]]) -> go.Figure:
    """The pruning time for each number of fine-tuning epochs, with its standard deviation."""
    figure = go.Figure(
        [
            go.Bar(
                x=[str(epochs) for epochs in several],
                y=[one.mean for one in several.values()],
                name=name,
                marker_color=COLOURS[place % len(COLOURS)],
                error_y={"type": "data", "array": [_deviation(one) for one in several.values()]},
                hovertemplate="%{x} epochs: %{y:.1f} s",
            )
            for place, (name, several) in enumerate(found.items())
        ]
    )
    return styled(
        figure, "epochs of fine-tuning in each step", "pruning time (seconds)"
    ).update_xaxes(type="category")


def pareto(
    clouds: Mapping[str, tuple[Sequence[Place], Sequence[Place], Sequence[Place]]],
    x: str,
    y: str,
    per: float = 1,
    faint_name: str = "accepted steps",
) -> go.Figure:
    """Metric against cost, counted in units of `per` (logarithmic).

    A view has faint places, those among which the front is sought, and the models handed over.
    """
    made = []
    for name, (faint, candidates, given) in clouds.items():
        traces = [
            _dots(faint, faint_name, "#9aa5b1", 6, "circle", per),
            _dots(given, "handed over", BEFORE, 12, "diamond", per),
            _dots(front(candidates), "Pareto front", AFTER, 7, "circle", per),
        ]
        traces[-1].update(mode="lines+markers", line={"color": AFTER, "width": 2, "shape": "hv"})
        made.append((name, [trace for trace in traces if len(trace.x)]))
    figure = styled(_chosen(made), x, y, height=440)
    ticks = _ticks([float(value) for trace in figure.data for value in trace.x])
    figure.update_xaxes(
        type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks]
    )
    return figure.update_layout(legend=_BELOW)


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10 ... over the range of the values: plotly's own minor ticks of a logarithmic axis
    are bare digits.
    """
    if not values:
        return []
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    steps = (1, 2, 5) if len(decades) < 6 else (1,)
    return [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]


def _dots(
    places: Sequence[Place], name: str, colour: str, size: float, symbol: str, per: float
) -> go.Scatter:
    sizes = [size + 1.5 * math.log2(one.n) for one in places]
    return go.Scatter(
        x=[float(f"{one.x / per:.5g}") for one in places],
        y=[_percent(one.y) for one in places],
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": sizes},
        text=[
            one.text or (f"{one.n} steps close together" if one.n > 1 else "a step")
            for one in places
        ],
        hovertemplate="%{text}<br>%{x:,.4g}: %{y:.1f} %<extra>" + name + "</extra>",
    )


def _line(
    means: Mapping[float, Spread],
    label: str,
    colour: str,
    part: str,
    metric: str,
    *,
    has_band: bool,
) -> list[Any]:
    x, many = [_percent(f) for f in means], {f: one for f, one in means.items() if one.n > 1}
    words = [
        f"{_percent(one.mean):.1f} %"
        + (f" ± {100 * _deviation(one):.1f}" if one.n > 1 else "")
        + f", n = {one.n}"
        for one in means.values()
    ]
    traces: list[Any] = []
    if many and has_band:
        edge = [_percent(f) for f in many]
        upper = [min(100.0, _percent(one.mean + _deviation(one))) for one in many.values()]
        lower = [max(0.0, _percent(one.mean - _deviation(one))) for one in many.values()]
        traces.append(
            go.Scatter(
                x=[*edge, *edge[::-1]],
                y=[*upper, *lower[::-1]],
                fill="toself",
                fillcolor=colour,
                opacity=0.15,
                mode="none",
                legendgroup=label,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    traces.append(
        go.Scatter(
            x=x,
            y=[_percent(one.mean) for one in means.values()],
            mode="lines+markers" if len(x) < 3 else "lines",
            name=label,
            legendgroup=label,
            showlegend=part == "after",
            text=words,
            line={
                "color": colour,
                "width": 2.4 if part == "after" else 1.6,
                "dash": "solid" if part == "after" else "dot",
            },
            hovertemplate=f"%{{x:.1f}} % pruned: %{{text}}<extra>{part} fine-tuning</extra>",
        )
    )
    return traces


def _chosen(made: Sequence[tuple[str, list[Any]]]) -> go.Figure:
    """All views in one figure, the first of them seen, with a list to choose another."""
    figure = go.Figure([trace for _, traces in made for trace in traces])
    if len(made) < 2:
        return figure
    owners = [place for place, (_, traces) in enumerate(made) for _ in traces]
    for trace, owner in zip(figure.data, owners, strict=True):
        trace.visible = owner == 0
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [{"visible": [owner == place for owner in owners]}],
        }
        for place, (name, _) in enumerate(made)
    ]
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


def _percent(share: float) -> float:
    return round(100 * share, 3)


def _deviation(one: Spread) -> float:
    return one.variance**0.5 if one.n > 1 else 0.0
