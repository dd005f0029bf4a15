"""The figure of metric against cost, with its Pareto front. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from prunedge.report.metric_text import axis_title, hover_value
from prunedge.report.run.figures import AFTER, BEFORE, styled
from prunedge.report.study.figures import LEGEND_BELOW, Traces, chosen_view, height_of
from prunedge.report.study.pareto import Place, front
from prunedge.tasks import Metric


@dataclass(frozen=True)
class Cloud:
    """What one view of `pareto` shows: places in the background (`faint`), those among which the
    front is sought, and the models that were handed over.
    """

    faint: Sequence[Place]
    candidates: Sequence[Place]
    handed_over: Sequence[Place]


def pareto_figure(
    clouds: Mapping[str, Cloud],
    metric: Metric,
    split: str,
    cost: str,
    per: float = 1,
    faint_name: str = "accepted steps",
) -> go.Figure:
    """A metric on a split against a cost, counted in units of `per` (logarithmic): `cost` is the
    title of its axis.
    """
    made: Traces = []
    for name, cloud in clouds.items():
        unbeaten = front(cloud.candidates, metric)
        shape = "hv" if metric.higher_is_better else "vh"
        traces = [
            _dots(cloud.faint, metric, per, faint_name, "#9aa5b1", 6, "circle"),
            _dots(cloud.handed_over, metric, per, "handed over", BEFORE, 12, "diamond"),
            _dots(unbeaten, metric, per, "Pareto front", AFTER, 7, "circle"),
        ]
        traces[-1].update(mode="lines+markers", line={"color": AFTER, "width": 2, "shape": shape})
        made.append((name, [trace for trace in traces if len(trace.x)]))

    figure = styled(chosen_view(made), cost, axis_title(metric, split), height=440)
    costs: list[float] = []
    for trace in figure.data:
        costs += [float(value) for value in trace.x]
    ticks = _ticks(costs)
    figure.update_xaxes(
        type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks]
    )
    return figure.update_layout(legend=LEGEND_BELOW)


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
    places: Sequence[Place],
    metric: Metric,
    per: float,
    name: str,
    colour: str,
    size: float,
    symbol: str,
) -> go.Scatter:
    return go.Scatter(
        x=[float(f"{place.x / per:.5g}") for place in places],
        y=[height_of(metric, place.y) for place in places],
        mode="markers",
        name=name,
        marker={
            "color": colour,
            "symbol": symbol,
            "size": [size + 1.5 * math.log2(place.n) for place in places],
        },
        text=[place.text or _steps_in_words(place.n) for place in places],
        hovertemplate=f"%{{text}}<br>%{{x:,.4g}}: {hover_value(metric)}<extra>{name}</extra>",
    )


def _steps_in_words(count: int) -> str:
    return f"{count} steps close together" if count > 1 else "a step"
