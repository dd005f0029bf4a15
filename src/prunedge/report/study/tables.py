"""The tables of a study: what its figures show, in numbers. Pure: rows in, tables of words out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prunedge.edge.bench.ratios import UNTOLD, speed_of
from prunedge.report.study.numbers import (
    Groups,
    Row,
    Trial,
    curve,
    end,
    over,
    time_ratios,
    total_seconds,
)
from prunedge.study.statistics import FRACTIONS, Comparison, Spread, compared, spread
from prunedge.study.summary import comparisons

MOST_LINES, MOST_TABLES = 200, 24
FEW = 6  # pairs: with fewer, Wilcoxon's two-sided p can't fall below 0.05, whatever the differences
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
    is_prose: bool = False


def summary_table(found: Groups) -> Table:
    """One line for each combination."""
    is_timed = any(
        end(trial)["latency_ms_best"] is not None for trials in found.values() for trial in trials
    )
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
    for name, trials in islice(found.items(), MOST_LINES):
        after = over(trials, lambda _, best: best["test_best"])
        lines.append(
            (
                name,
                str(len(trials)),
                with_spread(over(trials, lambda _, best: best["test_baseline"]), "%"),
                f"{with_spread(after, '%')}\n{interval(after)}",
                with_spread(over(trials, lambda _, best: best["fraction_removed"]), "%"),
                _saved(trials, "macs", 1e6),
                _saved(trials, "params", 1e6),
                _saved(trials, "size_mb", 1),
                *((_latency(trials),) if is_timed else ()),
                duration(spread([total_seconds(trial) for trial in trials])),
            )
        )
    return Table(head, lines)


def fraction_tables(found: Groups) -> list[Table]:
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
    for name, trials in islice(found.items(), MOST_TABLES):
        before, after = (
            curve(trials, "metric_before", FRACTIONS),
            curve(trials, "metric_after", FRACTIONS),
        )
        lines = [
            (
                f"{f:.0%}",
                str(after[f].n),
                *(
                    cell
                    for one in (before[f], after[f])
                    for cell in (f"{one.mean:.1%}", variance(one), interval(one))
                ),
            )
            for f in after
        ]
        tables.append(Table(head, lines, name, is_folded=len(found) > 1))
    return tables


def stops_table(found: Groups) -> Table:
    """Why the trials ended, percentages of single trials left out of the reasons."""
    reasons: dict[str, list[float]] = {}
    for trials in found.values():
        for trial in trials:
            reason = re.sub(r"\d+(\.\d+)?%", "… %", str(trial[0]["stop"] or "unknown"))
            reasons.setdefault(reason, []).append(end(trial)["fraction_removed"])
    ranked = sorted(reasons.items(), key=lambda one: -len(one[1]))
    lines = [
        (reason, str(len(several)), with_spread(spread(several), "%")) for reason, several in ranked
    ]
    return Table(("why the search ended", "trials", "channels pruned then"), lines)


def epochs_table(rows: Sequence[Row], axes: Sequence[str]) -> Table:
    """The pruning time for each number of epochs, and how much longer the largest number took."""
    lines = []
    for name, several in time_ratios(rows, axes).items():
        for epochs, (took, ratios) in several.items():
            ratio = times_faster(ratios) if ratios else "no pairs"
            lines.append(
                (name, str(epochs), str(len(took)), duration(spread(took)), ratio, str(len(ratios)))
            )
    head = (
        "combination",
        "epochs in each step",
        "n",
        "pruning time",
        f"times faster than {max(row['epochs'] for row in rows)} epochs",
        "pairs",
    )
    return Table(head, lines[:MOST_LINES])


def paired_tables(rows: Sequence[Row], axes: Sequence[str]) -> list[Table]:
    """For each axis but the images: how its values differ, over trials that are equal in all
    else.
    """
    tables = []
    for axis in axes:
        if axis == "data":
            continue
        metric, pruned = (
            comparisons(rows, axes, axis, key) for key in ("test_best", "fraction_removed")
        )
        lines = [
            (f"{first} against {second}", *_pair(points), f"{100 * share.difference:+.1f}")
            for (first, second, points), (_, _, share) in zip(metric, pruned, strict=True)
        ]
        ranked = sorted(zip(metric, lines, strict=True), key=lambda one: -abs(one[0][2].difference))
        if lines:
            left = (
                f", the {MOST_LINES} largest of {len(lines)} differences"
                if len(lines) > MOST_LINES
                else ""
            )
            shown = [line for _, line in ranked[:MOST_LINES]]
            head = (
                "pair",
                "test metric, points",
                "95 % interval",
                "Wilcoxon's p",
                "pairs",
                "what it says",
                "channels removed, points",
            )
            tables.append(
                Table(
                    head,
                    shown,
                    f"{axis.replace('_', ' ')}{left}",
                    is_folded=len(lines) > MOST_LINES // 10,
                )
            )
    return tables


def controls_table(found: Groups) -> Table | None:
    """The result beside each baseline, trial by trial; None where there are no baselines."""
    lines = []
    for name, trials in found.items():
        for baseline, said in BASELINES.items():
            both = [
                (best["test_best"], other)
                for trial in trials
                if (other := (best := end(trial))[f"test_baseline_{baseline}"]) is not None
            ]
            if both:
                ours, theirs = zip(*both, strict=True)
                means = (with_spread(spread(ours), "%"), with_spread(spread(theirs), "%"))
                lines.append((name, said, *means, *_pair(compared(ours, theirs))))
    head = (
        "combination",
        "baseline",
        "pruned",
        "baseline",
        "difference, points",
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
                f"{speed.said('×')} ({speed.bounds()})",
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


def device_of(bench: Mapping[str, Any]) -> str:
    """Where and how a bench was measured."""
    threads = f"{bench['threads']} thread{'s' if bench['threads'] > 1 else ''}"
    return (
        f"{bench['device']['processor']}, {bench['bundles'][0]['runtime']}, {threads}, batch "
        f"{bench['batch']}"
    )


def with_spread(one: Spread, unit: str) -> str:
    """The mean with its standard deviation: `unit` is % for shares, × for ratios."""
    factor, digits = (100, 1) if unit == "%" else (1, 2 if one.mean < 10 else 1)
    more = f" ± {factor * one.variance**0.5:.{digits}f}" if one.n > 1 else ""
    return f"{factor * one.mean:.{digits}f}{more} {unit}"


def times_faster(ratios: Sequence[float]) -> str:
    """Ratios of times, each of one pair of trials, as their mean; what their interval leaves open
    is said not to be told apart.
    """
    one = spread(ratios)
    return (
        UNTOLD if one.n > 1 and one.variance and one.low <= 1 <= one.high else with_spread(one, "×")
    )


def variance(one: Spread) -> str:
    """The variance of shares, in points squared."""
    return f"{1e4 * one.variance:.3g}" if one.n > 1 else "-"


def interval(one: Spread) -> str:
    """The 95 % interval of the mean of shares: no share is below 0 or above 1."""
    return (
        f"{max(0.0, 100 * one.low):.1f} to {min(100.0, 100 * one.high):.1f} %" if one.n > 1 else "-"
    )


def duration(one: Spread) -> str:
    """Seconds, minutes or hours, with the standard deviation."""
    unit, by = next(
        (name, by)
        for name, by in (("h", 3600), ("min", 60), ("s", 1))
        if one.mean >= 1.5 * by or by == 1
    )
    more = f" ± {one.variance**0.5 / by:.1f}" if one.n > 1 else ""
    return f"{one.mean / by:.1f}{more} {unit}"


def verdict(one: Comparison) -> str:
    """What a paired comparison says, in words."""
    if one.n < FEW:
        return (
            f"too few pairs to tell (with {one.n}, p can't fall below {2 ** (1 - one.n):.2g})"
            if one.n > 1
            else "one pair tells nothing"
        )
    if math.isnan(one.p):
        return "no difference"
    side = "larger" if one.difference > 0 else "smaller"
    return side if one.p < 0.05 and not one.low <= 0 <= one.high else "no clear difference"


def _pair(one: Comparison) -> tuple[str, ...]:
    between = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}" if one.n > 1 else "-"
    return (
        f"{100 * one.difference:+.1f}",
        between,
        "-" if math.isnan(one.p) else f"{one.p:.2g}",
        str(one.n),
        verdict(one),
    )


def _saved(trials: Sequence[Trial], key: str, per: float) -> str:
    ratio = over(trials, lambda first, best: first[key] / best[key])
    before, after = (
        over(trials, lambda first, _: first[key] / per),
        over(trials, lambda _, best: best[key] / per),
    )
    return f"{with_spread(ratio, '×')}\n{before.mean:,.4g} → {after.mean:,.3g}"


def _latency(trials: Sequence[Trial]) -> str:
    timed = [best for trial in trials if (best := end(trial))["latency_ms_best"] is not None]
    if not timed:
        return "-"
    before, after = (
        spread([one[f"latency_ms_{name}"] for one in timed]).mean for name in ("baseline", "best")
    )
    return f"{before:.3g} → {after:.3g} ms"
