"""The figures of a run, from its history alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prunedge.pruning.steps import Step

INK, MUTED, BEFORE, AFTER, BAD, GRID = (
    "#1d2733",
    "#6b7785",
    "#c9822b",
    "#0b6e99",
    "#b3261e",
    "#e6eaee",
)
PARTS = (AFTER, BEFORE, "#7fb2c8", "#8c6bb1", "#5b8c5a", "#c76b8f", "#b9a44c", "#4f6d8f")
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def metric_by_channels(steps: Sequence[Step], metric: str, max_drop: float) -> go.Figure:
    """The metric before and after fine-tuning against the share of channels removed."""
    x = [100 * step.fraction_removed for step in steps]
    return _metric(steps, x, metric, max_drop, "channels removed (%)", "%{x:.1f} % removed")


def metric_by_macs(steps: Sequence[Step], metric: str, max_drop: float) -> go.Figure:
    """The same against the multiply-accumulates of one image."""
    figure = _metric(
        steps,
        [step.macs / 1e6 for step in steps],
        metric,
        max_drop,
        "million MACs (logarithmic)",
        "%{x:,.1f} million MACs",
    )
    # A handful of powers of ten says little: the steps' own values are the ticks.
    ticks = sorted({float(f"{step.macs / 1e6:.2g}") for step in steps if step.accepted})
    return figure.update_xaxes(
        type="log",
        autorange="reversed",
        tickmode="array",
        tickvals=ticks,
        ticktext=[f"{tick:,g}" for tick in ticks],
    )


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


def seconds(steps: Sequence[Step]) -> go.Figure:
    """Where each step's time went."""
    parts = (
        ("fine-tuning", "finetune", AFTER),
        ("evaluation", "evaluate", "#7fb2c8"),
        ("ranking", "rank", BEFORE),
        ("surgery and proof", "surgery", "#8c6bb1"),
    )
    x = [f"step {step.index}" for step in steps[1:]]
    bars = [
        go.Bar(
            x=x,
            y=[getattr(step, f"seconds_{key}") for step in steps[1:]],
            name=name,
            marker_color=colour,
            hovertemplate="%{x}, " + name + ": %{y:.1f} s<extra></extra>",
        )
        for name, key, colour in parts
    ]
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack")
    return styled(figure, "", "seconds")


def time_by_part(profile: Mapping[str, Any]) -> go.Figure:
    """Seconds of each phase of a profiled run, by part; the parts with the most first, small ones
    together.
    """
    phases = profile["phases"]
    named = [one["part"] for one in profile["parts"]][: len(PARTS)]
    bars = []
    for name, colour in [*zip(named, PARTS, strict=False), ("the rest", "#d5dbe1")]:
        took = [
            sum(s for part, s in one["parts"].items() if part not in named)
            if name == "the rest"
            else one["parts"].get(name, 0.0)
            for one in phases
        ]
        bars.append(
            go.Bar(
                x=[one["phase"] for one in phases],
                y=took,
                name=name,
                marker_color=colour,
                hovertemplate="%{x}, " + name + ": %{y:.2f} s<extra></extra>",
            )
        )
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack")
    return styled(figure, "", "seconds")


def layer_times(profile: Mapping[str, Any]) -> go.Figure:
    """Milliseconds of each layer of a bundle, in the order in which they run."""
    layers = sorted(profile["layers"], key=lambda one: one["place"])
    kinds = list(dict.fromkeys(one["kind"] for one in profile["layers"]))
    figure = go.Figure()
    for kind in kinds:
        mine = [one for one in layers if one["kind"] == kind]
        figure.add_bar(
            x=[one["place"] + 1 for one in mine],
            y=[one["ms"] for one in mine],
            name=kind,
            marker_color=PARTS[kinds.index(kind) % len(PARTS)],
            text=[f"{one['name']} {one['shape']}" for one in mine],
            textposition="none",
            hovertemplate="%{text}: %{y:.3f} ms<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    return styled(figure, "layer", "ms", height=320)


def metric_by_latency(steps: Sequence[Step], metric: str, max_drop: float) -> go.Figure:
    """The same against the milliseconds of one image on the device that steered."""
    figure = _metric(
        steps,
        [step.latency_ms or 0.0 for step in steps],
        metric,
        max_drop,
        "ms for an image on the device (logarithmic)",
        "%{x:.3g} ms",
    )
    ticks = sorted(
        {float(f"{step.latency_ms:.2g}") for step in steps if step.accepted and step.latency_ms}
    )
    return figure.update_xaxes(
        type="log",
        autorange="reversed",
        tickmode="array",
        tickvals=ticks,
        ticktext=[f"{tick:,g}" for tick in ticks],
    )


def staircases(table: Mapping[str, Any]) -> go.Figure:
    """Milliseconds of the costliest layers against their number of channels, as they were measured
    one by one.
    """
    figure = go.Figure()
    colours = (AFTER, BEFORE, "#8c6bb1", "#7fb2c8", BAD, MUTED)
    for place, one in enumerate(table["staircases"]):
        layer = one["layer"]
        name = (
            f"{layer['kernel'][0]}x{layer['kernel'][1]} at "
            f"{layer['size'][0]}x{layer['size'][1]}, {one['axis']}: step {one['step']}"
        )
        figure.add_scatter(
            x=one["channels"],
            y=[1e3 * ms for ms in one["ms"]],
            name=name,
            mode="lines+markers",
            line={"shape": "vh", "color": colours[place % len(colours)], "width": 1.5},
            marker={"size": 4},
            hovertemplate="%{x} channels: %{y:.0f} µs<extra></extra>",
        )
    return styled(figure, "channels", "µs for an image")


def agreement(audit: Mapping[str, Any]) -> go.Figure:
    """Each criterion's rank correlation with the oracle over all layers, after l2 normalisation and
    raw, with 95 % intervals.
    """
    ranked = sorted(audit["absolute"], key=lambda one: _or(one["overall"]["l2"]["rho"], -2))
    figure = go.Figure()
    for name, how, colour in (("raw", "none", BEFORE), ("l2-normalised", "l2", AFTER)):
        values = [one["overall"][how] for one in ranked]
        figure.add_scatter(
            x=[value["rho"] for value in values],
            y=[one["criterion"] for one in ranked],
            name=name,
            mode="markers",
            marker={"size": 10, "color": colour},
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "array": [_or(value["high"], 0) - _or(value["rho"], 0) for value in values],
                "arrayminus": [_or(value["rho"], 0) - _or(value["low"], 0) for value in values],
            },
            hovertemplate="%{y}: %{x:.2f} " + name + "<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": MUTED, "width": 1})
    return styled(
        figure,
        "Spearman's rank correlation with the oracle, all layers",
        "",
        height=120 + 30 * len(ranked),
    )


def agreement_by_layer(audit: Mapping[str, Any]) -> go.Figure:
    """The same in each layer: criteria by layers, as colours."""
    ranked = sorted(audit["absolute"], key=lambda one: _or(one["per_layer"]["rho"], -2))
    names = list(dict.fromkeys(layer for one in ranked for layer in one["layers"]))
    figure = go.Figure()
    figure.add_heatmap(
        z=[[one["layers"].get(name) for name in names] for one in ranked],
        x=names,
        y=[one["criterion"] for one in ranked],
        zmin=-1,
        zmax=1,
        colorscale=[[0, BEFORE], [0.5, "#ffffff"], [1, AFTER]],
        colorbar={"title": "rho"},
        xgap=1,
        ygap=1,
        hovertemplate="%{y} in %{x}: %{z:.2f}<extra></extra>",
    )
    return styled(figure, "", "", height=180 + 26 * len(ranked))


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _metric(
    steps: Sequence[Step], x: Sequence[float], metric: str, max_drop: float, title: str, hover: str
) -> go.Figure:
    good = [(place, step) for place, step in zip(x, steps, strict=True) if step.accepted]
    has_first = (
        len(steps) > 1 and steps[1].index == 0
    )  # the first model of the chain leads the run's own steps
    bad = [(place, step) for place, step in zip(x, steps, strict=True) if not step.accepted]
    figure = go.Figure()
    for name, key, colour, dash in (
        ("after fine-tuning", "metric_after", AFTER, "solid"),
        ("before fine-tuning", "metric_before", BEFORE, "dot"),
    ):
        figure.add_scatter(
            x=[place for place, _ in good],
            y=[100 * getattr(step, key) for _, step in good],
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5},
            marker={"size": 8},
            text=[
                "first model" if has_first and step is steps[0] else f"step {step.index}"
                for _, step in good
            ],
            hovertemplate=f"%{{text}}, {hover}<br>{metric} %{{y:.1f}} % {name}<extra></extra>",
        )
    if bad:
        figure.add_scatter(
            x=[place for place, _ in bad],
            y=[100 * step.metric_after for _, step in bad],
            name="broke the rule, taken back",
            mode="markers",
            marker={"symbol": "x", "size": 10, "color": BAD},
            text=[f"step {step.index}" for _, step in bad],
            hovertemplate=f"%{{text}}, {hover}<br>{metric} %{{y:.1f}} %: taken back<extra></extra>",
        )
    floor = 100 * steps[0].metric_after - max_drop
    figure.add_hline(
        y=floor,
        line={"color": BAD, "dash": "dash", "width": 1},
        annotation_text=f"the rule: at most {max_drop:g} points lost",
        annotation_position="bottom left",
        annotation_font={"color": BAD, "size": 12},
    )
    return styled(figure, title, f"validation {metric} (%)")


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
