"""The first screen of a run's page: before and after, in cards and in a line for each reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunedge.edge.bench.ratios import in_words, speed_of
from prunedge.edge.tasks.by_class import USUAL_THRESHOLD
from prunedge.edge.tasks.classification import COST
from prunedge.pruning.steps import Step
from prunedge.report.metric_text import change_number, change_text
from prunedge.runs.chain import Reference
from prunedge.runs.decision_rates import decisions_in
from prunedge.tasks import Metric
from prunedge.utils.wording import (
    amount,
    amounts,
    counted,
    figure,
    first_of,
    is_hardly,
    megabytes,
    megabytes_pair,
    times,
    times_words,
)

SIZE_NOTE = "float32 weights, 1 MB = 10⁶ bytes"
WORK_NOTE = "multiply-accumulates for one image"


def card(name: str, before: str, after: str, change: str, note: str) -> dict[str, str]:
    """A card of the first screen."""
    return {"name": name, "before": before, "after": after, "change": change, "note": note}


def cards(
    first: Step,
    best: Step,
    metric: Metric,
    test: Mapping[str, Any] | None,
    bench: Mapping[str, Any] | None,
    latency: Mapping[str, Any] | None = None,
    *,
    leads: bool = True,
    has_test: bool = True,
) -> list[dict[str, str]]:
    """The before/after figures of the first screen: name, before, after, change, and what was
    measured where. The time is that of a `bench`, else what the device that steered took. The
    metric `leads`, or comes last. Of the user's own training nobody `has_test` images.
    """
    size_before, size_after = megabytes_pair(first.size_mb, best.size_mb)
    work_before, _, work_after = amounts(first.macs, best.macs, between="→").partition("→")
    made = [
        card(
            "size",
            f"{size_before} MB",
            f"{size_after} MB",
            times_words(first.size_mb / best.size_mb, "smaller", "×"),
            SIZE_NOTE,
        ),
        card(
            "work",
            work_before,
            work_after,
            times_words(first.macs / best.macs, "less", "×"),
            WORK_NOTE,
        ),
    ]
    if bench and bench.get("ratios"):
        made.append(_time_card(bench))
    elif first.latency_ms and best.latency_ms:
        made.append(_steered_card(first.latency_ms, best.latency_ms, latency))
    judged = [_metric_card(first, best, metric, test, has_test=has_test)]
    cost = _cost_card(test)
    if cost is not None:
        # What the metric `cost` says of the test split is the cost at its own best threshold.
        judged = [cost] if metric.name == COST else [cost, *judged]
    return [*judged, *made] if leads else [*made, *judged]


def cards_of_training(step: Step, metric: Metric) -> list[dict[str, str]]:
    """The same of a model that was trained, and not pruned yet."""
    note = "validation split; the test split is kept for the result of a pruning"
    return [
        card(metric.name, "", "", metric.text(step.metric_after), note),
        card("size", "", "", f"{megabytes(step.size_mb)} MB", SIZE_NOTE),
        card("work", "", "", amount(step.macs), WORK_NOTE),
    ]


def against(
    references: Sequence[Reference], best: Step, metric: Metric, test: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """What the result has over each model that it is compared with, in a line; nothing where
    there is only the unpruned one.
    """
    if len(references) < 2:
        return []
    lines = []
    for reference in references:
        step = reference.step
        change = change_text(metric, step.metric_after, best.metric_after)
        text = f"{saved(step, best)}, {metric.name} {change} on validation data"
        if test:
            before = test[reference.tested][metric.name]
            change = change_number(metric, before, test["best"][metric.name])
            text += f", {change} on test data"
        lines.append({"name": reference.name, "text": text})
    return lines


def saved(first: Step, best: Step) -> str:
    """What the result saves, in the page's title: `4.2 × less work, 3.0 × smaller`, led by how much
    faster it is where a device timed it; that nothing is smaller where no pruned model kept the
    rule.
    """
    work = first.macs / best.macs
    size = first.size_mb / best.size_mb
    ratios = ((work, "less work"), (size, "smaller"))
    told = [f"{times(ratio)} × {word}" for ratio, word in ratios if not is_hardly(ratio)]
    if first.latency_ms and best.latency_ms and first.latency_ms > best.latency_ms:
        told.insert(0, in_words(first.latency_ms / best.latency_ms, sign="×"))
    return ", ".join(told) or "nothing smaller kept the rule"


def _metric_card(
    first: Step, best: Step, metric: Metric, test: Mapping[str, Any] | None, *, has_test: bool
) -> dict[str, str]:
    if test:
        before = test["baseline"][metric.name]
        after = test["best"][metric.name]
        note = f"test split, {counted(test['best']['n'], 'image')}, {_looks(test)}"
    else:
        before = first.metric_after
        after = best.metric_after
        note = "validation split; the test split is measured at the run's end"
        if not has_test:
            note = "what evaluate gives; nobody has looked at test data of yours"
    if metric.is_at_best:
        note += "; each at the best threshold of these very images, which no device knows"
    change = change_text(metric, before, after)
    return card(metric.name, metric.text(before), metric.text(after), change, note)


def _cost_card(test: Mapping[str, Any] | None) -> dict[str, str] | None:
    """What mistakes cost on the test split at the thresholds that validation images chose; None
    where nobody said what they cost.
    """
    decisions = decisions_in(test)
    if test is None or not {"baseline", "best"} <= set(decisions):
        return None
    before = decisions["baseline"].cost
    after = decisions["best"].cost
    if before is None or after is None:
        return None
    unit = decisions["best"].unit
    chosen = "at the thresholds that validation images chose"
    if not decisions["best"].rule:
        chosen = f"at the usual threshold of {USUAL_THRESHOLD:g}, as no rule was given"
    note = (
        f"test split, {counted(test['best']['n'], 'image')}, {_looks(test)}, {chosen}: a miss "
        f"costs {after.miss:g}, a false alarm {after.alarm:g}; 95 % intervals "
        f"{figure(before.low)} to {figure(before.high)} → {figure(after.low)} to "
        f"{figure(after.high)}"
    )
    change = figure(after.value - before.value, signed=True)
    title = f"cost of {'an' if unit == 'image' else 'a'} {unit}"
    return card(title, figure(before.value), figure(after.value), change, note)


def _looks(test: Mapping[str, Any]) -> str:
    """How often the test split was looked at."""
    before = test.get("looks_before", 0)
    if not before:
        return "measured once"
    return f"looked at {counted(before, 'time')} before the run went on"


def _steered_card(
    before_ms: float, after_ms: float, latency: Mapping[str, Any] | None
) -> dict[str, str]:
    """The time on the device that steered; `latency` is what it was measured with, as latency.json
    has it.
    """
    note = "measured on the device while pruning"
    if latency is not None:
        note = f"{timed_on(latency)}; {note}"
    before = f"{before_ms:.3g} ms"
    after = f"{after_ms:.3g} ms"
    change = "unchanged"
    if before_ms != after_ms:
        change = in_words(before_ms / after_ms, sign="×")
    return card("time for an image", before, after, change, note)


def timed_on(latency: Mapping[str, Any]) -> str:
    """What latency.json's times were measured with: processor, runtime, threads."""
    table = latency["table"]
    processor = table["device"].get("processor", latency["address"])
    return f"{processor}, {table['runtime']}, {counted(table['threads'], 'thread')}, batch 1"


def _time_card(bench: Mapping[str, Any]) -> dict[str, str]:
    speed = speed_of(bench)
    threads = counted(bench["threads"], "thread")
    note = (
        f"{bench['device']['processor']}, {bench['bundles'][1]['runtime']}, {threads}, batch "
        f"{bench['batch']}, {counted(bench['patches'], 'patch', 'patches')}; "
        f"medians; ratio over interleaved blocks {speed.bounds()}"
    )
    if float_layers := bench["bundles"][1].get("float_layers"):
        note += f"; layers left in float: {first_of(float_layers)}"
    title = "time for an image" if bench["batch"] == 1 else f"time for {bench['batch']} images"
    before = f"{speed.before_ms:.2f} ms"
    after = f"{speed.after_ms:.2f} ms"
    return card(title, before, after, speed.words("×"), note)
