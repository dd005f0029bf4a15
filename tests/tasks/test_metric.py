"""A metric knows which way is better, and in which unit changes are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prunedge.errors import PrunedgeError
from prunedge.pruning.policy import Outcome, StopPolicy
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
    verdict = rule.accepts(first, Outcome(error, None, ""), [])
    assert verdict.accepted == keeps
    assert verdict.keeps_rule == keeps
    assert f"width-error {error - 0.4:+.2f} mm" in verdict.reason
    assert keeps or verdict.reason.endswith("more than 0.1 above")


def test_a_metric_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PrunedgeError, match="no metric is called 'speed'") as refused:
        metric_named("speed", "classification")
    assert all(name in str(refused.value) for name in TASKS["classification"].metrics)
