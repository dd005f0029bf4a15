"""The parts of a run's page below its first screen, as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from prunedge.config import RunConfig
from prunedge.edge.tasks.metric import Drop
from prunedge.latency.side_by_side import Milliseconds
from prunedge.models import Loaded
from prunedge.pruning.from_config import max_drop_of
from prunedge.pruning.steps import Step
from prunedge.report.html import drawn
from prunedge.report.metric_text import metric_of, value_text
from prunedge.report.run import audit_figures, figures, learning_figures, time_figures
from prunedge.report.run.cards import timed_on
from prunedge.report.steps_text import name_of
from prunedge.report.text import ms_text
from prunedge.runs.compared import Compared, compared, times
from prunedge.runs.learning import learned
from prunedge.runs.profile import OTHER, bench_profile_of, profile_of
from prunedge.runs.run import Run
from prunedge.runs.task import task_of
from prunedge.runs.training import ended_early, taught
from prunedge.tasks import Metric, Metrics, Table, metric_named
from prunedge.train import Rate
from prunedge.train.collapse import one_class_warning
from prunedge.utils.sanitize import by_kind
from prunedge.utils.wording import amount, counted, megabytes

LEAST_S = 0.005  # of a part of a part: less would be printed as nothing

# The models that the test split is looked at with, in this order.
TESTED = ("baseline", "start", "best")

# A figure with its title and what it is of.
Titled = tuple[str, str, go.Figure]


def figures_of(
    steps: Sequence[Step],
    best: Step,
    config: RunConfig,
    audit: Mapping[str, Any] | None,
    latency: Mapping[str, Any] | None,
    *,
    knows_rule: bool = True,
) -> list[dict[str, Any]]:
    """The figures for which there is something to show: title, note, html. They show the rule
    where the config `knows_rule`, and does not have its default alone.
    """
    metric = metric_of(config)
    max_drop = max_drop_of(config) if knows_rule else None
    made: list[Titled] = []
    # Of a model that nothing was removed from, nothing went anywhere.
    if len(steps) > 1:
        made += _of_steps(steps, best, metric, max_drop)
    if latency is not None and all(step.latency_ms for step in steps):
        made += _of_latency(steps, metric, max_drop, latency)
    if audit is not None:
        made += _of_audit(audit)
    listed = []
    for number, (title, note, figure) in enumerate(made):
        listed.append({"title": title, "note": note, "html": drawn(figure, number)})
    return listed


def time_of_steps(steps: Sequence[Step]) -> dict[str, Any]:
    """Where the time went, as far as the history tells it of each step."""
    figure = drawn(time_figures.seconds(steps), "time") if len(steps) > 1 else None
    return {"profile": None, "rows": [], "figure": figure}


def time_of_run(run: Run, steps: Sequence[Step]) -> dict[str, Any]:
    """Where the time went: what each part took when the run was profiled, else what its history
    tells of each step.
    """
    profile = profile_of(run.path)
    if profile is None:
        return time_of_steps(steps)
    rest = {
        "part": OTHER,
        "seconds": profile["unaccounted_s"],
        "share": profile["unaccounted_share"],
        "within": [],
    }
    rows = []
    for part in [*profile["parts"], rest]:
        spans = part["within"]
        seen = [span for span in spans if span["seconds"] >= LEAST_S]
        rows.append({**part, "within": seen, "places": spans})
    figure = drawn(time_figures.time_by_part(profile), "time")
    return {"profile": profile, "rows": rows, "figure": figure}


def learning_of(run: Run, steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The learning curves of the first training and each fine-tuning, with what is read in them;
    none of a run that kept no epochs, or one alone.
    """
    epochs = learned(run)
    if sum(map(len, epochs.values())) < 2:
        return []
    metric = metric_of(run.config)
    loss = learning_figures.loss_by_epoch(steps, epochs)
    judged = learning_figures.metric_by_epoch(steps, epochs, metric)
    return [
        {"title": "loss", "html": drawn(loss, "loss")},
        {"title": metric.name, "html": drawn(judged, "metric")},
    ]


def layers_of(run: Run) -> list[dict[str, Any]]:
    """The slowest layers of each bundle that was looked at, with a figure of all."""
    listed = []
    for number, profile in enumerate(bench_profile_of(run.path) or []):
        if profile["layers"]:
            figure = drawn(time_figures.layer_times(profile), f"layers-{number}")
            listed.append({**profile, "bundle": Path(profile["bundle"]).name, "figure": figure})
    return listed


def baselines_of(run: Run) -> list[dict[str, Any]]:
    """The baselines below the result and the unpruned model: what it is, epochs, costs, time, and
    the metric on validation and test data.
    """
    titles = {
        "scratch": "the same shape, trained from random weights",
        "random": "as many channels of each group, drawn at random",
    }
    found = compared(run)
    if not found:
        return []
    metric = metric_of(run.config)
    test = run.test() or {}
    ms = times(run)
    listed = []
    both = (("best", "the result", run.best()), ("baseline", "the unpruned model", run.first()))
    for key, name, step in both:
        tested = test[key][metric.name] if key in test else None
        listed.append(_compared(metric, name, "", step, ms.get(key), step.metric_after, tested))
    for each in found:
        name = (
            titles[each.name] if each.network is None else f"{each.network.title}, taught as long"
        )
        listed.append(_compared(metric, name, each.epochs, each, each.ms, each.val, each.test))
    return listed


def _compared(
    metric: Metric,
    name: str,
    epochs: int | str,
    costs: Step | Compared,
    ms: Milliseconds | None,
    val: float,
    test: float | None,
) -> dict[str, Any]:
    """A row of the table of baselines."""
    return {
        "name": name,
        "epochs": epochs,
        "macs": amount(costs.macs),
        "size_mb": megabytes(costs.size_mb, 2),
        "ms": "" if ms is None else ms_text(ms),
        "val": value_text(metric, val),
        "test": "" if test is None else value_text(metric, test),
    }


def beginning_of(run: Run, first: Step, best: Step) -> dict[str, Any]:
    """What the model started from and how it was taught, and what to mind of its answers."""
    if run.config.has_own_trainer:
        return nothing_begun()
    task = task_of(run.config)
    weights = run.read_as("weights.json", Loaded.from_json)
    rate = run.read_as("lr.json", Rate.from_json)
    only = first.only_answer if best.only_answer is None else best.only_answer
    majority = None
    if first.majority is not None and first.majority_answer is not None:
        score = value_text(metric_of(run.config), first.majority)
        majority = (task.answer_name(first.majority_answer), score)
    one_class = []
    if only is not None:
        one_class.append(one_class_warning(task.answer_name(only), taught(run)))
    return {
        "weights": weights.sentence() if weights else None,
        "rate": rate.sentence() if rate else None,
        "early": ended_early(run),
        "majority": majority,
        "one_class": one_class,
    }


def nothing_begun() -> dict[str, Any]:
    """The same of a loop that left no run folder."""
    return {"weights": None, "rate": None, "early": None, "majority": None, "one_class": []}


def named_steps(run: Run) -> list[tuple[str, Step]]:
    """Every row of the table of steps with its name."""
    references = run.references()
    start, *later = run.steps()
    named = [("first, unpruned", reference.step) for reference in references[:-1]]
    named.append(("start" if len(references) > 1 else "unpruned", start))
    named += [(name_of(step), step) for step in later]
    return named


def left_whole(steps: Sequence[Step]) -> list[str]:
    """The groups that keep all their channels, and why: a line for each kind of reason."""
    return by_kind({frozen["name"]: frozen["reason"] for frozen in steps[-1].frozen})


def metrics_in_words(
    test: Mapping[str, Any] | None, config: RunConfig, *, is_pruned: bool = True
) -> dict[str, str]:
    """All metrics of each model on the test split, in a line; where nothing `is_pruned`, the result
    is the model before it.
    """
    lines = {}
    for name in TESTED:
        if test is None or name not in test or (name == "best" and not is_pruned):
            continue
        texts = []
        for key, value in Metrics.from_json(test[name]).values.items():
            if value is not None:
                texts.append(f"{key} {value_text(metric_named(key, config.task.name), value)}")
        lines[name] = ", ".join(texts)
    return lines


def tables_of(test: Mapping[str, Any] | None, config: RunConfig) -> dict[str, Table]:
    """What each model got right and wrong on the test split."""
    if test is None:
        return {}
    task = task_of(config)
    tables = {}
    for name in TESTED:
        if name in test:
            tables[name] = task.table(Metrics.from_json(test[name]))
    return tables


def _of_steps(
    steps: Sequence[Step], best: Step, metric: Metric, max_drop: Drop | None
) -> list[Titled]:
    return [
        (
            f"{metric.name} against channels removed",
            "Validation split, one marker a step. Channels tied by a sum count once; the share is "
            "of the unpruned model's.",
            figures.metric_by_channels(steps, metric, max_drop),
        ),
        (
            f"{metric.name} against work",
            "The same steps against the multiply-accumulates that one image costs.",
            figures.metric_by_macs(steps, metric, max_drop),
        ),
        (
            "Where the channels went",
            "Channels that each layer makes, in the model's order. Layers tied by a residual sum "
            "lose the same channels.",
            figures.layers(steps[0], best),
        ),
    ]


def _of_latency(
    steps: Sequence[Step], metric: Metric, max_drop: Drop | None, latency: Mapping[str, Any]
) -> list[Titled]:
    table = latency["table"]
    errors = [
        abs(step.predicted_ms / step.latency_ms - 1)
        for step in steps
        if step.predicted_ms and step.latency_ms
    ]
    note = (
        f"Measured on {timed_on(latency)}. "
        f"The prediction that chose the channels was off by {100 * sum(errors) / len(errors):.0f} "
        f"% on average, {100 * max(errors):.0f} % at most."
    )
    figure = figures.metric_by_latency(steps, metric, max_drop)
    made = [(f"{metric.name} against time on the device", note, figure)]
    if table["staircases"]:
        note = (
            "Layers timed with one channel more or less each time; where the time rises only at "
            "multiples, only multiples are kept."
        )
        title = "Which numbers of channels the device likes"
        made.append((title, note, time_figures.staircases(table)))
    return made


def _of_audit(audit: Mapping[str, Any]) -> list[Titled]:
    cost = (
        f"{counted(audit['channels'], 'channel')} zeroed one at a time on "
        f"{counted(audit['images'], 'validation image')}"
    )
    return [
        (
            "Which criterion is right",
            f"{audit['recommendation']} The oracle: {cost}; 95 % intervals.",
            audit_figures.agreement(audit),
        ),
        (
            "Where each criterion is right",
            "The same rank correlation in each layer.",
            audit_figures.agreement_by_layer(audit),
        ),
    ]
