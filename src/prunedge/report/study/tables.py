"""The tables of a study: what its figures show, in numbers. Pure: rows in, tables of words out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prunedge.edge.bench.ratios import speed_of
from prunedge.report.metric_text import heading, metric_interval, metric_spread, metric_variance
from prunedge.report.study.cells import (
    device_of,
    duration,
    is_unchanged,
    pair_cells,
    ratio_spread,
    share_spread,
    times_faster,
)
from prunedge.report.study.numbers import (
    Groups,
    Row,
    Trial,
    at_end,
    at_start,
    curve,
    end,
    saving,
    time_ratios,
    total_seconds,
)
from prunedge.study.statistics import FRACTIONS, Spread, compared, spread
from prunedge.study.summary import comparisons, metric_of
from prunedge.tasks import Metric
from prunedge.utils.wording import counted, significant_pair

MOST_LINES = 200
MOST_TABLES = 24
BASELINES = {
    "scratch": "the same shape, trained from random weights",
    "random": "as many channels of each group, drawn at random",
}


@dataclass(frozen=True)
class Table:
    """Words in a grid. A folded one is opened with a click."""

    head: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]
    caption: str = ""
    is_folded: bool = False


def summary_table(combinations: Groups) -> Table:
    """One line for each combination."""
    is_timed = any(_timed(trials) for trials in combinations.values())
    head = (
        "combination",
        "n",
        "before",
        "after, 95 % interval",
        "channels removed",
        "MACs (million)",
        "parameters (million)",
        "size (MB)",
        *(("time for a batch",) if is_timed else ()),
        "pruning time",
    )
    lines = []
    for name, trials in islice(combinations.items(), MOST_LINES):
        metric = metric_of(trials[0])
        after = at_end(trials, "test_best")
        lines.append(
            (
                name,
                str(len(trials)),
                metric_spread(metric, at_end(trials, "test_baseline")),
                f"{metric_spread(metric, after)}\n{metric_interval(metric, after)}",
                share_spread(at_end(trials, "fraction_removed")),
                _saved(trials, "macs", 1e6),
                _saved(trials, "params", 1e6),
                _saved(trials, "size_mb", 1),
                *((_latency(trials),) if is_timed else ()),
                duration(spread([total_seconds(trial) for trial in trials])),
            )
        )
    return Table(head, lines)


def fraction_tables(combinations: Groups) -> list[Table]:
    """Mean, variance and interval of the metric before and after fine-tuning at each fraction, for
    each combination.
    """
    head = (
        "channels pruned",
        "n",
        "before: mean",
        "variance",
        "95 % interval",
        "after: mean",
        "variance",
        "95 % interval",
    )
    tables = []
    for name, trials in islice(combinations.items(), MOST_TABLES):
        metric = metric_of(trials[0])
        before = curve(trials, "metric_before", FRACTIONS)
        lines = []
        for fraction, after in curve(trials, "metric_after", FRACTIONS).items():
            cells = (*_mean_cells(metric, before[fraction]), *_mean_cells(metric, after))
            lines.append((f"{fraction:.0%}", str(after.n), *cells))
        tables.append(Table(head, lines, name, is_folded=len(combinations) > 1))
    return tables


def stops_table(combinations: Groups) -> Table:
    """Why the trials ended, percentages of single trials left out of the reasons."""
    removed: dict[str, list[float]] = {}
    for trials in combinations.values():
        for trial in trials:
            reason = re.sub(r"\d+(\.\d+)?%", "… %", str(trial[0]["stop"] or "unknown"))
            removed.setdefault(reason, []).append(end(trial)["fraction_removed"])
    lines = []
    for reason, shares in sorted(removed.items(), key=lambda item: -len(item[1])):
        lines.append((reason, str(len(shares)), share_spread(spread(shares))))
    return Table(("why the search ended", "trials", "channels pruned then"), lines)


def epochs_table(rows: Sequence[Row], axes: Sequence[str]) -> Table:
    """The pruning time for each number of epochs, and how much longer the largest number took."""
    lines = []
    for name, by_epochs in time_ratios(rows, axes).items():
        for epochs, (took, ratios) in by_epochs.items():
            ratio = times_faster(ratios) if ratios else "no pairs"
            time = duration(spread(took))
            lines.append((name, str(epochs), str(len(took)), time, ratio, str(len(ratios))))
    head = (
        "combination",
        "epochs in each step",
        "n",
        "pruning time",
        f"times faster than {counted(max(row['epochs'] for row in rows), 'epoch')}",
        "pairs",
    )
    return Table(head, lines[:MOST_LINES])


def paired_tables(rows: Sequence[Row], axes: Sequence[str]) -> list[Table]:
    """For each axis but the images: how its values differ, over trials that are equal in all
    else.
    """
    metric = metric_of(rows)
    head = (
        "pair",
        heading(metric, "test metric"),
        "95 % interval",
        "Wilcoxon's p",
        "pairs",
        "what it says",
        "channels removed, points",
    )
    tables = []
    for axis in axes:
        if axis == "data":
            continue
        by_metric = comparisons(rows, axes, axis, "test_best")
        by_removed = comparisons(rows, axes, axis, "fraction_removed")
        ranked = []
        for (first, second, pairs), (_, _, removed) in zip(by_metric, by_removed, strict=True):
            share = f"{100 * removed.difference:+.1f}"
            line = (f"{first} against {second}", *pair_cells(metric, pairs), share)
            ranked.append((abs(pairs.difference), line))
        if not ranked:
            continue
        ranked.sort(key=lambda entry: -entry[0])
        caption = axis.replace("_", " ")
        if len(ranked) > MOST_LINES:
            caption += f", the {MOST_LINES} largest of {len(ranked)} differences"
        lines = [line for _, line in ranked[:MOST_LINES]]
        tables.append(Table(head, lines, caption, is_folded=len(ranked) > MOST_LINES // 10))
    return tables


def baselines_table(combinations: Groups) -> Table | None:
    """The result beside each baseline, trial by trial; None where there are no baselines."""
    lines = []
    difference = ""
    for name, trials in combinations.items():
        metric = metric_of(trials[0])
        for baseline, title in BASELINES.items():
            ends = [end(trial) for trial in trials]
            compared_ends = [row for row in ends if row[f"test_baseline_{baseline}"] is not None]
            if not compared_ends:
                continue
            difference = heading(metric, "difference")
            pruned = [row["test_best"] for row in compared_ends]
            others = [row[f"test_baseline_{baseline}"] for row in compared_ends]
            means = [metric_spread(metric, spread(values)) for values in (pruned, others)]
            cells = pair_cells(metric, compared(pruned, others))
            lines.append((name, title, *means, *cells))
    head = (
        "combination",
        "baseline",
        "pruned",
        "baseline",
        difference,
        "95 % interval",
        "Wilcoxon's p",
        "pairs",
        "what it says",
    )
    return Table(head, lines[:MOST_LINES]) if lines else None


def times_table(names: Mapping[str, str], benches: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was timed: `names` gives each trial's combination, `benches` each timed trial's
    measurements.
    """
    lines = []
    for trial, bench in benches.items():
        first, best = bench["bundles"][:2]
        speed = speed_of(bench)
        lines.append(
            (
                names[trial],
                f"{bench['patches']:,}",
                f"{first['seconds_total']:.4g} → {best['seconds_total']:.4g} s",
                f"{speed.before_ms:.3g} → {speed.after_ms:.3g} ms",
                f"{speed.words('×')} ({speed.bounds()})",
                f"{first['peak_rss_mb']:.0f} → {best['peak_rss_mb']:.0f} MB",
                device_of(bench),
            )
        )
    head = (
        "combination",
        "patches",
        "all patches",
        "one batch, median",
        "by the median",
        "peak memory",
        "measured on",
    )
    return Table(head, lines[:MOST_LINES])


def _mean_cells(metric: Metric, mean: Spread) -> tuple[str, str, str]:
    return (
        metric.text(mean.mean),
        metric_variance(metric, mean),
        metric_interval(metric, mean),
    )


def _saved(trials: Sequence[Trial], key: str, per: float) -> str:
    spread_of_ratios = saving(trials, key)
    is_same = is_unchanged(spread_of_ratios)
    ratio = "unchanged" if is_same else ratio_spread(spread_of_ratios)
    before = at_start(trials, key, per).mean
    after = at_end(trials, key, per).mean
    return f"{ratio}\n{' → '.join(significant_pair(before, after))}"


def _timed(trials: Sequence[Trial]) -> list[Row]:
    """The ends of those trials whose models were timed."""
    ends = [end(trial) for trial in trials]
    return [row for row in ends if row["latency_ms_best"] is not None]


def _latency(trials: Sequence[Trial]) -> str:
    timed = _timed(trials)
    if not timed:
        return "-"
    before = spread([row["latency_ms_baseline"] for row in timed]).mean
    after = spread([row["latency_ms_best"] for row in timed]).mean
    return f"{' → '.join(significant_pair(before, after))} ms"
