"""The figures of a decision between damaged and sound: what other thresholds would find, and
whether the probabilities can be believed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from prunedge.report.decision_text import TITLES, threshold_text
from prunedge.report.run.figures import AFTER, BEFORE, MUTED, styled
from prunedge.runs.decision_rates import rate, result_of
from prunedge.runs.decision_record import (
    CountsRecord,
    CurveRecord,
    DecisionRecord,
    ReliabilityRecord,
)

COLOURS = {"baseline": BEFORE, "start": "#8c6bb1", "best": AFTER}
MOST_POINTS = 400  # of a curve: more are no finer to see, and a page of megabytes to open
HEIGHT = 380
RECALL = "recall: damage that is found (%)"

Decisions = Mapping[str, DecisionRecord]


def thinned(curve: CurveRecord, most: int = MOST_POINTS) -> CurveRecord:
    """A curve of at most so many points, the first and the last among them."""
    count = len(curve.thresholds)
    if count <= most:
        return curve
    kept = sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
    return CurveRecord(
        thresholds=[curve.thresholds[place] for place in kept],
        found=[curve.found[place] for place in kept],
        alarms=[curve.alarms[place] for place in kept],
    )


def precision_recall(decisions: Decisions) -> go.Figure:
    """How many of those called damaged are, against how much of the damage is found."""
    figure = go.Figure()
    for name, record in decisions.items():
        damaged, _ = totals(record)
        curve = thinned(record.curve)
        points = []
        for threshold, found, alarms in zip(*_lists(curve), strict=True):
            if found + alarms:
                points.append(
                    (_percent(found, damaged), _percent(found, found + alarms), threshold)
                )
        _add_curve(figure, name, points, shape="vh")
        test = record.test
        called = test.found + test.alarms
        x = _percent(test.found, damaged)
        _add_point(figure, name, x, _percent(test.found, called), record.threshold)
    _, result = result_of(decisions)
    damaged, sound = totals(result)
    _add_chance(figure, [0, 100], [_percent(damaged, damaged + sound)] * 2)
    styled(
        figure, "recall: damage that is found (%)", "precision: alarms that are right (%)", HEIGHT
    )
    return _in_percent(figure)


def roc(decisions: Decisions) -> go.Figure:
    """How much of the damage is found, against how many of the sound are called damaged."""
    figure = go.Figure()
    for name, record in decisions.items():
        damaged, sound = totals(record)
        points = [(0.0, 0.0, 1.0)]
        for threshold, found, alarms in zip(*_lists(thinned(record.curve)), strict=True):
            points.append((_percent(alarms, sound), _percent(found, damaged), threshold))
        _add_curve(figure, name, points, shape="linear")
        test = record.test
        x = _percent(test.alarms, sound)
        _add_point(figure, name, x, _percent(test.found, damaged), record.threshold)
    _add_chance(figure, [0, 100], [0, 100])
    styled(figure, "false alarm rate (%)", RECALL, HEIGHT)
    return _in_percent(figure)


def reliability(decisions: Decisions) -> go.Figure:
    """How many of the images with about the same probability of damage are damaged."""
    figure = go.Figure()
    for name, record in decisions.items():
        bins = [one for one in record.reliability if one.count]
        paired = [(one, _bounds(one)) for one in bins]
        figure.add_scatter(
            x=[100 * one.predicted for one in bins],
            y=[100 * one.damaged for one in bins],
            name=TITLES[name],
            mode="lines+markers",
            line={"color": COLOURS[name], "width": 1.5},
            marker={"size": 8},
            error_y={
                "type": "data",
                "symmetric": False,
                "thickness": 1,
                "array": [high - 100 * one.damaged for one, (_, high) in paired],
                "arrayminus": [100 * one.damaged - low for one, (low, _) in paired],
            },
            text=[f"{one.count:,}" for one in bins],
            hovertemplate="%{text} with a probability of about %{x:.0f} %: %{y:.0f} % are damaged"
            f"<extra>{TITLES[name]}</extra>",
        )
    _add_chance(figure, [0, 100], [0, 100], "as they should be")
    styled(figure, "probability of damage (%)", "of these are damaged (%)", HEIGHT)
    return _in_percent(figure)


def _bounds(one: ReliabilityRecord) -> tuple[float, float]:
    """The 95 % interval, in percent, of the share of damaged ones."""
    share = rate(round(one.count * one.damaged), one.count)
    assert share is not None
    return 100 * share.low, 100 * share.high


def totals(record: DecisionRecord) -> tuple[int, int]:
    """How many are damaged and how many sound on the test split."""
    return damaged_in(record.test), sound_in(record.test)


def damaged_in(counts: CountsRecord) -> int:
    """How many are damaged."""
    return counts.found + counts.missed


def sound_in(counts: CountsRecord) -> int:
    """How many are sound."""
    return counts.alarms + counts.quiet


def _lists(curve: CurveRecord) -> tuple[list[float], list[int], list[int]]:
    return curve.thresholds, curve.found, curve.alarms


def _add_curve(
    figure: go.Figure, name: str, points: list[tuple[float, float, float]], shape: str
) -> None:
    """A model's curve through (x, y, threshold)."""
    figure.add_scatter(
        x=[x for x, _, _ in points],
        y=[y for _, y, _ in points],
        text=[f"{threshold_text(threshold)}" for _, _, threshold in points],
        name=TITLES[name],
        mode="lines",
        line={"color": COLOURS[name], "width": 2.5, "shape": shape},
        hovertemplate="at least %{text}: %{x:.1f} %, %{y:.1f} %"
        f"<extra>{TITLES[name]}</extra>",
    )


def _add_point(figure: go.Figure, name: str, x: float, y: float, threshold: float) -> None:
    """A model's operating point, and one that the page's slider moves."""
    figure.add_scatter(
        x=[x],
        y=[y],
        name=f"{TITLES[name]}: operating point",
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": 13,
            "color": COLOURS[name],
            "line": {"color": "white", "width": 1.5},
        },
        showlegend=False,
        hovertemplate=f"operating point ({threshold_text(threshold)}): %{{x:.1f}} %, %{{y:.1f}} %"
        f"<extra>{TITLES[name]}</extra>",
    )
    figure.add_scatter(
        x=[x],
        y=[y],
        name=f"{TITLES[name]}: slider",
        mode="markers",
        marker={
            "symbol": "circle-open",
            "size": 12,
            "color": COLOURS[name],
            "line": {"width": 3},
        },
        showlegend=False,
        visible=False,
        hoverinfo="skip",
    )


def _add_chance(figure: go.Figure, x: list[float], y: list[float], name: str = "by chance") -> None:
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        mode="lines",
        line={"color": MUTED, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )


def _in_percent(figure: go.Figure) -> go.Figure:
    """Both axes from 0 to 100."""
    figure.update_xaxes(range=[-2, 102])
    figure.update_yaxes(range=[-2, 102])
    return figure


def _percent(count: int, total: int) -> float:
    return 100 * count / total if total else 0.0
