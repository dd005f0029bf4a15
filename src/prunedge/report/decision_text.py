"""What is found and missed, in sentences that the command line and the pages share. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.decision_rates import (
    MostFrequent,
    Rate,
    false_alarm_rate,
    keeps,
    most_frequent,
    recall,
    recorded_rule,
    result_of,
)
from prunedge.runs.decision_record import (
    CostRecord,
    CountsRecord,
    DecisionRecord,
)
from prunedge.utils.wording import counted, figure, first_of

MOST_DECIMALS = 9
TITLES = {"baseline": "unpruned", "start": "the start", "best": "pruned"}
MODELS = {
    "baseline": "the unpruned model",
    "start": "the model that the run started from",
    "best": "the pruned model",
}


def decided(decisions: Mapping[str, DecisionRecord], classes: Sequence[str]) -> list[str]:
    """What each model finds at its operating point, in lines for a terminal; none without
    decisions.
    """
    if not decisions:
        return []
    result, best = result_of(decisions)
    lines = [f"at the operating point, on test images; damage is {damage_in_words(best)}:"]
    for name, record in decisions.items():
        figures = [found_in_words(record, record.test), rates_in_words(record.test)]
        if record.cost is not None:
            figures.append(cost_in_words(record.cost, record.unit))
        lines.append(f"  {TITLES[name]}: {'; '.join(figures)}")
    constant = most_frequent(best, classes)
    lines.append(f"  {constant_in_words(constant, best)}")
    lines.append(f"  {asked_in_words(best, result)}")
    for name, record in decisions.items():
        lines += [f"  {TITLES[name]}: {line}" for line in kept_in_words(record)]
    return lines


def damage_in_words(record: DecisionRecord) -> str:
    """The classes that are damage."""
    return first_of(record.damage)


def found_in_words(record: DecisionRecord, counts: CountsRecord) -> str:
    """`of 123 damaged images 98 are found and 25 missed; 12 false alarms among 270 sound ones`."""
    damaged = counts.found + counts.missed
    sound = counts.alarms + counts.quiet
    what = counted(damaged, "damaged image")
    others = f"{sound:,} sound ones"
    if record.unit == "label":
        what = counted(damaged, "label of damage", "labels of damage")
        others = f"{sound:,} that are not there"
    return (
        f"of {what} {counts.found:,} found, {counts.missed:,} missed; "
        f"{counted(counts.alarms, 'false alarm')} among {others}"
    )


def rates_in_words(counts: CountsRecord) -> str:
    """Recall and false alarm rate, each with its interval."""
    return (
        f"recall {rate_in_words(recall(counts))}, "
        f"false alarm rate {rate_in_words(false_alarm_rate(counts))}"
    )


def cost_in_words(cost: CostRecord, unit: str) -> str:
    """`0.421 an image, a miss costing 50 and a false alarm 1 (95 % interval 0.3 to 0.6)`."""
    costs = f"a miss costing {cost.miss:g} and a false alarm {cost.alarm:g}"
    return f"cost {per_unit(cost.value, unit)}, {costs} ({cost_interval_in_words(cost)})"


def per_unit(cost: float, unit: str) -> str:
    """`0.421 an image`."""
    return f"{figure(cost)} {'an' if unit == 'image' else 'a'} {unit}"


def cost_interval_in_words(cost: CostRecord) -> str:
    """`95 % interval 0.3 to 0.6`."""
    return f"95 % interval {figure(cost.low)} to {figure(cost.high)}"


def rate_in_words(rate: Rate | None) -> str:
    """`79.7 % (95 % interval 71.7 to 85.8 %)`."""
    if rate is None:
        return "not defined"
    return f"{percent(rate.value)} ({interval_in_words(rate)})"


def interval_in_words(rate: Rate) -> str:
    """`95 % interval 71.7 to 85.8 %`."""
    return f"95 % interval {100 * rate.low:.1f} to {percent(rate.high)}"


def short_rate(rate: Rate | None) -> str:
    """`79.7 % (71.7 to 85.8)`: where a table's title says what the interval is."""
    if rate is None:
        return "-"
    return f"{percent(rate.value)} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def threshold_text(threshold: float) -> str:
    """A probability with as many digits as tell it from 0 and 1: `0.207`, `0.99987`."""
    nearest = min(threshold, 1 - threshold)
    if nearest <= 0:
        return f"{threshold:g}"
    decimals = min(MOST_DECIMALS, 2 - math.floor(math.log10(nearest)))
    return f"{threshold:.{decimals}f}"


def percent(share: float) -> str:
    """`79.7 %`."""
    return f"{100 * share:.1f} %"


def constant_in_words(constant: MostFrequent, record: DecisionRecord) -> str:
    """What always giving the most frequent answer finds."""
    counts = constant.counts
    calls_damaged = counts.missed == 0
    if constant.answer:
        answer = f"'{constant.answer}'"
    elif record.unit == "label":
        answer = f"that {'every' if calls_damaged else 'no'} label is there"
    else:
        answer = f"that {'all' if calls_damaged else 'nothing'} is damaged"
    if calls_damaged:
        return (
            f"always answering {answer}, the most frequent, finds all of it, and calls all "
            f"{counts.alarms:,} sound ones damaged"
        )
    return (
        f"always answering {answer}, the most frequent, finds none of the "
        f"{counts.missed:,}, without a false alarm"
    )


def asked_in_words(record: DecisionRecord, name: str = "best") -> str:
    """What the operating point was chosen for, and which threshold that gave the model of that
    `name`.
    """
    rule = recorded_rule(record.rule)
    least = f"a probability of at least {threshold_text(record.threshold)}"
    if rule is None:
        return f"no rule was given (--operate): {MODELS[name]} reports damage at {least}"
    return (
        f"asked for: {rule_in_words(rule)}; by validation images {MODELS[name]} reports damage "
        f"at {least}"
    )


def rule_in_words(rule: OperatingRule) -> str:
    """What was asked of the decision."""
    if rule.kind == "recall":
        return f"a recall of at least {_level(rule.level)}"
    if rule.kind == "alarms":
        return f"a false alarm rate of at most {_level(rule.level)}"
    return f"the least cost, a miss costing {rule.miss:g} and a false alarm {rule.alarm:g}"


def kept_in_words(record: DecisionRecord) -> list[str]:
    """Whether the rule was kept on validation images and on test images; none where there is none
    to keep.
    """
    rule = recorded_rule(record.rule)
    lines = []
    on_validation = keeps(rule, record.validation)
    on_test = keeps(rule, record.test)
    if rule is not None and on_validation is not None and on_test is not None:
        judged = recall if rule.kind == "recall" else false_alarm_rate
        validated = judged(record.validation)
        tested = judged(record.test)
        line = (
            f"the rule was {_kept(on_validation, validated)} on validation images and "
            f"{_kept(on_test, tested)} on test images"
        )
        if not on_test and _holds(tested, rule.level):
            line += f", whose interval holds {_level(rule.level)}: it may be chance"
        lines.append(line)
    if record.note:
        lines.append(record.note)
    return lines


def _kept(is_kept: bool, share: Rate | None) -> str:
    """`not kept (77.2 %)`."""
    text = "kept" if is_kept else "not kept"
    return text if share is None else f"{text} ({percent(share.value)})"


def _holds(share: Rate | None, level: float) -> bool:
    """Whether a level lies in an interval."""
    return share is not None and share.low <= level <= share.high


def _level(share: float) -> str:
    return f"{100 * share:g} %"


def calibration_in_words(decisions: Mapping[str, DecisionRecord]) -> list[str]:
    """Of which models the temperature made the probabilities of test images worse, though
    validation images chose it; none where it made none worse.
    """
    lines = []
    for name, record in decisions.items():
        error = record.test_error
        if error.calibrated <= error.raw or percent(error.calibrated) == percent(error.raw):
            continue
        lines.append(
            f"the temperature of {MODELS[name]}, which validation images chose, makes its "
            f"probabilities worse on test images: an error of {percent(error.calibrated)} instead "
            f"of {percent(error.raw)}"
        )
    return lines
