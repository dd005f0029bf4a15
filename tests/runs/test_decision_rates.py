"""Rates with their intervals, the rule, and the most frequent answer, from counts."""

from __future__ import annotations

import pytest

from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.decision_rates import (
    decision_to_json,
    decisions_in,
    false_alarm_rate,
    keeps,
    most_frequent,
    rate,
    recall,
    recorded_rule,
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


def test_plain_values_for_json() -> None:
    told = decision_to_json(record(), CLASSES)
    assert told["test"]["found"] == 98
    assert told["test"]["recall"]["value"] == pytest.approx(98 / 123)
    assert told["test"]["keeps_rule"] is False
    assert told["validation"]["keeps_rule"] is True
    assert told["most_frequent"]["answer"] == "functional"
    assert told["most_frequent"]["found"] == 0
    assert told["calibration_error"] == {"raw": 0.11, "calibrated": 0.03}
