"""What stands in the cells of a study's tables. Pure: numbers in, words out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prunedge.edge.bench.ratios import UNTOLD
from prunedge.report.metric_text import difference_number
from prunedge.study.statistics import Comparison, Spread, spread
from prunedge.tasks import Metric
from prunedge.utils.wording import is_hardly

FEW = 6  # pairs: with fewer, Wilcoxon's two-sided p can't fall below 0.05, whatever the differences


def share_spread(share: Spread) -> str:
    """The mean of shares with its standard deviation, in percent."""
    deviation = f" ± {100 * share.variance**0.5:.1f}" if share.n > 1 else ""
    return f"{100 * share.mean:.1f}{deviation} %"


def ratio_spread(ratio: Spread) -> str:
    """The mean of ratios with its standard deviation."""
    digits = 2 if ratio.mean < 10 else 1
    deviation = f" ± {ratio.variance**0.5:.{digits}f}" if ratio.n > 1 else ""
    return f"{ratio.mean:.{digits}f}{deviation} ×"


def ms_spread(ms: Spread) -> str:
    """The mean of milliseconds with its standard deviation."""
    deviation = f" ± {ms.variance**0.5:.2g}" if ms.n > 1 else ""
    return f"{ms.mean:.3g}{deviation} ms"


def is_unchanged(ratio: Spread) -> bool:
    """Whether ratios are all 1, as far as they would be written out."""
    return is_hardly(ratio.mean) and (ratio.n < 2 or ratio.variance**0.5 < 0.005)


def times_faster(ratios: Sequence[float]) -> str:
    """Ratios of times, each of one pair of trials, as their mean; what their interval leaves open
    is said not to be told apart.
    """
    mean = spread(ratios)
    is_open = mean.n > 1 and mean.variance > 0 and mean.low <= 1 <= mean.high
    return UNTOLD if is_open else ratio_spread(mean)


def duration(seconds: Spread) -> str:
    """Seconds, minutes or hours, with the standard deviation."""
    units = (("h", 3600), ("min", 60), ("s", 1))
    fitting = (entry for entry in units if seconds.mean >= 1.5 * entry[1])
    unit, per = next(fitting, units[-1])
    deviation = f" ± {seconds.variance**0.5 / per:.1f}" if seconds.n > 1 else ""
    return f"{seconds.mean / per:.1f}{deviation} {unit}"


def verdict(pairs: Comparison) -> str:
    """What a paired comparison says, in words."""
    if pairs.n == 1:
        return "one pair tells nothing"
    if pairs.n < FEW:
        return (
            f"too few pairs to tell (with {pairs.n}, p can't fall below {2 ** (1 - pairs.n):.2g})"
        )
    if math.isnan(pairs.p):
        return "no difference"
    if pairs.p >= 0.05 or pairs.low <= 0 <= pairs.high:
        return "no clear difference"
    return "larger" if pairs.difference > 0 else "smaller"


def pair_cells(metric: Metric, pairs: Comparison) -> tuple[str, ...]:
    """A paired comparison of a metric: difference, interval, p, pairs, what it says."""
    interval = "-"
    if pairs.n > 1:
        low = difference_number(metric, pairs.low)
        high = difference_number(metric, pairs.high)
        interval = f"{low} to {high}"
    return (
        difference_number(metric, pairs.difference),
        interval,
        "-" if math.isnan(pairs.p) else f"{pairs.p:.2g}",
        str(pairs.n),
        verdict(pairs),
    )


def device_of(bench: Mapping[str, Any]) -> str:
    """Where and how a bench was measured."""
    threads = f"{bench['threads']} thread{'s' if bench['threads'] > 1 else ''}"
    return (
        f"{bench['device']['processor']}, {bench['bundles'][0]['runtime']}, {threads}, batch "
        f"{bench['batch']}"
    )
