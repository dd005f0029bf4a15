"""What `prunedge study` prints of a study: how far it is, its table, what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunedge.utils.advice import command
from prunedge.utils.sanitize import by_kind, kinds
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from prunedge.study import Spread, StudyProgress
    from prunedge.study.small_networks import BesideSmall
    from prunedge.study.summary import SummaryLine
    from prunedge.tasks import Metric


def progress_text(counts: StudyProgress) -> str:
    """How far it is, and the time left."""
    from prunedge.report.text import study_state

    return study_state(counts) + _time_left(counts)


def rest_text(counts: StudyProgress) -> str:
    """The same of what is not done yet."""
    from prunedge.report.text import study_rest

    return study_rest(counts) + _time_left(counts)


def failure_text(failed: Mapping[str, str], out: str) -> str:
    """How many trials failed and why, the reason of the first one; others are told elsewhere."""
    count = len(failed)
    first = next(iter(failed))
    alike = next(names for names in kinds(failed) if first in names)
    (why,) = by_kind({name: failed[name] for name in alike})
    rest = ""
    if count > len(alike):
        status = command("study", "status", out)
        others = counted(count - len(alike), "for another reason", "for other reasons")
        rest = f"; {others}, see {status}"
    return f"{counted(count, 'trial')} failed: {why}{rest}"


def summary_table(axes: Sequence[str], lines: Sequence[SummaryLine], metric: Metric) -> Table:
    """A line for each combination. `metric` is that of all, unless it is an axis itself: it is one
    of the same task then.
    """
    from rich.table import Table

    from prunedge.study.grid import data_name

    table = Table(title="on the test split, mean ± standard deviation over folds and seeds")
    for name in (*axes, "trials", "before", "after", "channels removed", "MACs", "size", "seconds"):
        table.add_column(name, justify="left" if name in axes else "right")
    for line in lines:
        cells = []
        for key, value in line.values.items():
            cells.append(data_name(str(value)) if key == "data" else str(value))
        table.add_row(
            *cells,
            str(line.n),
            _metric_spread(line.before, metric),
            _metric_spread(line.after, metric),
            _spread(line.removed, "{:.1%}"),
            _ratio(line.macs_ratio),
            _ratio(line.size_ratio),
            _spread(line.seconds, "{:.0f}"),
        )
    return table


def small_networks_table(lines: Sequence[BesideSmall], metric: Metric) -> Table:
    """A line for each small network of each combination, beside the pruned models."""
    from rich.table import Table

    from prunedge.report.study.cells import ms_spread

    table = Table(title="small networks, taught as long, beside the pruned models")
    names = ("combination", "network")
    for name in (*names, "trials", "pruned", "small", "pruned: an image", "small: an image"):
        table.add_column(name, justify="left" if name in names else "right")
    for line in lines:
        table.add_row(
            line.combination,
            line.network,
            str(line.n),
            _metric_spread(line.pruned.test, metric),
            _metric_spread(line.small.test, metric),
            ms_spread(line.pruned.ms),
            ms_spread(line.small.ms),
        )
    return table


def _metric_spread(spread: Spread, metric: Metric) -> str:
    deviation = f" ± {metric.text(spread.variance**0.5)}" if spread.n > 1 else ""
    return metric.text(spread.mean) + deviation


def _spread(spread: Spread, text: str) -> str:
    deviation = f" ± {text.format(spread.variance**0.5)}" if spread.n > 1 else ""
    return text.format(spread.mean) + deviation


def _ratio(spread: Spread) -> str:
    from prunedge.report.study.cells import is_unchanged

    return "unchanged" if is_unchanged(spread) else _spread(spread, "{:.1f} x")


def _time_left(counts: StudyProgress) -> str:
    if counts.seconds_left is None or not (counts.left or counts.running):
        return ""
    return f", about {_duration(counts.seconds_left)} to go"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
