"""Thresholds, temperatures and what comes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import DamageSpec, Decision, OperatingRule
from prunedge.tasks import calibration
from prunedge.tasks import operating as of

SPEC = TaskSpec(name="classification", classes=("crack", "spall", "sound"), size=(8, 8))


def drawn(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, which tell damage from what is sound most of the time."""
    generator = np.random.default_rng(seed)
    is_damaged = generator.random(count) < 0.3
    is_damaged[:2] = (True, False)
    scores = np.clip(generator.normal(0.35 + 0.3 * is_damaged, 0.2), 0, 1).round(2)
    return scores, is_damaged


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_a_recall_is_kept_by_the_highest_threshold_that_can(seed: int, level: float) -> None:
    scores, is_damaged = drawn(seed)
    threshold = of.threshold_for(scores, is_damaged, OperatingRule("recall", level))
    counts = of.counts_at(scores, is_damaged, threshold)
    assert counts.recall >= level - 1e-9 or threshold <= scores[scores > 0].min()
    for other in np.linspace(0.001, 1, 80):
        if other > threshold:
            fewer = of.counts_at(scores, is_damaged, other)
            assert fewer.recall < level - 1e-9 or fewer == counts


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.02, 0.1, 0.5]))
def test_alarms_are_kept_by_the_lowest_threshold_that_can(seed: int, level: float) -> None:
    scores, is_damaged = drawn(seed)
    threshold = of.threshold_for(scores, is_damaged, OperatingRule("alarms", level))
    counts = of.counts_at(scores, is_damaged, threshold)
    most = scores[~is_damaged].max()
    assert counts.alarm_rate <= level + 1e-9 or most == 1
    for other in np.linspace(0.001, 1, 80):
        if other < threshold:
            more = of.counts_at(scores, is_damaged, other)
            assert more.alarm_rate > level + 1e-9 or more == counts


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_no_threshold_costs_less_than_that_of_least_cost(seed: int, miss: float) -> None:
    scores, is_damaged = drawn(seed)
    rule = OperatingRule("cost", miss=miss, alarm=1.0)

    def cost(threshold: float) -> float:
        counts = of.counts_at(scores, is_damaged, threshold)
        return miss * counts.missed + counts.alarms

    chosen = cost(of.threshold_for(scores, is_damaged, rule))
    assert all(chosen <= cost(other) + 1e-6 for other in np.linspace(0.001, 1, 80))


def test_the_threshold_lies_halfway_between_both_sides() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.1])
    is_damaged = np.array([True, True, False, False])
    threshold = of.threshold_for(scores, is_damaged, OperatingRule("recall", 1.0))
    assert threshold == pytest.approx(0.55)


def test_a_recall_for_which_nearly_all_are_called_damaged_is_remarked_on() -> None:
    generator = np.random.default_rng(0)
    is_damaged = np.arange(400) % 4 == 0
    remark = of.remark_on(generator.random(400), is_damaged, OperatingRule("recall", 0.95))
    assert remark.startswith("a recall of 0.95 takes false alarms on 9")
    scores, is_damaged = drawn(1)
    assert of.remark_on(scores, is_damaged, OperatingRule("recall", 0.8)) == ""


def test_few_damaged_images_are_remarked_on() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    is_damaged = np.array([True, True, True, False, False])
    remark = of.remark_on(scores, is_damaged, OperatingRule("recall", 0.95))
    assert "3 damaged images: too few to tell a recall of 0.95 from 1" in remark


def test_alarms_that_nothing_is_found_with_are_remarked_on() -> None:
    scores = np.array([0.5, 0.6, 0.9])
    is_damaged = np.array([True, True, False])
    remark = of.remark_on(scores, is_damaged, OperatingRule("alarms", 0.0))
    assert remark.startswith("nothing is found with false alarms on at most 0.00%")


def test_costs_for_which_nothing_or_everything_is_damaged_are_remarked_on() -> None:
    scores = np.array([0.1, 0.2, 0.15, 0.9])
    is_damaged = np.array([True, True, False, False])
    few = of.remark_on(scores, is_damaged, OperatingRule("cost", miss=1, alarm=50))
    assert few.endswith("it costs least on the validation split to call nothing damaged")
    many = of.remark_on(scores, is_damaged, OperatingRule("cost", miss=50, alarm=1))
    assert many.endswith("to call every image damaged")
    scores, is_damaged = drawn(1)
    assert of.remark_on(scores, is_damaged, OperatingRule("cost", miss=1, alarm=1)) == ""


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_the_temperature_is_that_by_which_outputs_are_too_large(truth: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (20_000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = np.array([generator.choice(3, p=row) for row in probabilities])
    answers = of.Answers((logits * truth).astype(np.float32), targets)
    assert of.best_temperature(SPEC, answers) == pytest.approx(truth, rel=0.05)


def test_answers_that_are_all_right_know_no_temperature() -> None:
    targets = np.arange(30) % 3
    outputs = np.eye(3, dtype=np.float32)[targets] * 4
    assert of.best_temperature(SPEC, of.Answers(outputs, targets)) == 1.0


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_the_calibration_error_is_torchmetrics(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random(150)
    is_damaged = generator.random(150) < scores**2
    expected = binary_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(is_damaged).int(), n_bins=calibration.ERROR_BINS
    )
    assert calibration.calibration_error(scores, is_damaged) == pytest.approx(
        float(expected), abs=1e-5
    )


def test_the_curve_counts_what_its_thresholds_do() -> None:
    scores, is_damaged = drawn(3, 1000)
    thresholds, found, alarms = of.curve_of(scores, is_damaged)
    assert len(thresholds) <= of.LONGEST_CURVE
    assert list(thresholds) == sorted(thresholds, reverse=True)
    for place, threshold in enumerate(thresholds):
        counts = of.counts_at(scores, is_damaged, threshold)
        assert (counts.found, counts.alarms) == (found[place], alarms[place])


def test_a_decision_is_kept_on_the_images_that_it_was_chosen_on() -> None:
    generator = np.random.default_rng(4)
    targets = generator.integers(0, 3, 400)
    outputs = generator.normal(0, 1, (400, 3)) + 1.5 * np.eye(3)[targets]
    answers = of.Answers(outputs.astype(np.float32), targets)
    chosen = of.decide(SPEC, answers, OperatingRule("recall", 0.9))
    assert chosen is not None
    decision = chosen.decision
    assert (decision.rule, decision.damage) == ("recall>=0.9", ("crack", "spall"))
    counts = of.counts_of(SPEC, decision, answers)
    assert counts == chosen.counts
    assert 0.9 <= counts.recall < 0.91

    weights = np.ones((1, 400))
    part = of.decided_part(SPEC, decision, answers, weights)
    figures = {figure.metric.name: float(figure.values[0]) for figure in part.figures}
    assert figures["recall"] == counts.recall
    assert figures["false alarms"] == counts.alarm_rate
    assert figures["precision"] == counts.found / (counts.found + counts.alarms)
    assert "cost" not in figures

    costly = SPEC.model_copy(update={"damage": DamageSpec(miss=9.0, alarm=2.0)})
    part = of.decided_part(costly, decision, answers, weights)
    figures = {figure.metric.name: float(figure.values[0]) for figure in part.figures}
    assert figures["cost"] == pytest.approx((9 * counts.missed + 2 * counts.alarms) / 400)


def test_names_that_tell_nothing_of_damage_decide_nothing() -> None:
    spec = TaskSpec(name="classification", classes=("brick", "stone"), size=(8, 8))
    answers = of.Answers(np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]))
    assert of.decide(spec, answers, None) is None
    told = spec.model_copy(update={"damage": DamageSpec(classes=("stone",))})
    assert of.damage_of(told) == ("stone",)


def test_labels_are_counted_where_an_image_may_have_several() -> None:
    spec = TaskSpec(name="multilabel", classes=("crack", "rust"), size=(8, 8))
    outputs = np.array([[2.0, -2.0], [1.0, 3.0], [-3.0, -1.0]], np.float32)
    targets = np.array([[1, 0], [0, 1], [0, 1]])
    decision = Decision(damage=("crack", "rust"), threshold=0.5)
    counts = of.counts_of(spec, decision, of.Answers(outputs, targets))
    assert counts == of.Counts(found=2, missed=1, alarms=1, quiet=2)
