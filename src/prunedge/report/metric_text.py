"""A metric's values and changes for a reader, in its own unit: texts, and what figures draw. Pure.

A share from 0 to 1 is read in percent and changes by points; any other metric has a unit of its
own, and whether more of it is better is the metric's to say.
"""

from __future__ import annotations

from prunedge.config import RunConfig
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.metric import POINTS, Drop, forms_of
from prunedge.pruning.from_config import watched_metric
from prunedge.study.statistics import Spread
from prunedge.tasks import Metric
from prunedge.utils.wording import figure


def metric_of(config: RunConfig) -> Metric:
    """The metric that a run is judged by."""
    return watched_metric(config)


def at_best(config: RunConfig) -> str:
    """The metrics that are at the best threshold of the images themselves; empty where none is."""
    definition = DEFINITIONS[config.task.name]
    found = [name for name, metric in definition.metrics.items() if metric.is_at_best]
    *others, last = forms_of(found, definition.families) or [""]
    forms = f"{', '.join(others)} and {last}" if others else last
    return forms.replace("=LEVEL", "")


def is_share(metric: Metric) -> bool:
    """Whether its values are shares from 0 to 1, which are read in percent."""
    return metric.unit == POINTS


def value_text(metric: Metric, value: float) -> str:
    """A value as the pages write it: `91.7 %`, `0.42 mm`."""
    return f"{100 * value:.1f} %" if is_share(metric) else metric.text(value)


def change_number(metric: Metric, before: float, after: float) -> str:
    """A change with its sign and without its unit: `-1.2`, `+0.031`."""
    return difference_number(metric, after - before)


def change_text(metric: Metric, before: float, after: float) -> str:
    """A change with its sign: `-1.2 points`, `+0.031 mm`."""
    return metric.in_unit(change_number(metric, before, after))


def difference_number(metric: Metric, difference: float) -> str:
    """A difference of two values, with its sign and without its unit."""
    return f"{100 * difference:+.1f}" if is_share(metric) else figure(difference, signed=True)


def drop_number(metric: Metric, drop: float) -> str:
    """How much worse a model is (`Metric.drop`), without the unit: `1.2`."""
    return f"{drop:.1f}" if is_share(metric) else figure(drop)


def drop_text(metric: Metric, drop: float) -> str:
    """What a model that is worse by `drop` (`Metric.drop`) did: `lost 1.2 points`, `rose by
    0.031 mm`.
    """
    verb = "lost" if metric.higher_is_better else "rose by"
    return f"{verb} {metric.in_unit(drop_number(metric, drop))}"


def side_of_worse(metric: Metric) -> str:
    """Where worse values lie: `below` or `above`."""
    return "below" if metric.higher_is_better else "above"


def best_word(metric: Metric) -> str:
    """What the best value is called: `highest` or `lowest`."""
    return "highest" if metric.higher_is_better else "lowest"


def rule_text(metric: Metric, max_drop: Drop) -> str:
    """The rule, beside its line in a figure."""
    direction = "lost" if metric.higher_is_better else "more"
    number = max_drop if isinstance(max_drop, str) else metric.in_unit(f"{max_drop:g}")
    return f"the rule: at most {number} {direction}"


def rule_height(metric: Metric, first: float, max_drop: Drop) -> float:
    """Where the rule's line lies in a figure: the worst value that it accepts, `max_drop` worse
    than that of the first model.
    """
    height = axis_value(metric, first)
    allowed = metric.allowed(max_drop, first)
    return height - allowed if metric.higher_is_better else height + allowed


def axis_value(metric: Metric, value: float) -> float:
    """A value as figures draw it: percent, or the metric's own unit."""
    return 100 * value if is_share(metric) else value


def heading(metric: Metric, title: str) -> str:
    """A column's title with the metric's unit, if it has a name: `difference, points`."""
    return f"{title}, {metric.unit}" if metric.unit else title


def unit_squared(metric: Metric) -> str:
    """What a variance is in: `points²`."""
    return f"{metric.unit or 'its unit'}²"


def axis_unit(metric: Metric) -> str:
    """The unit of `axis_value`."""
    return "%" if is_share(metric) else metric.unit


def axis_title(metric: Metric, split: str) -> str:
    """The title of an axis: `validation accuracy (%)`."""
    unit = axis_unit(metric)
    return f"{split} {metric.name} ({unit})" if unit else f"{split} {metric.name}"


def hover_value(metric: Metric) -> str:
    """How plotly writes a height under the pointer."""
    digits = ".1f" if is_share(metric) else ".3g"
    return f"%{{y:{digits}}} {axis_unit(metric)}".rstrip()


def metric_spread(metric: Metric, spread: Spread) -> str:
    """The mean with its standard deviation: `91.7 ± 0.4 %`, `0.42 ± 0.03 mm`."""
    deviation = ""
    if spread.n > 1:
        deviation = f" ± {_axis_number(metric, spread.variance**0.5)}"
    text = f"{_axis_number(metric, spread.mean)}{deviation} {axis_unit(metric)}"
    return text.rstrip()


def _axis_number(metric: Metric, value: float) -> str:
    shown = axis_value(metric, value)
    return f"{shown:.1f}" if is_share(metric) else figure(shown)


def metric_interval(metric: Metric, spread: Spread) -> str:
    """The 95 % interval of the mean; that of a share lies within 0 and 100 %."""
    if spread.n < 2:
        return "-"
    if not is_share(metric):
        return metric.in_unit(f"{figure(spread.low)} to {figure(spread.high)}")
    low = max(0.0, 100 * spread.low)
    high = min(100.0, 100 * spread.high)
    return f"{low:.1f} to {high:.1f} %"


def metric_variance(metric: Metric, spread: Spread) -> str:
    """The variance, in the metric's unit squared (points², not shares²)."""
    if spread.n < 2:
        return "-"
    factor = 1e4 if is_share(metric) else 1.0
    return f"{factor * spread.variance:.3g}"
