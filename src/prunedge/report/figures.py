"""The figures of a run, from its history alone."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from prunedge.loop import Step

INK, MUTED, BEFORE, AFTER, BAD, GRID = "#1d2733", "#6b7785", "#c9822b", "#0b6e99", "#b3261e", "#e6eaee"
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def metric_by_channels(steps: Sequence[Step], metric: str, max_drop: float) -> go.Figure:
    """The metric before and after fine-tuning against the share of channels removed."""
    x = [100 * step.fraction_removed for step in steps]
    return _metric(steps, x, metric, max_drop, "channels removed (%)", "%{x:.1f} % removed")


def metric_by_macs(steps: Sequence[Step], metric: str, max_drop: float) -> go.Figure:
    """The same against the multiply-accumulates of one picture."""
    figure = _metric(steps, [step.macs / 1e6 for step in steps], metric, max_drop, "million MACs (logarithmic)", "%{x:,.1f} million MACs")
    # A handful of powers of ten says little: the steps' own values are the ticks.
    ticks = sorted({float(f"{step.macs / 1e6:.2g}") for step in steps if step.accepted})
    return figure.update_xaxes(
        type="log", autorange="reversed", tickmode="array", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks]
    )


def layers(first: Step, best: Step) -> go.Figure:
    """How many channels each layer kept and lost, in the network's order."""
    names = list(first.original)[::-1]
    kept = [best.kept.get(name, 0) for name in names]
    lost = [first.original[name] - count for name, count in zip(names, kept, strict=True)]
    figure = go.Figure(
        [
            go.Bar(y=names, x=kept, name="kept", orientation="h", marker_color=AFTER, hovertemplate="%{y}: %{x} kept<extra></extra>"),
            go.Bar(
                y=names, x=lost, name="removed", orientation="h", marker_color="#d5dbe1", hovertemplate="%{y}: %{x} removed<extra></extra>"
            ),
        ]
    )
    figure.update_layout(barmode="stack")
    return _styled(figure, "channels of the layer", "", height=max(320, 90 + 17 * len(names)))


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
            x=x, y=[getattr(step, f"seconds_{key}") for step in steps[1:]], name=name, marker_color=colour,
            hovertemplate="%{x}, " + name + ": %{y:.1f} s<extra></extra>",
        )
        for name, key, colour in parts
    ]  # fmt: skip
    figure = go.Figure(bars)
    figure.update_layout(barmode="stack")
    return _styled(figure, "", "seconds")


def _metric(steps: Sequence[Step], x: Sequence[float], metric: str, max_drop: float, title: str, hover: str) -> go.Figure:
    good = [(place, step) for place, step in zip(x, steps, strict=True) if step.accepted]
    bad = [(place, step) for place, step in zip(x, steps, strict=True) if not step.accepted]
    figure = go.Figure()
    for name, key, colour, dash in (
        ("after fine-tuning", "metric_after", AFTER, "solid"),
        ("before fine-tuning", "metric_before", BEFORE, "dot"),
    ):
        figure.add_scatter(
            x=[place for place, _ in good], y=[100 * getattr(step, key) for _, step in good], name=name, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5}, marker={"size": 8},
            text=[f"step {step.index}" for _, step in good],
            hovertemplate=f"%{{text}}, {hover}<br>{metric} %{{y:.1f}} % {name}<extra></extra>",
        )  # fmt: skip
    if bad:
        figure.add_scatter(
            x=[place for place, _ in bad], y=[100 * step.metric_after for _, step in bad], name="broke the rule, taken back",
            mode="markers",
            marker={"symbol": "x", "size": 10, "color": BAD}, text=[f"step {step.index}" for _, step in bad],
            hovertemplate=f"%{{text}}, {hover}<br>{metric} %{{y:.1f}} %: taken back<extra></extra>",
        )  # fmt: skip
    floor = 100 * steps[0].metric_after - max_drop
    figure.add_hline(
        y=floor, line={"color": BAD, "dash": "dash", "width": 1}, annotation_text=f"the rule: at most {max_drop:g} points lost",
        annotation_position="bottom left", annotation_font={"color": BAD, "size": 12},
    )  # fmt: skip
    return _styled(figure, title, f"validation {metric} (%)")


def _styled(figure: go.Figure, x: str, y: str, height: int = 400) -> go.Figure:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 10, "r": 10, "t": 10, "b": 10}, 
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, hoverlabel={"bgcolor": "white"}, bargap=0.25,
    )  # fmt: skip
    figure.update_xaxes(title=x, gridcolor=GRID, automargin=True)
    figure.update_yaxes(title=y, gridcolor=GRID, automargin=True)
    return figure
