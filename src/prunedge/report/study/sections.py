"""The sections of a study's page, each only where its data is there. Pure: rows in, titles, notes,
figures and tables out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from prunedge.report.html import drawn
from prunedge.report.study import figures, tables, talk
from prunedge.report.study.numbers import (
    FEW_GROUPS,
    MOST_GROUPS,
    Place,
    Row,
    end,
    end_places,
    groups,
    mean_places,
    step_places,
    time_ratios,
    views,
)
from prunedge.report.study.tables import Table
from prunedge.study.statistics import spread

MOST_MODELS = 8
LEADS = {
    "crossval": "fractions",
    "epochs": "epochs",
    "criteria": "paired",
    "models": "times",
}  # what answers a kind's question
_BAND = (
    "mean over the finished trials that reached a fraction with accepted steps, as far as half of "
    "them came; linear between steps; "
    "band: one standard deviation"
)


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    note: str
    drawings: Sequence[go.Figure] = ()
    tables: Sequence[Table] = ()
    talk: str = ""
    lines: Sequence[str] = ()
    html: Sequence[Markup] = field(default=())


@dataclass(frozen=True)
class _Given:
    rows: Sequence[Row]
    axes: Sequence[str]
    metric: str
    benches: Mapping[str, Mapping[str, Any]]


def sections(
    kind: str,
    rows: Sequence[Row],
    axes: Sequence[str],
    metric: str,
    benches: Mapping[str, Mapping[str, Any]],
) -> list[Section]:
    """All sections that the rows of finished trials have the data for; what answers the kind's
    question comes first after the summary.
    """
    if not rows:
        return []
    given = _Given(rows, axes, metric, benches)
    made = [section for make in _MAKERS if (section := make(given)) is not None]
    made.sort(key=lambda one: (one.key != "summary", one.key != LEADS.get(kind)))
    if kind == "talk":
        made = [_talk(given), *(replace(one, talk=talk.SAID.get(one.key, "")) for one in made)]
    found, number = [], 0
    for one in made:
        found.append(
            replace(
                one,
                html=[drawn(figure, number + place) for place, figure in enumerate(one.drawings)],
            )
        )
        number += len(one.drawings)
    return found


def _summary(given: _Given) -> Section:
    found = groups(given.rows, given.axes)
    counts = sorted({row["test_images"] for row in given.rows})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    left = (
        f" The first {tables.MOST_LINES} of {len(found)} combinations; study.csv has all."
        if len(found) > tables.MOST_LINES
        else ""
    )
    note = (
        f"{given.metric} on the test split ({images} images a trial), measured once a trial; "
        "mean ± standard deviation over n folds "
        "and seeds; interval: Student's t. Channels: share of the unpruned model's prunable "
        f"channels.{left}"
    )
    return Section(
        "summary", "Every combination, before and after", note, tables=[tables.summary_table(found)]
    )


def _curves(given: _Given) -> Section:
    seen, left = views(given.rows, given.axes, FEW_GROUPS)
    note = (
        "Validation split; channels: share of the unpruned model's; solid: after fine-tuning, "
        f"dotted: before; {_BAND}. "
        f"Hover for n.{_left(left)}"
    )
    return Section(
        "curves",
        f"{given.metric} against channels pruned",
        note,
        [figures.curves(seen, given.metric)],
    )


def _layers(given: _Given) -> Section:
    models = groups(given.rows, ["model"])
    drawings, lines = [], []
    for model, trials in list(models.items())[:MOST_MODELS]:
        seen, left = views(
            [row for trial in trials for row in trial],
            [axis for axis in given.axes if axis != "model"],
        )
        drawings.append(figures.layers(seen))
        lines.append(model + _left(left))
    more = (
        f" {len(models) - MOST_MODELS} more models are in the table."
        if len(models) > MOST_MODELS
        else ""
    )
    note = (
        "Share of its channels that each layer kept in the model handed over, mean over "
        f"folds and seeds; in the model's order.{more}"
    )
    return Section("layers", "Filters left in each layer", note, drawings, lines=lines)


def _epochs(given: _Given) -> Section | None:
    if "epochs" not in given.axes:
        return None
    rest = [axis for axis in given.axes if axis != "epochs"]
    contexts = {
        name: groups([row for t in trials for row in t], ["epochs"])
        for name, trials in groups(given.rows, rest).items()
    }
    shown = {
        name: dict(sorted(found.items(), key=_number))
        for name, found in list(contexts.items())[:MOST_GROUPS]
    }
    took = {
        name: {epochs: spread(seconds) for epochs, (seconds, _) in several.items()}
        for name, several in list(time_ratios(given.rows, given.axes).items())[:MOST_GROUPS]
    }
    note = (
        f"First figure: validation split, after fine-tuning; {_BAND}. Times: wall-clock seconds of "
        "all steps, also those taken back, on "
        "the machine that pruned; ratios between trials equal in all else, mean ± standard "
        f"deviation.{_left(len(contexts) - len(shown))}"
    )
    made = [figures.curves(shown, given.metric, ("after",)), figures.times(took)]
    return Section(
        "epochs",
        "Sensitivity to the epochs of fine-tuning",
        note,
        made,
        [tables.epochs_table(given.rows, given.axes)],
    )


def _times(given: _Given) -> Section | None:
    names = _names(given)
    benches = {trial: bench for trial, bench in given.benches.items() if trial in names}
    if not benches:
        return None
    note = (
        "One trial of each combination, unpruned → pruned, measured interleaved; range: 10th "
        "to 90th percentile of the blocks."
    )
    clouds = {}
    for data, trials in groups(given.rows, ["data"]).items():
        places = [
            Place(
                best[f"latency_ms_{which}"],
                best[f"test_{which}"],
                1,
                f"{names[best['trial']]}, {said}",
            )
            for trial in trials
            if (best := end(trial))["trial"] in benches
            for which, said in (("baseline", "unpruned"), ("best", "pruned"))
        ]
        if places:
            pruned = [place for place in places if place.text.endswith(", pruned")]
            clouds[data] = ([place for place in places if place not in pruned], places, pruned)
    drawing = figures.pareto(
        clouds, "milliseconds for a batch (log)", f"test {given.metric} (%)", faint_name="unpruned"
    )
    return Section(
        "times", "Time and memory", note, [drawing], [tables.times_table(names, benches)]
    )


def _pareto(given: _Given) -> Section:
    drawings = []
    inner = [axis for axis in given.axes if axis != "data"]
    for cost, title, per in (
        ("macs", "million MACs, one image (log)", 1e6),
        ("size_mb", "size (MB, log)", 1),
    ):
        clouds = {}
        for data, trials in groups(given.rows, ["data"]).items():
            found = groups([row for trial in trials for row in trial], inner)
            clouds[data] = (
                step_places(trials, cost),
                [*mean_places(found, cost), *(given_over := end_places(found, cost))],
                given_over,
            )
        drawings.append(figures.pareto(clouds, title, f"validation {given.metric} (%)", per))
    note = (
        "Validation split, after fine-tuning. Grey: accepted steps of single trials, those close "
        "together as one larger marker. Diamonds: "
        "the mean of what each combination's trials handed over. The front is over these and the "
        "means at fractions that all trials of a "
        "combination reached, so that no single lucky trial makes it."
    )
    return Section("pareto", f"{given.metric} against MACs and size", note, drawings)


def _fractions(given: _Given) -> Section:
    found = groups(given.rows, given.axes)
    left = (
        f" The first {tables.MOST_TABLES} of {len(found)} combinations."
        if len(found) > tables.MOST_TABLES
        else ""
    )
    note = (
        "Validation split, accepted steps only, linear between steps. Variance of single trials in "
        "points², 95 % interval of the mean. "
        f"Where n falls, the mean is over those trials that came so far.{left}"
    )
    return Section(
        "fractions",
        "Mean and variance at each fraction",
        note,
        tables=tables.fraction_tables(found),
    )


def _stops(given: _Given) -> Section:
    seen, left = views(given.rows, given.axes)
    note = (
        "One marker a trial: the share of the unpruned model's channels that was gone in "
        f"the model handed over.{_left(left)}"
    )
    table = tables.stops_table(groups(given.rows, given.axes))
    return Section("stops", "Where the search ended", note, [figures.ends(seen)], [table])


def _paired(given: _Given) -> Section | None:
    made = tables.paired_tables(given.rows, given.axes)
    note = (
        f"Test {given.metric} of the models handed over, first minus second, between trials "
        "equal in all else (fold and seed too). "
        "Interval: bootstrap of the mean difference. p is not corrected for the number of "
        "comparisons. "
        "A difference means little without what was removed for it."
    )
    return Section("paired", "Paired comparisons", note, tables=made) if made else None


def _baselines(given: _Given) -> Section | None:
    table = tables.controls_table(groups(given.rows, given.axes))
    note = (
        f"Test {given.metric}, pruned minus baseline, trial by trial: the same epochs in all, "
        "the same shape or the same number of channels."
    )
    return Section("baselines", "Baselines", note, tables=[table]) if table else None


def _talk(given: _Given) -> Section:
    found = groups(given.rows, given.axes)
    table = talk.beside(given.rows, given.axes, found, given.benches, _names(given))
    note = (
        "The talk's figures stand beside ours for orientation: they can't be compared where "
        "images, sizes, weights or devices differ."
    )
    return Section(
        "talk",
        "The talk beside this study",
        note,
        tables=[table],
        lines=talk.differs(given.rows, given.benches),
    )


def _names(given: _Given) -> dict[str, str]:
    return {
        trial[0]["trial"]: name
        for name, trials in groups(given.rows, given.axes).items()
        for trial in trials
    }


def _left(count: int) -> str:
    return f" {count} more views are left out; the table has all." if count > 0 else ""


def _number(item: tuple[str, Any]) -> int:
    return int(item[0].split()[-1])


# In the order of the talk's results.
_MAKERS: tuple[Callable[[_Given], Section | None], ...] = (
    _summary,
    _curves,
    _layers,
    _epochs,
    _times,
    _pareto,
    _fractions,
    _stops,
    _paired,
    _baselines,
)
