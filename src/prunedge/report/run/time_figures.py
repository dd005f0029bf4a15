"""The figures of time: of a run's steps and phases, of a bundle's layers, of a device's staircases.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from prunedge.pruning.steps import Step
from prunedge.report.run.figures import AFTER, BAD, BEFORE, MUTED, styled

PARTS = (AFTER, BEFORE, "#7fb2c8", "#8c6bb1", "#5b8c5a", "#c76b8f", "#b9a44c", "#4f6d8f")


def seconds(steps: Sequence[Step]) -> go.Figure:
    """Where each step's time went."""
    parts = (
        ("fine-tuning", "finetune", AFTER),
        ("evaluation", "evaluate", "#7fb2c8"),
        ("ranking", "rank", BEFORE),
        ("surgery and proof", "surgery", "#8c6bb1"),
    )
    x = [step.name for step in steps[1:]]
    figure = go.Figure()
    for name, key, colour in parts:
        figure.add_bar(
            x=x,
            y=[getattr(step, f"seconds_{key}") for step in steps[1:]],
            name=name,
            marker_color=colour,
            hovertemplate="%{x}, " + name + ": %{y:.1f} s<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    return styled(figure, "", "seconds")


def time_by_part(profile: Mapping[str, Any]) -> go.Figure:
    """Seconds of each phase of a profiled run, by part; the parts with the most first, small ones
    together.
    """
    phases = profile["phases"]
    names = [phase["phase"] for phase in phases]
    largest = [part["part"] for part in profile["parts"]][: len(PARTS)]

    figure = go.Figure()
    for part, colour in zip(largest, PARTS, strict=False):
        figure.add_trace(
            _part_bar(names, [p["parts"].get(part, 0.0) for p in phases], part, colour)
        )
    rest = [_rest(phase["parts"], largest) for phase in phases]
    figure.add_trace(_part_bar(names, rest, "the rest", "#d5dbe1"))

    figure.update_layout(barmode="stack")
    return styled(figure, "", "seconds")


def _rest(parts: Mapping[str, float], largest: Sequence[str]) -> float:
    """The seconds of a phase that no bar of its own shows."""
    return sum(seconds for part, seconds in parts.items() if part not in largest)


def _part_bar(phases: Sequence[str], seconds: Sequence[float], name: str, colour: str) -> go.Bar:
    return go.Bar(
        x=phases,
        y=seconds,
        name=name,
        marker_color=colour,
        hovertemplate="%{x}, " + name + ": %{y:.2f} s<extra></extra>",
    )


def layer_times(profile: Mapping[str, Any]) -> go.Figure:
    """Milliseconds of each layer of a bundle, in the order in which they run."""
    layers = sorted(profile["layers"], key=lambda layer: layer["place"])
    kinds = list(dict.fromkeys(layer["kind"] for layer in profile["layers"]))
    figure = go.Figure()
    for number, kind in enumerate(kinds):
        of_kind = [layer for layer in layers if layer["kind"] == kind]
        figure.add_bar(
            x=[layer["place"] + 1 for layer in of_kind],
            y=[layer["ms"] for layer in of_kind],
            name=kind,
            marker_color=PARTS[number % len(PARTS)],
            text=[f"{layer['name']} {layer['shape']}" for layer in of_kind],
            textposition="none",
            hovertemplate="%{text}: %{y:.3f} ms<extra></extra>",
        )
    figure.update_layout(barmode="stack")
    return styled(figure, "layer", "ms", height=320)


def staircases(table: Mapping[str, Any]) -> go.Figure:
    """Milliseconds of the costliest layers against their number of channels, as they were measured
    one by one.
    """
    figure = go.Figure()
    colours = (AFTER, BEFORE, "#8c6bb1", "#7fb2c8", BAD, MUTED)
    for number, staircase in enumerate(table["staircases"]):
        layer = staircase["layer"]
        kernel = "x".join(str(side) for side in layer["kernel"][:2])
        size = "x".join(str(side) for side in layer["size"][:2])
        name = f"{kernel} at {size}, {staircase['axis']}: step {staircase['step']}"
        figure.add_scatter(
            x=staircase["channels"],
            y=[1e3 * ms for ms in staircase["ms"]],
            name=name,
            mode="lines+markers",
            line={"shape": "vh", "color": colours[number % len(colours)], "width": 1.5},
            marker={"size": 4},
            hovertemplate="%{x} channels: %{y:.0f} µs<extra></extra>",
        )
    return styled(figure, "channels", "µs for an image")
