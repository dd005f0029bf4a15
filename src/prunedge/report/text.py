"""Runs and studies in sentences, which the command line and the pages share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunedge.config import RunConfig, settings
from prunedge.config.small_networks import SmallNetwork
from prunedge.edge.bench.ratios import in_words
from prunedge.latency.side_by_side import Milliseconds
from prunedge.pruning.from_config import max_drop_of
from prunedge.pruning.prune_with import GIVEN
from prunedge.pruning.steps import Step
from prunedge.report.decision_text import decided
from prunedge.report.metric_text import drop_number, drop_text, metric_of, side_of_worse
from prunedge.report.steps_text import place_of
from prunedge.report.twins_text import twins_in_words, twins_of_training
from prunedge.runs.chain import Reference
from prunedge.runs.compared import TIMES, better, compared, times
from prunedge.runs.decision_rates import decisions_in, shown_of
from prunedge.runs.run import SEEN, Run
from prunedge.runs.task import task_of
from prunedge.runs.training import taught
from prunedge.study import StudyProgress
from prunedge.train.collapse import one_class_warning
from prunedge.utils.advice import command, option
from prunedge.utils.wording import (
    amount,
    amounts,
    counted,
    figure,
    megabytes,
    megabytes_pair,
    times_words,
)


def trained(run: Run) -> str:
    """The result of a training, and what to do next."""
    step = run.steps()[0]
    name = run.config.model.name
    metric = metric_of(run.config)
    gray_range = run.config.data.range

    lines = []
    if gray_range:
        lines.append(f"greys of more than eight bits: black to white is {gray_range} (--range)")
    lines.append(
        f"{name}: {metric.name} {metric.text(step.metric_after)} on validation data"
        f"{beside_majority(run, step)}, "
        f"{amount(step.params, 2)} parameters, {amount(step.macs)} MACs, "
        f"{megabytes(step.size_mb)} MB"
    )
    lines += [f"mind: {line}" for line in twins_of_training(run)]
    lines.append(run.computed_with())
    warning = one_class(run, step)
    if warning is not None:
        lines.append(warning)
    else:
        lines.append(f"next: {command('prune', '--from', run.path, '--out', f'{run.path}-pruned')}")
    return "\n".join(lines)


def pruned(run: Run) -> str:
    """What a run of `prune` has over the model that it began with, what to mind, and what to do
    next.
    """
    steps = run.steps()
    best = run.best()
    references = run.references()
    title = f"{run.config.model.name}, {place_of(best, steps)}"

    decisions = shown_of(decisions_in(run.test()), is_pruned=best.index != 0)
    lines = decided(decisions, run.config.data.classes)
    if len(references) > 1:
        lines.append(title)
        for reference in references:
            lines += _against(run, reference, f"against {reference.name}")
    else:
        lines += _against(run, references[0], title)

    lines += _baselines(run)
    warning = one_class(run, best)
    if warning is not None:
        lines.append(warning)
    lines += [f"mind: {line}" for line in to_mind(run)]
    lines += _resumptions(run)
    reason = run.stopped()
    if reason:
        lines.append(f"stopped: {reason}")
    if run.computed_with():
        lines.append(run.computed_with())
    if warning is None:
        lines.append(_next(run))
    return "\n".join(lines)


def _next(run: Run) -> str:
    """What to do with a run that has a result."""
    words: tuple[object, ...] = ("export", run.path)
    folder = "exported" if run.config.has_own_trainer else "bundle"
    if run.config.trainer.name == GIVEN:
        words = (*words, "--trainer", "package.module:object")
    exporting = command(*words, "--out", run.path / folder)
    return f"next: {exporting}; {command('report', run.path)}"


def to_mind(run: Run) -> list[str]:
    """What to mind of a pruning's result, beside answers that are all of one class."""
    looks = []
    if run.looks_before():
        looks = [
            f"the test split had been looked at {counted(run.looks_before(), 'time')} before this "
            f"run went on, which its result may have decided: {run.path}/earlier"
        ]
    failure = None if run.has_ended() else run.failure()
    return [
        *([] if failure is None else [f"the run ended in an error: {failure}"]),
        *(run.read(SEEN) or []),
        *_origin(run),
        *lost_on_test_data(run.config, run.test()),
        *twins_in_words(run.config, run.test()),
        *_better(run),
        *looks,
    ]


def lost_on_test_data(
    config: RunConfig, test: Mapping[str, Any] | None, *, knows_rule: bool = True
) -> list[str]:
    """What the test split says against the validation split, if it does, and if the config
    `knows_rule` that it is judged by.
    """
    if not test or not knows_rule:
        return []
    metric = metric_of(config)
    allowed = metric.allowed(max_drop_of(config), test["baseline"][metric.name])
    drop = metric.drop(test["baseline"][metric.name], test["best"][metric.name])
    if drop <= allowed:
        return []
    return [
        f"on test data it {drop_text(metric, drop)}, more than the {figure(allowed)} that the rule "
        "allows on validation data. Few validation images let the loop go too far: give it more, "
        f"or stop it earlier ({option('target_macs')}, {option('max_steps')})"
    ]


def study_state(counts: StudyProgress) -> str:
    """How far a study is."""
    of_all = f"{counts.trials_done} of {counted(counts.trials, 'trial is', 'trials are')} done"
    rest = study_rest(counts)
    return f"{of_all}; of these and their starting models: {rest}" if rest else of_all


def study_rest(counts: StudyProgress) -> str:
    """How many trials and starting models are in each other state, as far as there are any."""
    others = (
        (len(counts.running), "running"),
        (len(counts.failed), "failed"),
        (len(counts.left), "left"),
    )
    return ", ".join(f"{count} {state}" for count, state in others if count)


def beside_majority(run: Run, step: Step) -> str:
    """What always answering the largest class would score."""
    if step.majority is None or step.majority_answer is None:
        return ""
    largest = task_of(run.config).answer_name(step.majority_answer)
    score = metric_of(run.config).text(step.majority)
    return f" (always answering '{largest}' scores {score})"


def one_class(run: Run, step: Step) -> str | None:
    """The warning about a model that answers one class alone; None for others."""
    if step.only_answer is None:
        return None
    answer = task_of(run.config).answer_name(step.only_answer)
    return f"mind: {one_class_warning(answer, taught(run))}"


def _against(run: Run, reference: Reference, title: str) -> list[str]:
    """What the best model has over another."""
    first = reference.step
    best = run.best()
    metric = metric_of(run.config)

    macs = amounts(first.macs, best.macs)
    params = amounts(first.params, best.params, 2)
    size_mb = " -> ".join(megabytes_pair(first.size_mb, best.size_mb))
    costs = (
        f"{title}: MACs {macs} ({times_words(first.macs / best.macs, 'fewer')}), "
        f"parameters {params}, "
        f"{size_mb} MB ({times_words(first.size_mb / best.size_mb, 'smaller')})"
    )
    quality = (
        f"{metric.name} on validation data {metric.text(first.metric_after)} -> "
        f"{metric.text(best.metric_after)}{beside_majority(run, first)}"
    )
    test = run.test()
    if test:
        before = metric.text(test[reference.tested][metric.name])
        after = metric.text(test["best"][metric.name])
        quality += f", on test data {before} -> {after}"
    if metric.is_at_best:
        quality += ", each at the best threshold of these very images"
    return [costs, *_latency(first, best), quality]


def _latency(first: Step, best: Step) -> list[str]:
    """What the device that steered says."""
    before = first.latency_ms
    after = best.latency_ms
    if not before or not after or first == best:
        return []
    ratio = in_words(before / after)
    return [f"on the device {before:.3g} -> {after:.3g} ms for an image ({ratio})"]


def _origin(run: Run) -> list[str]:
    """What is to be said about a start that was pruned before."""
    best = run.best()
    metric = metric_of(run.config)
    allowed = metric.allowed(max_drop_of(run.config), run.first().metric_after)
    drop = metric.drop(run.first().metric_after, best.metric_after)
    if best.index or drop <= allowed:
        return []
    return [
        "no model kept the rule; the start itself lies "
        f"{metric.in_unit(drop_number(metric, drop))} {side_of_worse(metric)} the first model, "
        f"more than the {figure(allowed)} that the rule allows"
    ]


def _baselines(run: Run) -> list[str]:
    """What the baselines gave on the test split."""
    titles = {
        "scratch": "the same shape from random weights",
        "random": "as many channels at random",
    }
    metric = metric_of(run.config)
    figures = []
    for each in compared(run):
        if each.test is not None:
            title = titles[each.name] if each.network is None else each.network.title
            figures.append(f"{title} {metric.text(each.test)}")
    if not figures:
        return []
    return [f"baselines on test data: {', '.join(figures)}", *_small(run)]


def _small(run: Run) -> list[str]:
    """What the small networks cost, taught as long, and how fast they are beside the unpruned and
    the pruned model.
    """
    lines = []
    for each in compared(run):
        if each.network is not None:
            lines.append(
                f"{each.network.title}, taught as long ({counted(each.epochs, 'epoch')}): MACs "
                f"{amount(each.macs)}, parameters {amount(each.params, 2)}, "
                f"{megabytes(each.size_mb)} MB"
            )
    times = times_in_words(run)
    return lines if times is None else [*lines, times]


def times_in_words(run: Run) -> str | None:
    """How long the unpruned model, the pruned one and the small networks take, with the spread;
    None where they weren't timed.
    """
    record = run.read(TIMES)
    if record is None:
        return None
    titles = {"baseline": "unpruned", "best": "pruned"}
    figures = []
    for name, ms in times(run).items():
        title = titles[name] if name in titles else SmallNetwork.parse(name).title
        figures.append(f"{title} {ms_text(ms)}")
    return (
        f"timed side by side ({record['device']['processor']}, {record['runtime']}, "
        f"{counted(record['threads'], 'thread')}, batch 1): {', '.join(figures)}"
    )


def ms_text(ms: Milliseconds) -> str:
    """The median of the rounds with the fastest and the slowest."""
    return f"{ms.median:.3g} ms ({ms.low:.3g} to {ms.high:.3g})"


def _better(run: Run) -> list[str]:
    """That a small network is better, where one is."""
    found = better(run)
    if found is None or found.network is None or found.test is None or found.ms is None:
        return []
    metric = metric_of(run.config)
    test = run.test() or {}
    best = metric.text(test["best"][metric.name])
    return [
        f"{found.network.title}, taught as long, is better: {metric.text(found.test)} at "
        f"{found.ms.median:.3g} ms beside {best} at {times(run)['best'].median:.3g} ms"
    ]


def _resumptions(run: Run) -> list[str]:
    """What changed when the run was gone on with."""
    lines = []
    for entry in run.resumptions():
        changes = []
        for key, values in entry["changes"].items():
            old, new = (_written(key, value) for value in values)
            changes.append(f"{key.replace('_', ' ')} was {old} and is {new}")
        after = run.name_of_step(entry["after_step"])
        lines.append(f"the run was gone on with after {after}: {', '.join(changes)}")
    return lines


def _written(key: str, value: object) -> str:
    """A value of what changed: a setting's, or how many threads or processes compute."""
    return settings()[key].written(value) if key in settings() else str(value)
