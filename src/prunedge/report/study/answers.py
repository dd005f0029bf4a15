"""The answer of a study in sentences and cards: what leaves the least work, and its cost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunedge.edge.bench.ratios import speed_of
from prunedge.report.metric_text import axis_value, best_word, change_text, is_share, metric_spread
from prunedge.report.run.cards import card
from prunedge.report.study.cells import device_of, duration, is_unchanged, ratio_spread
from prunedge.report.study.numbers import (
    Groups,
    Row,
    Trial,
    at_end,
    at_start,
    groups,
    over,
    rows_of,
    saving,
    total_seconds,
)
from prunedge.study import StudyProgress
from prunedge.study.statistics import Spread, spread
from prunedge.tasks import Metric
from prunedge.utils.wording import counted, significant_pair, times_words

MOST_ANSWERS = 6


def answers(rows: Sequence[Row], axes: Sequence[str], metric: Metric) -> list[str]:
    """For each set of images: the combination that leaves the least work, and the one with the
    best metric if that is another. `rows` are the steps of finished trials.
    """
    by_data = groups(rows, ["data"])
    inner = [axis for axis in axes if axis != "data"]
    lines = []
    for name, trials in by_data.items():
        where = "" if len(by_data) < 2 else f"On {name}: "
        lines.append(where + _answer(groups(rows_of(trials), inner), metric))
    return lines[:MOST_ANSWERS]


def cards(
    combinations: Groups,
    counts: StudyProgress,
    benches: Mapping[str, Mapping[str, Any]],
    metric: Metric,
) -> list[dict[str, str]]:
    """The first screen: how many of the trials are done, and before and after of the combination
    that leaves the least work.
    """
    note = "none has ended yet"
    if combinations:
        note = f"{counted(len(combinations), 'combination')} over folds and seeds"
    made = [card("trials done", note, "", f"{counts.trials_done} of {counts.trials}", "")]
    if not combinations:
        return made
    name = _leanest(combinations)
    trials = combinations[name]
    made.append(_metric_card(name, trials, metric))
    made.append(_saving_card("work", name, trials, "macs", 1e6, "million MACs", "less"))
    made.append(_saving_card("size", name, trials, "size_mb", 1, "MB", "smaller"))
    made.append(_time_card(name, trials, benches))
    return made


def _answer(combinations: Groups, metric: Metric) -> str:
    leanest = _leanest(combinations)
    best = _best(combinations, lambda _, row: metric.order(row["test_best"]))
    trials = combinations[leanest]

    which = "" if len(combinations) == 1 else f"{leanest} leaves the least work: "
    fewer = _fewer_macs(trials)
    before = metric_spread(metric, at_end(trials, "test_baseline"))
    after = metric_spread(metric, at_end(trials, "test_best"))
    times = "one trial, no spread"
    if len(trials) > 1:
        times = f"n = {len(trials)}, mean ± standard deviation"
    text = f"{which}{fewer}, test {metric.name} {before} → {after} ({times})."
    if best != leanest:
        value = metric_spread(metric, at_end(combinations[best], "test_best"))
        fewer = _fewer_macs(combinations[best])
        text += (
            f" {best} has the {best_word(metric)} test {metric.name} after pruning: {value}, with "
            f"{fewer}."
        )
    return text


def _fewer_macs(trials: Sequence[Trial]) -> str:
    """What trials save: `4.20 ± 0.10 × fewer MACs`."""
    ratio = saving(trials, "macs")
    return "no fewer MACs" if is_unchanged(ratio) else f"{ratio_spread(ratio)} fewer MACs"


def _leanest(combinations: Groups) -> str:
    """The combination that leaves the least work."""
    return _best(combinations, lambda first, best: first["macs"] / best["macs"])


def _best(combinations: Groups, what: Callable[[Row, Row], float]) -> str:
    """The combination of which a figure has the largest mean."""
    return max(combinations, key=lambda name: over(combinations[name], what).mean)


def _metric_card(name: str, trials: Sequence[Trial], metric: Metric) -> dict[str, str]:
    before = at_end(trials, "test_baseline").mean
    after = at_end(trials, "test_best").mean
    change = over(trials, lambda _, best: best["test_best"] - best["test_baseline"])
    digits = ".1f" if is_share(metric) else ".3g"
    note = _deviation_note("test split", change, axis_value(metric, 1.0), digits)
    return card(
        metric.name,
        metric.text(before),
        metric.text(after),
        change_text(metric, 0.0, change.mean),
        f"{note}; {name}",
    )


def _saving_card(
    title: str, name: str, trials: Sequence[Trial], key: str, per: float, unit: str, word: str
) -> dict[str, str]:
    before = at_start(trials, key, per).mean
    after = at_end(trials, key, per).mean
    texts = significant_pair(before, after)
    ratio = saving(trials, key)
    return card(
        title,
        texts[0],
        f"{texts[1]} {unit}",
        times_words(ratio.mean, word, "×"),
        f"{_deviation_note('ratio', ratio)}; {name}",
    )


def _time_card(
    name: str, trials: Sequence[Trial], benches: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """The time for a batch where a trial was timed, else that of the pruning."""
    for trial in trials:
        if trial[0]["trial"] in benches:
            bench = benches[trial[0]["trial"]]
            speed = speed_of(bench)
            return card(
                "time for a batch",
                f"{speed.before_ms:.3g} ms",
                f"{speed.after_ms:.3g} ms",
                speed.words("×"),
                f"{device_of(bench)}; medians; one trial of {name}",
            )
    took = spread([total_seconds(trial) for trial in trials])
    steps = spread([len(trial) - 1 for trial in trials])
    note = f"all steps of a trial, on the machine that pruned; {name}; n = {took.n}"
    return card("pruning time", f"{steps.mean:.0f} steps", "", duration(took), note)


def _deviation_note(what: str, mean: Spread, factor: float = 1, digits: str = ".1f") -> str:
    if mean.n == 1:
        return f"{what}; one trial, no spread"
    deviation = factor * mean.variance**0.5
    return f"{what} ± {deviation:{digits}} (standard deviation), n = {mean.n}"
