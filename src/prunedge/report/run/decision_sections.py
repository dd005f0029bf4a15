"""What is found and what is missed, as the page shows it: the first screen and the sections that
follow, as plain values for the templates. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunedge.report.decision_text import (
    TITLES,
    asked_in_words,
    calibration_in_words,
    constant_in_words,
    cost_interval_in_words,
    damage_in_words,
    found_in_words,
    interval_in_words,
    kept_in_words,
    per_unit,
    percent,
    short_rate,
)
from prunedge.report.html import drawn
from prunedge.report.run import decision_figures as figures
from prunedge.runs.decision_rates import (
    Rate,
    decisions_in,
    false_alarm_rate,
    most_frequent,
    rate,
    recall,
    result_of,
    shown_of,
)
from prunedge.runs.decision_record import CountsRecord, DecisionRecord
from prunedge.tasks import Table
from prunedge.utils.wording import counted, figure

MOST_THRESHOLDS = 300  # that the slider can stand at


@dataclass(frozen=True)
class Bar:
    """A bar of the first screen: of `total`, so many are `good` and the others `bad`; `words` are
    what these are called.
    """

    title: str
    kind: str
    good: int
    bad: int
    words: tuple[str, str]
    rate: str
    interval: str

    @property
    def share(self) -> float:
        """How much of it is good, in percent."""
        return 100 * self.good / max(self.good + self.bad, 1)


@dataclass(frozen=True)
class Panel:
    """What one model finds and misses: the sentence, its bars, whether it kept the rule, and what
    its mistakes cost with the interval of that; both empty where nobody said what they cost.
    """

    title: str
    sentence: str
    bars: tuple[Bar, ...]
    kept: tuple[str, ...]
    cost: str = ""
    cost_interval: str = ""


def decision_of(
    test: Mapping[str, Any] | None, classes: Sequence[str], *, is_pruned: bool = True
) -> dict[str, Any] | None:
    """Everything that the page shows of the decisions; None where there are none. Where nothing
    `is_pruned`, the result is the model that it started from.
    """
    decisions = shown_of(decisions_in(test), is_pruned=is_pruned)
    if not decisions:
        return None
    result, best = result_of(decisions)
    return {
        "titles": TITLES,
        "headline": _headline(best),
        "before": _before(decisions) if is_pruned else "",
        "damage": damage_in_words(best),
        "panels": [_panel(TITLES[name], record) for name, record in decisions.items()],
        "constant": constant_in_words(most_frequent(best, classes), best),
        "asked": asked_in_words(best, result),
        "unit": best.unit,
        "curves": curves_of(decisions),
        "kept_thresholds": _kept_thresholds(decisions),
        "figures": {
            "precision-recall": drawn(figures.precision_recall(decisions), "precision-recall"),
            "roc": drawn(figures.roc(decisions), "roc"),
            "reliability": drawn(figures.reliability(decisions), "reliability"),
        },
        "calibration": [_calibration(name, record) for name, record in decisions.items()],
        "worse": calibration_in_words(decisions),
        "usual": [_usual(name, record) for name, record in decisions.items()],
        "tables": {
            TITLES[name]: confusion_of(record, classes)
            for name, record in decisions.items()
            if record.confusion is not None
        },
        "classes": classes_of(decisions, classes),
    }


def curves_of(decisions: figures.Decisions) -> dict[str, Any]:
    """What the slider needs, as JSON: the thresholds that it can stand at, from the lowest up, and
    each model's curve.
    """
    models = []
    thresholds: set[float] = set()
    for name, record in decisions.items():
        curve = figures.thinned(record.curve)
        damaged, sound = figures.totals(record)
        thresholds |= set(curve.thresholds)
        models.append(
            {
                "title": TITLES[name],
                "threshold": record.threshold,
                "damaged": damaged,
                "sound": sound,
                "found": record.test.found,
                "alarms": record.test.alarms,
                "curve": curve.model_dump(),
            }
        )
    ordered = sorted(thresholds)
    step = max(1, -(-len(ordered) // MOST_THRESHOLDS))
    return {"thresholds": ordered[::step], "models": models}


def _kept_thresholds(decisions: figures.Decisions) -> int | None:
    """How many thresholds a curve has, where it has not all of them; None where all have all."""
    fewer = []
    for record in decisions.values():
        count = len(figures.thinned(record.curve).thresholds)
        if count < sum(figures.totals(record)):
            fewer.append(count)
    return min(fewer, default=None)


def confusion_of(record: DecisionRecord, classes: Sequence[str]) -> Table:
    """What the images of each class were taken for at the operating point."""
    rows = []
    for name, counts in zip(classes, record.confusion or [], strict=True):
        rows.append((name, *(f"{count:,}" for count in counts)))
    return Table("truth \\ answer", tuple(classes), tuple(rows), is_confusion=True)


def classes_of(decisions: figures.Decisions, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Each class at the operating point: its images, and of each model the share of them that is
    answered right and the share of such answers that is right.
    """
    listed = []
    for index, name in enumerate(classes):
        cells = []
        images = None
        for record in decisions.values():
            if record.confusion is None:
                continue
            row = record.confusion[index]
            images = sum(row)
            answered = sum(line[index] for line in record.confusion)
            cells.append(short_rate(rate(row[index], images)))
            cells.append(short_rate(rate(row[index], answered)))
        if images is not None:
            listed.append({"name": name, "images": images, "cells": cells})
    return listed


def _headline(record: DecisionRecord) -> str:
    """The page's title."""
    counts = record.test
    nouns = {
        "image": ("damaged images", "sound ones"),
        "label": ("labels of damage", "that are not there"),
    }
    damaged, sound = nouns[record.unit]
    return (
        f"finds {counts.found:,} of {figures.damaged_in(counts):,} {damaged}, with "
        f"{counted(counts.alarms, 'false alarm')} among {figures.sound_in(counts):,} {sound}"
    )


def _before(decisions: figures.Decisions) -> str:
    """What the unpruned model finds, in half a sentence."""
    if "baseline" not in decisions:
        return ""
    counts = decisions["baseline"].test
    return f"found {counts.found:,}, with {counted(counts.alarms, 'false alarm')}"


def _panel(title: str, record: DecisionRecord) -> Panel:
    counts = record.test
    return Panel(
        title=title,
        sentence=found_in_words(record, counts),
        bars=(_damage_bar(record, counts), _sound_bar(record, counts)),
        kept=tuple(kept_in_words(record)),
        cost="" if record.cost is None else f"cost {per_unit(record.cost.value, record.unit)}",
        cost_interval="" if record.cost is None else cost_interval_in_words(record.cost),
    )


def _damage_bar(record: DecisionRecord, counts: CountsRecord) -> Bar:
    title = counted(figures.damaged_in(counts), "damaged image")
    if record.unit == "label":
        title = counted(figures.damaged_in(counts), "label of damage", "labels of damage")
    share = recall(counts)
    return Bar(
        title,
        "damage",
        counts.found,
        counts.missed,
        ("found", "missed"),
        f"recall {_value(share)}",
        _interval(share),
    )


def _sound_bar(record: DecisionRecord, counts: CountsRecord) -> Bar:
    title = counted(figures.sound_in(counts), "sound image")
    if record.unit == "label":
        title = counted(figures.sound_in(counts), "label that is not there", "labels not there")
    share = false_alarm_rate(counts)
    return Bar(
        title,
        "sound",
        counts.quiet,
        counts.alarms,
        ("quiet", "false alarm" if counts.alarms == 1 else "false alarms"),
        f"false alarm rate {_value(share)}",
        _interval(share),
    )


def _value(share: Rate | None) -> str:
    return "not defined" if share is None else percent(share.value)


def _interval(share: Rate | None) -> str:
    return "" if share is None else interval_in_words(share)


def _calibration(name: str, record: DecisionRecord) -> dict[str, str]:
    """A row of the table of calibration errors."""
    errors = (record.validation_error, record.test_error)
    cells = {}
    for split, error in zip(("validation", "test"), errors, strict=True):
        cells[split] = f"{percent(error.raw)} → {percent(error.calibrated)}"
    return {"title": TITLES[name], "temperature": figure(record.temperature), **cells}


def _usual(name: str, record: DecisionRecord) -> str:
    """What the most probable answer would find, without a threshold."""
    return f"{TITLES[name]}: {found_in_words(record, record.usual)}"
