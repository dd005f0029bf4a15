"""What the counts of a decision say: recall and false alarm rate with their intervals, whether the
rule was kept, and what always giving the most frequent answer finds. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.decision_record import CostRecord, CountsRecord, DecisionRecord

# The models that test.json may have a decision of, in the order in which they are shown.
DECIDED = ("baseline", "start", "best")
CONFIDENCE = 0.95
_NUMBER = r"([\d.eE+-]+)"


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, with the bounds of the 95 % interval of Wilson (1927)."""

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.count / self.total

    def to_json(self) -> dict[str, float]:
        """Plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class MostFrequent:
    """What always giving the most frequent `answer` finds on the test split; its name is empty
    where it is none of the classes: that labels are there, or that they are not.
    """

    answer: str
    counts: CountsRecord


def decisions_in(test: Mapping[str, Any] | None) -> dict[str, DecisionRecord]:
    """The decisions of test.json by the model's name; none where the result has none."""
    records = (test or {}).get("decisions") or {}
    if "best" not in records:
        return {}
    return {name: DecisionRecord(**records[name]) for name in DECIDED if name in records}


def shown_of(
    decisions: Mapping[str, DecisionRecord], *, is_pruned: bool
) -> dict[str, DecisionRecord]:
    """The decisions of different models, the result's last: where nothing was removed the result is
    the model before it, which is named once.
    """
    return {name: record for name, record in decisions.items() if is_pruned or name != "best"}


def result_of(decisions: Mapping[str, DecisionRecord]) -> tuple[str, DecisionRecord]:
    """The name of the result among decisions that are shown, and its decision."""
    return list(decisions.items())[-1]


@cache
def rate(count: int, total: int) -> Rate | None:
    """A share of so many; None of nothing."""
    if not total:
        return None
    # Half a second to import.
    from scipy.stats import binomtest

    bounds = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(count, total, float(bounds.low), float(bounds.high))


def recall(counts: CountsRecord) -> Rate | None:
    """The share of the damaged that is found; None where nothing is damaged."""
    return rate(counts.found, counts.found + counts.missed)


def false_alarm_rate(counts: CountsRecord) -> Rate | None:
    """The share of the sound that is called damaged; None where nothing is sound."""
    return rate(counts.alarms, counts.alarms + counts.quiet)


def cost(counts: CountsRecord, miss: float, alarm: float) -> CostRecord:
    """What misses and false alarms cost on average, where each costs so much, with the bounds of
    its 95 % interval: that of a linear function of binomial proportions, from Wilson's of the
    shares that are missed and falsely reported (Zou, Huang & Zhang 2009, Computational Statistics
    & Data Analysis 53, equation 4). How many are damaged counts as known. There has to be one.
    """
    damaged = counts.found + counts.missed
    sound = counts.alarms + counts.quiet
    total = damaged + sound
    value = (miss * counts.missed + alarm * counts.alarms) / total
    below = above = 0.0
    for share, weight in (
        (rate(counts.missed, damaged), miss * damaged / total),
        (rate(counts.alarms, sound), alarm * sound / total),
    ):
        if share is not None:
            below += (weight * (share.value - share.low)) ** 2
            above += (weight * (share.high - share.value)) ** 2
    return CostRecord(
        miss=miss,
        alarm=alarm,
        value=value,
        low=max(0.0, value - math.sqrt(below)),
        high=value + math.sqrt(above),
    )


def recorded_rule(text: str) -> OperatingRule | None:
    """The rule that a record names, as an `OperatingRule` is written (`recall>=0.95`,
    `alarms<=1e-05`, `cost(miss=50,alarm=1)`); None where nobody asked for any.
    """
    if found := re.fullmatch(rf"recall>={_NUMBER}", text):
        return OperatingRule("recall", float(found[1]))
    if found := re.fullmatch(rf"alarms<={_NUMBER}", text):
        return OperatingRule("alarms", float(found[1]))
    if found := re.fullmatch(rf"cost\(miss={_NUMBER},alarm={_NUMBER}\)", text):
        return OperatingRule("cost", miss=float(found[1]), alarm=float(found[2]))
    return None


def keeps(rule: OperatingRule | None, counts: CountsRecord) -> bool | None:
    """Whether counts keep a rule; None where there is no rule that they could break."""
    if rule is None or rule.kind == "cost":
        return None
    judged = recall(counts) if rule.kind == "recall" else false_alarm_rate(counts)
    if judged is None:
        return None
    # A level is written with few digits, and a share may be exactly it.
    if rule.kind == "recall":
        return judged.value >= rule.level - 1e-9
    return judged.value <= rule.level + 1e-9


def most_frequent(record: DecisionRecord, classes: Sequence[str]) -> MostFrequent:
    """What always giving the answer finds that most of the test split has."""
    counts = record.test
    damaged = counts.found + counts.missed
    sound = counts.alarms + counts.quiet
    answer = ""
    calls_damaged = damaged > sound
    if record.confusion is not None:
        sizes = [sum(row) for row in record.confusion]
        answer = classes[sizes.index(max(sizes))]
        calls_damaged = answer in record.damage
    if calls_damaged:
        return MostFrequent(answer, CountsRecord(found=damaged, missed=0, alarms=sound, quiet=0))
    return MostFrequent(answer, CountsRecord(found=0, missed=damaged, alarms=0, quiet=sound))


def decision_to_json(record: DecisionRecord, classes: Sequence[str]) -> dict[str, Any]:
    """The first screen's figures of one model as plain JSON values."""
    rule = recorded_rule(record.rule)
    splits = {}
    for name in ("validation", "test"):
        counts: CountsRecord = getattr(record, name)
        splits[name] = {**_counts_to_json(counts), "keeps_rule": keeps(rule, counts)}
    constant = most_frequent(record, classes)
    return {
        "rule": record.rule,
        "damage": record.damage,
        "unit": record.unit,
        "threshold": record.threshold,
        "temperature": record.temperature,
        **splits,
        "usual": _counts_to_json(record.usual),
        "most_frequent": {"answer": constant.answer, **_counts_to_json(constant.counts)},
        "cost": None if record.cost is None else record.cost.model_dump(),
        "calibration_error": record.test_error.model_dump(),
        "note": record.note,
    }


def _counts_to_json(counts: CountsRecord) -> dict[str, Any]:
    shares = {"recall": recall(counts), "false_alarm_rate": false_alarm_rate(counts)}
    told = {name: share and share.to_json() for name, share in shares.items()}
    return {**counts.model_dump(), **told}
