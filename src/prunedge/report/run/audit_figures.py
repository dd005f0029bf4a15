"""The figures of an audit, which say how well each criterion agrees with the oracle. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from prunedge.report.run.figures import AFTER, BEFORE, MUTED, styled


def agreement(audit: Mapping[str, Any]) -> go.Figure:
    """Each criterion's rank correlation with the oracle over all layers, after l2 normalisation and
    raw, with 95 % intervals.
    """
    ranked = sorted(audit["absolute"], key=lambda entry: _or(entry["overall"]["l2"]["rho"], -2))
    figure = go.Figure()
    for name, how, colour in (("raw", "none", BEFORE), ("l2-normalised", "l2", AFTER)):
        values = [entry["overall"][how] for entry in ranked]
        figure.add_scatter(
            x=[value["rho"] for value in values],
            y=[entry["criterion"] for entry in ranked],
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
    ranked = sorted(audit["absolute"], key=lambda entry: _or(entry["per_layer"]["rho"], -2))
    names = list(dict.fromkeys(layer for entry in ranked for layer in entry["layers"]))
    colours = []
    for entry in ranked:
        colours.append([entry["layers"].get(name) for name in names])
    figure = go.Figure()
    figure.add_heatmap(
        z=colours,
        x=names,
        y=[entry["criterion"] for entry in ranked],
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
