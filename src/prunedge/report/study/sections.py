"""The sections of a study's page, each only where its data is there. Pure: rows in, titles, notes,
figures and tables out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prunedge.report.html import drawn
from prunedge.report.metric_text import unit_squared
from prunedge.report.study import cost_sections, figures, tables
from prunedge.report.study.cost_sections import BAND
from prunedge.report.study.numbers import FEW_GROUPS, Row, views
from prunedge.report.study.section import Section, StudyRows, views_left_out
from prunedge.report.study.small_networks import small_networks
from prunedge.tasks import Metric

# What answers a kind's question.
LEADS = {
    "crossval": "fractions",
    "epochs": "epochs",
    "criteria": "paired",
    "models": "times",
}


def sections(
    kind: str,
    rows: Sequence[Row],
    axes: Sequence[str],
    metric: Metric,
    benches: Mapping[str, Mapping[str, Any]],
) -> list[Section]:
    """All sections that the rows of finished trials have the data for; what answers the kind's
    question comes first after the summary.
    """
    if not rows:
        return []
    study = StudyRows(rows, axes, metric, benches)
    made = []
    for make in _MAKERS:
        section = make(study)
        if section is not None:
            made.append(section)
    made.sort(key=lambda section: (section.key != "summary", section.key != LEADS.get(kind)))

    numbered = []
    number = 0
    for section in made:
        html = []
        for figure in section.drawings:
            html.append(drawn(figure, number))
            number += 1
        numbered.append(replace(section, html=html))
    return numbered


def _summary(study: StudyRows) -> Section:
    combinations = study.combinations()
    counts = sorted({row["test_images"] for row in study.rows})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    left_out = ""
    if len(combinations) > tables.MOST_LINES:
        left_out = (
            f" The first {tables.MOST_LINES} of {len(combinations)} combinations; study.csv has "
            "all."
        )
    note = (
        f"{study.metric.name} on the test split ({images} images a trial), measured once a trial; "
        "mean ± standard deviation over n folds and seeds; interval: Student's t. Channels: share "
        f"of the unpruned model's prunable channels.{left_out}"
    )
    table = tables.summary_table(combinations)
    return Section("summary", "Every combination, before and after", note, tables=[table])


def _curves(study: StudyRows) -> Section:
    seen, left_out = views(study.rows, study.axes, FEW_GROUPS)
    note = (
        "Validation split; channels: share of the unpruned model's; solid: after fine-tuning, "
        f"dotted: before; {BAND}. Hover for n.{views_left_out(left_out)}"
    )
    title = f"{study.metric.name} against channels pruned"
    return Section("curves", title, note, [figures.curves(seen, study.metric)])


def _fractions(study: StudyRows) -> Section:
    combinations = study.combinations()
    left_out = ""
    if len(combinations) > tables.MOST_TABLES:
        left_out = f" The first {tables.MOST_TABLES} of {len(combinations)} combinations."
    note = (
        "Validation split, accepted steps only, linear between steps. Variance of single trials in "
        f"{unit_squared(study.metric)}, 95 % interval of the mean. "
        f"Where n falls, the mean is over those trials that came so far.{left_out}"
    )
    made = tables.fraction_tables(combinations)
    return Section("fractions", "Mean and variance at each fraction", note, tables=made)


def _stops(study: StudyRows) -> Section:
    seen, left_out = views(study.rows, study.axes)
    note = (
        "One marker a trial: the share of the unpruned model's channels that was gone in "
        f"the model handed over.{views_left_out(left_out)}"
    )
    table = tables.stops_table(study.combinations())
    return Section("stops", "Where the search ended", note, [figures.ends(seen)], [table])


def _paired(study: StudyRows) -> Section | None:
    made = tables.paired_tables(study.rows, study.axes)
    if not made:
        return None
    note = (
        f"Test {study.metric.name} of the models handed over, first minus second, between trials "
        "equal in all else (fold and seed too). Interval: bootstrap of the mean difference. p is "
        "not corrected for the number of comparisons. A difference means little without what was "
        "removed for it."
    )
    return Section("paired", "Paired comparisons", note, tables=made)


def _baselines(study: StudyRows) -> Section | None:
    table = tables.baselines_table(study.combinations())
    if table is None:
        return None
    note = (
        f"Test {study.metric.name}, pruned minus baseline, trial by trial: the same epochs in all, "
        "the same shape or the same number of channels."
    )
    return Section("baselines", "Baselines", note, tables=[table])


_MAKERS: tuple[Callable[[StudyRows], Section | None], ...] = (
    _summary,
    _curves,
    cost_sections.layers,
    cost_sections.epochs,
    cost_sections.times,
    cost_sections.pareto,
    _fractions,
    _stops,
    _paired,
    _baselines,
    small_networks,
)
