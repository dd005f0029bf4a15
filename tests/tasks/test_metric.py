"""A metric knows which way is better, and in which unit changes are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prunedge.edge.tasks.metric import as_drop
from prunedge.errors import PrunedgeError
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.trainer import Judgement
from prunedge.tasks import TASKS, Metric, metric_named
from tests.pruning.test_loop import START

WIDTH = Metric("width-error", higher_is_better=False, unit="mm")


def test_points_are_hundredths_and_other_units_are_themselves() -> None:
    accuracy = metric_named("accuracy", "classification")
    assert accuracy.drop(0.9, 0.88) == pytest.approx(2.0)
    assert accuracy.change(0.9, 0.88) == pytest.approx(-2.0)
    assert (accuracy.text(0.917), accuracy.order(0.9)) == ("91.7%", 0.9)
    assert WIDTH.drop(0.4, 0.5) == pytest.approx(0.1)
    assert (WIDTH.text(0.5), WIDTH.order(0.5)) == ("0.5 mm", -0.5)


@pytest.mark.parametrize(("error", "keeps"), [(0.45, True), (0.56, False)])
def test_the_rule_follows_an_error_that_must_stay_low(error: float, keeps: bool) -> None:
    rule = StopPolicy(metric=WIDTH, max_drop=0.1)
    first = replace(START, metric_after=0.4)
    verdict = rule.accepts(first, Judgement({}, error), [])
    assert verdict.accepted == keeps
    assert verdict.keeps_rule == keeps
    assert f"width-error {error - 0.4:+.2f} mm" in verdict.reason
    assert keeps or verdict.reason.endswith("more than 0.1 above")


def test_a_metric_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PrunedgeError, match="no metric is called 'speed'") as refused:
        metric_named("speed", "classification")
    for name in TASKS["classification"].metrics:
        assert name.partition("=")[0] in str(refused.value)
    assert "recall@alarms=LEVEL, alarms@recall=LEVEL, cost" in str(refused.value)


def test_a_drop_is_a_number_in_the_metric_s_unit_or_a_share_of_its_value() -> None:
    accuracy = metric_named("accuracy", "classification")
    assert WIDTH.allowed(0.2, 4.0) == 0.2
    assert WIDTH.allowed("5%", 4.0) == pytest.approx(0.2)
    assert accuracy.allowed("5%", 0.9) == pytest.approx(4.5)  # points
    assert (accuracy.usual_drop, WIDTH.usual_drop) == (3.0, "5%")
    assert accuracy.drop_text(1.0) == "1 point"
    assert accuracy.drop_text(3.0) == "3 points"
    assert WIDTH.drop_text("5%") == "5% of its value"
    assert replace(WIDTH, unit="").drop_text(0.2) == "0.2"


@pytest.mark.parametrize(
    ("given", "drop"),
    [(3, 3.0), ("0.2", 0.2), (" 5 % ", "5%"), ("2.50%", "2.5%"), ("1e-3", 0.001), (0, 0.0)],
)
def test_drops_are_read_as_they_are_written(given: object, drop: float | str) -> None:
    assert as_drop(given) == drop
    assert as_drop(as_drop(given)) == drop


@pytest.mark.parametrize("given", ["-1", -1, "-5%", "nan", float("inf"), "x", "", "%", None, True])
def test_what_is_no_drop_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"no drop|must be 0 or more"):
        as_drop(given)


@pytest.mark.parametrize(("error", "keeps"), [(0.41, True), (0.43, False)])
def test_the_rule_follows_a_share_of_the_unpruned_model_s_value(error: float, keeps: bool) -> None:
    rule = StopPolicy(metric=WIDTH, max_drop="5%")
    verdict = rule.accepts(replace(START, metric_after=0.4), Judgement({}, error), [])
    assert verdict.accepted == verdict.keeps_rule == keeps
    assert keeps or verdict.reason.endswith("more than 0.02 (5%) above")
    with pytest.raises(ValueError, match="max_drop must be 0 or more"):
        StopPolicy(metric=WIDTH, max_drop="much")
