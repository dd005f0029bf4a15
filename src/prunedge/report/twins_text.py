"""Test images that look like training or validation images, in sentences that the command line and
the page share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunedge.config import RunConfig
from prunedge.report.decision_text import found_in_words
from prunedge.report.metric_text import metric_of
from prunedge.runs.data_record import NAME, DataRecord
from prunedge.runs.decision_rates import decisions_in
from prunedge.runs.decision_record import CountsRecord
from prunedge.runs.run import Run
from prunedge.utils.advice import option
from prunedge.utils.wording import counted


def twins_in_words(config: RunConfig, test: Mapping[str, Any] | None) -> list[str]:
    """How many test images have a twin elsewhere, and the figures without them, if any has."""
    twins = (test or {}).get("twins")
    if not test or not twins:
        return []
    metric = metric_of(config)
    figures = []
    values = [twins["without"].get(name, {}).get(metric.name) for name in ("baseline", "best")]
    decisions = decisions_in(test)
    decided = (twins.get("decided") or {}).get("best")
    if None not in values:
        before, after = map(metric.text, values)
        at_best = " at its best threshold" if metric.is_at_best else ""
        figures.append(f"{metric.name}{at_best} {before} -> {after}")
    if decisions and decided:
        counts = CountsRecord(**decided)
        figures.append(f"at the operating point {found_in_words(decisions['best'], counts)}")
    return [_twins_line(twins["count"], test["best"]["n"], figures)]


def twins_of_training(run: Run) -> list[str]:
    """How many test images of a training have a twin elsewhere, if any has."""
    record = run.read_as(NAME, DataRecord.model_validate)
    if record is None or record.twins is None or not record.twins.count:
        return []
    return [_twins_line(record.twins.count, record.images["test"], [])]


def _twins_line(count: int, images: int, figures: Sequence[str]) -> str:
    line = (
        f"{count:,} of {counted(images, 'test image')} {'looks' if count == 1 else 'look'} like "
        "one that the model learned from or was chosen by"
    )
    if figures:
        line += f": without them {'; '.join(figures)}"
    keeps = f"{option('group_by', 'similar')} keeps them on one side"
    return f"{line}; if they show the same thing, {keeps}"
