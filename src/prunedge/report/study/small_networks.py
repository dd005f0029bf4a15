"""Small networks beside the pruned models of a study: the section, its table, and a sentence where
one of them is better. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunedge.report.metric_text import metric_interval, metric_spread
from prunedge.report.study.cells import ms_spread, pair_cells, times_faster
from prunedge.report.study.numbers import Groups
from prunedge.report.study.section import Section, StudyRows
from prunedge.report.study.tables import MOST_LINES, Table
from prunedge.study.small_networks import BesideSmall, ModelFigures, beside_small
from prunedge.tasks import Metric
from prunedge.utils.wording import counted


def small_networks(study: StudyRows) -> Section | None:
    """The networks that were taught beside the pruned models; None where there are none."""
    lines = beside_small(study.combinations())
    if not lines:
        return None
    note = (
        f"Test {study.metric.name} and milliseconds of an image, mean ± standard deviation over "
        "n folds and seeds. A small network is taught for as many epochs as the pruned model has "
        "seen, and timed in turns with it; what else ran on the machine slowed all of a trial "
        "alike. Compared trial by trial: network minus pruned."
    )
    return Section("small", "Small networks", note, tables=[small_table(lines, study.metric)])


def small_table(lines: Sequence[BesideSmall], metric: Metric) -> Table:
    """The unpruned model, the pruned one and each small network of each combination, in lines of
    their own.
    """
    head = (
        "combination",
        "model",
        "n",
        f"test {metric.name}, 95 % interval",
        "ms for an image",
        "times faster than the pruned",
        "MACs (million)",
        "size (MB)",
        f"difference, {metric.unit}",
        "95 % interval",
        "Wilcoxon's p",
        "pairs",
        "what it says",
    )
    no_comparison = ("",) * 5
    cells = []
    shown: set[tuple[str, int]] = set()
    for line in lines:
        # Networks that were taught in the same trials stand below the same two models.
        if (line.combination, line.n) not in shown:
            shown.add((line.combination, line.n))
            for name, figures in (("unpruned", line.unpruned), ("pruned", line.pruned)):
                own = _figures(figures, metric)
                cells.append(
                    (line.combination, name, str(line.n), *own[:2], "", *own[2:], *no_comparison)
                )
        own = _figures(line.small, metric)
        faster = times_faster(line.speedups)
        pairs = pair_cells(metric, line.pairs)
        cells.append(
            (line.combination, line.network, str(line.n), *own[:2], faster, *own[2:], *pairs)
        )
    return Table(head, cells[:MOST_LINES])


def better_networks(combinations: Groups, metric: Metric) -> list[str]:
    """A sentence for each small network that is at least as good and at least as fast, in the mean,
    as the pruned models of a combination.
    """
    lines = []
    for line in beside_small(combinations):
        if not line.is_better:
            continue
        of = f" of {line.combination}" if len(combinations) > 1 else ""
        times = "one trial, no spread"
        if line.n > 1:
            times = f"{counted(line.n, 'trial')}, in {line.wins} of them both"
        lines.append(
            f"{line.network}, taught as long, is at least as good and as fast as the pruned "
            f"model{of}: test {metric.name} {metric_spread(metric, line.small.test)} at "
            f"{ms_spread(line.small.ms)} beside {metric_spread(metric, line.pruned.test)} at "
            f"{ms_spread(line.pruned.ms)} ({times})"
        )
    return lines


def _figures(figures: ModelFigures, metric: Metric) -> tuple[str, ...]:
    """Metric, milliseconds, MACs, size."""
    return (
        f"{metric_spread(metric, figures.test)}\n{metric_interval(metric, figures.test)}",
        ms_spread(figures.ms),
        f"{figures.macs.mean / 1e6:.3g}",
        f"{figures.size_mb.mean:.3g}",
    )
