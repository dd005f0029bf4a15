"""One page that a manager understands from its first screen, and that an engineer can check."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from prunedge.config import START_KEYS, RunConfig
from prunedge.importance.audit import kept_audit
from prunedge.pruning.from_config import max_drop_of
from prunedge.pruning.steps import Step
from prunedge.report.html import render, save
from prunedge.report.metric_text import at_best, metric_of, value_text
from prunedge.report.run import sections
from prunedge.report.run.cards import against, cards, cards_of_training, saved
from prunedge.report.run.data_card import data_card
from prunedge.report.run.decision_sections import decision_of
from prunedge.report.run.explain import explain
from prunedge.report.run.gallery import shelves, shown_in, thumbnails
from prunedge.report.run.repeat import OF_A_LOOP, OF_AN_OWN_TRAINER, command, facts
from prunedge.report.steps_text import became_of, name_of, notes_on, place_of
from prunedge.report.text import lost_on_test_data, times_in_words, to_mind
from prunedge.runs.decision_rates import decisions_in
from prunedge.runs.run import Run
from prunedge.runs.task import task_of
from prunedge.tasks import Metric
from prunedge.utils.wording import megabytes, unit_of


def write_report(run: Run) -> Path:
    """Write RUN/report.html from what the run folder holds; returns its path.

    The page needs no server and no model: figures, scripts and thumbnails are inside. What has
    not been measured yet is said to be missing, with the command that measures it. Raises RunError
    when the run has no model yet or the page can't be written.
    """
    steps = run.steps()
    best = run.best()
    references = run.references()
    first = references[0].step
    config = run.config
    metric = metric_of(config)
    test = run.test()
    bench = run.read("bench.json")
    latency = run.read("latency.json")

    is_training = run.verb() == "train"
    decision = decision_of(test, config.data.classes, is_pruned=best.index != 0)
    if is_training:
        top = cards_of_training(first, metric)
    else:
        has_test = not config.has_own_trainer
        leads = decision is None
        top = cards(first, best, metric, test, bench, latency, leads=leads, has_test=has_test)
    # The first model of the chain leads the steps of a run that started from a pruned one.
    drawn_steps = [first, *steps] if first is not references[-1].step else steps
    audit = kept_audit(run.path / "audit")
    page = render(
        "page.html.j2",
        **_of_steps(first, best, steps, config, _known(run)),
        **_of_test(test, config, best),
        run=run,
        references=references,
        against=against(references, best, metric, test),
        named=sections.named_steps(run),
        computed=run.computed_with(),
        resumptions=run.resumptions(),
        trained_only=is_training,
        bench=bench,
        stop=run.stopped(),
        decision=decision,
        shelves=_shelves(run),
        data_card=data_card(run),
        learning=sections.learning_of(run, steps),
        cards=top,
        figures=sections.figures_of(drawn_steps, best, config, audit, latency),
        time=sections.time_of_run(run, steps),
        layers=sections.layers_of(run),
        baselines=sections.baselines_of(run),
        timed=times_in_words(run),
        begun=sections.beginning_of(run, steps[0], best),
        minds=[] if is_training else to_mind(run),
        command=command(config, run.path, run.verb(), (run.engine() or {}).get("precision")),
        machine=run.environment(),
    )
    return save(page, run.path / "report.html")


def _known(run: Run) -> Collection[str] | None:
    """The settings that a run's page tells of; None where that is all of them."""
    if run.config.has_own_trainer:
        return OF_AN_OWN_TRAINER
    return (*START_KEYS, "start") if run.verb() == "train" else None


def write_loop_report(
    out: Path,
    steps: Sequence[Step],
    best: Step,
    config: RunConfig,
    test: Mapping[str, Any] | None,
    given: Collection[str] = (),
) -> Path:
    """The same page of a loop that left no run folder: `config` says its model, classes, metric
    and size, and what else of it was `given`, the rule (`max_drop`) too.
    """
    first = steps[0]
    knows_rule = "max_drop" in given
    decision = decision_of(test, config.data.classes, is_pruned=best.index != 0)
    page = render(
        "page.html.j2",
        **_of_steps(first, best, steps, config, {*OF_A_LOOP, *given}),
        **_of_test(test, config, best),
        run=None,
        references=[],
        against=[],
        named=[("unpruned", first), *((name_of(step), step) for step in steps[1:])],
        computed="",
        resumptions=[],
        trained_only=False,
        bench=None,
        stop=None,
        decision=decision,
        shelves=None,
        data_card=None,
        learning=[],
        cards=cards(first, best, metric_of(config), test, None, leads=decision is None),
        figures=sections.figures_of(steps, best, config, None, None, knows_rule=knows_rule),
        time=sections.time_of_steps(steps),
        layers=[],
        baselines=[],
        timed=None,
        begun=sections.nothing_begun(),
        minds=lost_on_test_data(config, test, knows_rule=knows_rule),
        command="",
        machine={},
    )
    return save(page, out)


def _shelves(run: Run) -> dict[str, Any] | None:
    """The gallery of what is decided wrongly, or nearly so; None where the run has none."""
    test = run.test()
    decisions = decisions_in(test)
    if test is None or not decisions:
        return None
    images = shown_in(test)
    if not images:
        return None
    best = decisions["best"]
    explanation = explain(run, best, images)
    made = shelves(images, best, explanation, run.config.data.range)
    return {"all": made, "line": explanation.line}


def _of_steps(
    first: Step,
    best: Step,
    steps: Sequence[Step],
    config: RunConfig,
    known: Collection[str] | None = None,
) -> dict[str, Any]:
    """What the template is told of any loop: its steps, and what it was asked for; `known` are the
    settings that it can tell of, all unless given.
    """
    metric = metric_of(config)
    return {
        "config": config,
        "first": first,
        "best": best,
        "steps": steps,
        "metric": metric.name,
        **_of_task(config, metric),
        "allowed": metric.drop_text(max_drop_of(config)),
        "value_text": partial(value_text, metric),
        "megabytes": megabytes,
        "saved": saved(first, best),
        "knows_rule": known is None or "max_drop" in known,
        "units": [
            unit_of(max(step.macs for step in steps)),
            unit_of(max(step.params for step in steps)),
        ],
        "best_place": place_of(best, steps),
        "became_of": became_of,
        "has_times": any(step.latency_ms for step in (first, *steps)),
        "notes": [f"{note[0].upper()}{note[1:]}" for note in notes_on(steps)],
        "left_whole": sections.left_whole(steps),
        "facts": facts(config, known),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    }


def _of_task(config: RunConfig, metric: Metric) -> dict[str, Any]:
    """What the template is told of the task; of a training of the user's own its figure alone."""
    if config.has_own_trainer:
        return {"purpose": f"judged by {metric.name}", "titles": None}
    task = task_of(config)
    return {"purpose": task.purpose(), "titles": task.titles}


def _of_test(test: Mapping[str, Any] | None, config: RunConfig, best: Step) -> dict[str, Any]:
    """What the template is told of the test split."""
    return {
        "test": test,
        "test_metrics": sections.metrics_in_words(test, config, is_pruned=best.index != 0),
        "at_best": "" if test is None else at_best(config),
        "tables": sections.tables_of(test, config),
        "mistakes": thumbnails((test or {}).get("mistakes", []), config.data.range),
    }
