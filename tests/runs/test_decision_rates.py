"""Rates with their intervals, the rule, and the most frequent answer, from counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.decision_rates import (
    cost,
    decision_to_json,
    decisions_in,
    false_alarm_rate,
    keeps,
    most_frequent,
    rate,
    recall,
    recorded_rule,
    result_of,
    shown_of,
)
from prunedge.runs.decision_record import CountsRecord
from tests.report.decided import CLASSES, counts, decisions, record


def test_a_rate_has_the_interval_of_wilson() -> None:
    share = rate(98, 123)
    assert share is not None
    assert share.value == pytest.approx(0.79675, abs=1e-5)
    # By hand: centre (p + z²/2n) / (1 + z²/n), half width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n).
    assert (share.low, share.high) == pytest.approx((0.71715, 0.85837), abs=1e-5)
    none_found = rate(0, 10)
    assert none_found is not None
    assert (none_found.low, none_found.high) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert rate(0, 0) is None


def test_recall_is_of_the_damaged_and_false_alarms_of_the_sound() -> None:
    told = CountsRecord(**counts(3, 1, 2, 8))
    found, alarms = recall(told), false_alarm_rate(told)
    assert found is not None
    assert alarms is not None
    assert (found.count, found.total) == (3, 4)
    assert (alarms.count, alarms.total) == (2, 10)


def test_the_cost_of_a_decision_has_an_interval() -> None:
    told = cost(CountsRecord(**counts(98, 25, 12, 258)), 50, 1)
    assert told.value == pytest.approx((50 * 25 + 12) / 393)
    # By hand from Wilson's bounds of 25/123 and of 12/270 (Zou, Huang & Zhang).
    missed, alarms = rate(25, 123), rate(12, 270)
    assert missed is not None
    assert alarms is not None
    above = (50 * 123 / 393 * (missed.high - 25 / 123), 270 / 393 * (alarms.high - 12 / 270))
    assert told.high == pytest.approx(told.value + math.hypot(*above))
    assert told.low < told.value < told.high
    none = cost(CountsRecord(**counts(4, 0, 0, 6)), 50, 1)
    assert (none.value, none.low) == (0, 0)
    assert none.high > 5, "four that were found are no proof that none is missed"
    only_sound = cost(CountsRecord(**counts(0, 0, 2, 8)), 50, 1)
    assert only_sound.value == pytest.approx(0.2)


@pytest.mark.parametrize(("missed", "false"), [(0.1, 0.05), (0.3, 0.2)])
def test_the_interval_of_the_cost_holds_the_truth_as_often_as_it_says(
    missed: float, false: float
) -> None:
    damaged, sound, miss, alarm = 40, 80, 10.0, 1.0
    truth = (miss * damaged * missed + alarm * sound * false) / (damaged + sound)
    chances = np.outer(
        binom.pmf(range(damaged + 1), damaged, missed), binom.pmf(range(sound + 1), sound, false)
    )
    held = 0.0
    for lost, alarms in np.argwhere(chances > 1e-5).tolist():
        told = CountsRecord(**counts(damaged - lost, lost, alarms, sound - alarms))
        found = cost(told, miss, alarm)
        if found.low <= truth <= found.high:
            held += float(chances[lost, alarms])
    assert 0.93 < held < 0.98


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("recall>=0.95", OperatingRule("recall", 0.95)),
        ("alarms<=0.02", OperatingRule("alarms", 0.02)),
        ("alarms<=1e-05", OperatingRule("alarms", 1e-5)),
        ("cost(miss=50,alarm=1)", OperatingRule("cost", miss=50, alarm=1)),
        ("", None),
    ],
)
def test_the_rule_that_a_record_names(text: str, rule: OperatingRule | None) -> None:
    assert recorded_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("recall>=0.75", True),
        ("recall>=0.76", False),
        ("alarms<=0.2", True),
        ("alarms<=0.19", False),
        ("cost(miss=50,alarm=1)", None),
        ("", None),
    ],
)
def test_whether_counts_keep_a_rule(text: str, kept: bool | None) -> None:
    assert keeps(recorded_rule(text), CountsRecord(**counts(3, 1, 2, 8))) is kept


def test_a_rule_on_what_is_not_there_is_neither_kept_nor_broken() -> None:
    assert keeps(recorded_rule("recall>=0.5"), CountsRecord(**counts(0, 0, 2, 8))) is None


def test_always_giving_the_most_frequent_answer() -> None:
    sound = most_frequent(record(), CLASSES)
    assert sound.answer == "functional"
    assert sound.counts == CountsRecord(**counts(0, 123, 0, 270))
    swapped = record(test=counts(250, 20, 3, 120), confusion=[[250, 20], [3, 120]])
    damaged = most_frequent(swapped, CLASSES)
    assert damaged.answer == "defective"
    assert damaged.counts == CountsRecord(**counts(270, 0, 123, 0))


def test_the_most_frequent_class_of_three_is_not_the_sum_of_two() -> None:
    """Cracks and rust together outnumber the sound, none of them alone does."""
    confusion = [[30, 10, 0], [5, 45, 0], [2, 0, 38]]
    told = record(damage=["crack", "rust"], confusion=confusion, test=counts(78, 2, 5, 45))
    assert most_frequent(told, ["crack", "ok", "rust"]).answer == "ok"


def test_labels_are_mostly_there_or_not() -> None:
    absent = record(unit="label", confusion=None, test=counts(30, 10, 3, 40))
    assert most_frequent(absent, ["crack", "rust"]).counts.found == 0
    there = record(unit="label", confusion=None, test=counts(60, 10, 3, 40))
    assert most_frequent(there, ["crack", "rust"]).counts == CountsRecord(**counts(70, 0, 43, 0))


def test_decisions_are_those_of_the_result() -> None:
    told = decisions()
    assert list(decisions_in({"decisions": told})) == ["baseline", "best"]
    assert decisions_in({"decisions": {"baseline": told["baseline"]}}) == {}
    assert decisions_in({"decisions": {}}) == {}
    assert decisions_in(None) == {}


def test_where_nothing_is_pruned_each_model_is_shown_once() -> None:
    told = decisions_in({"decisions": decisions()})
    assert list(shown_of(told, is_pruned=True)) == ["baseline", "best"]
    alone = shown_of(told, is_pruned=False)
    assert list(alone) == ["baseline"]
    assert result_of(alone)[0] == "baseline"
    onward = {"baseline": told["baseline"], "start": told["best"], "best": told["best"]}
    assert result_of(shown_of(onward, is_pruned=False))[0] == "start"


def test_plain_values_for_json() -> None:
    told = decision_to_json(record(), CLASSES)
    assert told["test"]["found"] == 98
    assert told["test"]["recall"]["value"] == pytest.approx(98 / 123)
    assert told["test"]["keeps_rule"] is False
    assert told["validation"]["keeps_rule"] is True
    assert told["most_frequent"]["answer"] == "functional"
    assert told["most_frequent"]["found"] == 0
    assert told["calibration_error"] == {"raw": 0.11, "calibrated": 0.03}
