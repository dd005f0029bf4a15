"""The sections on what a model and its pruning cost: channels, epochs, time, size. Pure."""

from __future__ import annotations

from typing import Any

from prunedge.report.study import figures, tables
from prunedge.report.study.numbers import MOST_GROUPS, end, groups, rows_of, time_ratios, views
from prunedge.report.study.pareto import Place, end_places, mean_places, step_places
from prunedge.report.study.pareto_figure import Cloud, pareto_figure
from prunedge.report.study.section import Section, StudyRows, views_left_out
from prunedge.study.statistics import spread
from prunedge.utils.wording import counted

MOST_MODELS = 8
BAND = (
    "mean over the finished trials that reached a fraction with accepted steps, as far as half of "
    "them came; linear between steps; band: one standard deviation"
)


def layers(study: StudyRows) -> Section:
    """Filters left in each layer, a figure for each model."""
    models = groups(study.rows, ["model"])
    axes = study.axes_without("model")
    drawings = []
    lines = []
    for model, trials in list(models.items())[:MOST_MODELS]:
        seen, left_out = views(rows_of(trials), axes)
        drawings.append(figures.layers(seen))
        lines.append(model + views_left_out(left_out))
    more = ""
    if len(models) > MOST_MODELS:
        left_out = len(models) - MOST_MODELS
        more = f" {counted(left_out, 'more model is', 'more models are')} in the table."
    note = (
        "Share of its channels that each layer kept in the model handed over, mean over "
        f"folds and seeds; in the model's order.{more}"
    )
    return Section("layers", "Filters left in each layer", note, drawings, lines=lines)


def epochs(study: StudyRows) -> Section | None:
    """What more epochs of fine-tuning give, and take; None where their number is the same."""
    if "epochs" not in study.axes:
        return None
    contexts = groups(study.rows, study.axes_without("epochs"))
    shown = {}
    for name, trials in list(contexts.items())[:MOST_GROUPS]:
        by_epochs = groups(rows_of(trials), ["epochs"])
        shown[name] = dict(sorted(by_epochs.items(), key=_number))
    took = {}
    for name, by_number in list(time_ratios(study.rows, study.axes).items())[:MOST_GROUPS]:
        took[name] = {number: spread(seconds) for number, (seconds, _) in by_number.items()}
    note = (
        f"First figure: validation split, after fine-tuning; {BAND}. Times: wall-clock seconds of "
        "all steps, also those taken back, on the machine that pruned; ratios between trials equal "
        f"in all else, mean ± standard deviation.{views_left_out(len(contexts) - len(shown))}"
    )
    return Section(
        "epochs",
        "Sensitivity to the epochs of fine-tuning",
        note,
        [figures.curves(shown, study.metric, ("after",)), figures.times(took)],
        [tables.epochs_table(study.rows, study.axes)],
    )


def times(study: StudyRows) -> Section | None:
    """Time and memory of the timed trials; None where there are none."""
    names = study.names()
    benches = {trial: bench for trial, bench in study.benches.items() if trial in names}
    if not benches:
        return None
    clouds = {}
    for data, trials in groups(study.rows, ["data"]).items():
        unpruned = []
        pruned = []
        for trial in trials:
            best = end(trial)
            name = names[best["trial"]]
            if best["trial"] in benches:
                unpruned.append(_timed(best, "baseline", f"{name}, unpruned"))
                pruned.append(_timed(best, "best", f"{name}, pruned"))
        if unpruned:
            clouds[data] = Cloud(unpruned, [*unpruned, *pruned], pruned)
    note = (
        "One trial of each combination, unpruned → pruned, measured interleaved; range: 10th "
        "to 90th percentile of the blocks."
    )
    cost = "milliseconds for a batch (log)"
    drawing = pareto_figure(clouds, study.metric, "test", cost, faint_name="unpruned")
    table = tables.times_table(names, benches)
    return Section("times", "Time and memory", note, [drawing], [table])


def pareto(study: StudyRows) -> Section:
    """The metric against MACs and size."""
    drawings = []
    inner = study.axes_without("data")
    for cost, title, per in (
        ("macs", "million MACs, one image (log)", 1e6),
        ("size_mb", "size (MB, log)", 1),
    ):
        clouds = {}
        for data, trials in groups(study.rows, ["data"]).items():
            combinations = groups(rows_of(trials), inner)
            handed_over = end_places(combinations, cost)
            candidates = [*mean_places(combinations, cost), *handed_over]
            clouds[data] = Cloud(step_places(trials, cost), candidates, handed_over)
        drawings.append(pareto_figure(clouds, study.metric, "validation", title, per))
    note = (
        "Validation split, after fine-tuning. Grey: accepted steps of single trials, those close "
        "together as one larger marker. Diamonds: the mean of what each combination's trials "
        "handed over. The front is over these and the means at fractions that all trials of a "
        "combination reached, so that no single lucky trial makes it."
    )
    return Section("pareto", f"{study.metric.name} against MACs and size", note, drawings)


def _timed(best: Any, which: str, text: str) -> Place:
    return Place(best[f"latency_ms_{which}"], best[f"test_{which}"], 1, text)


def _number(item: tuple[str, Any]) -> int:
    """The number of epochs in a group's name."""
    return int(item[0].split()[-1])
