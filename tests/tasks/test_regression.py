"""Regression: numbers in their own units, its metrics, its constant answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import Scale, TaskSpec
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import TASKS, Metrics, make_task
from prunedge.tasks.regression import Regression
from prunedge.utils.records import require

WIDTH = Scale(mean=3.0, deviation=2.0, median=2.5, lowest=0.0, highest=10.0)
DEPTH = Scale(mean=100.0, deviation=50.0, median=90.0, lowest=0.0, highest=300.0)
SPEC = TaskSpec(name="regression", classes=("width",), size=(16, 16), scales=(WIDTH,))
TASK = make_task(SPEC)
TWO = make_task(
    TaskSpec(name="regression", classes=("width", "depth"), size=(16, 16), scales=(WIDTH, DEPTH))
)
TRUTH = torch.tensor([[1.0], [2.0], [4.0], [5.0], [9.0]])

assert isinstance(TASK, Regression)
assert isinstance(TWO, Regression)


def measure(answers: torch.Tensor, truth: torch.Tensor = TRUTH, task: Regression = TASK) -> Metrics:
    """Of answers in the numbers' own units."""
    meter = task.meter()
    meter.update(meter.observe(task.standardised(answers).float(), truth))
    return meter.compute()


def random_answers(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, 2, generator=generator) * torch.tensor([10.0, 300.0])
    return truth + torch.randn(n, 2, generator=generator) * torch.tensor([1.0, 30.0]), truth


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_numbers_come_back_from_deviations(values: list[float]) -> None:
    numbers = torch.tensor(values)[:, None]
    torch.testing.assert_close(
        TASK.in_units(TASK.standardised(numbers)), numbers.double(), rtol=1e-9, atol=1e-9
    )


def test_metrics_agree_with_scikit_learn_and_are_the_means_over_the_numbers() -> None:
    answers, truth = random_answers(60)
    found = measure(answers, truth, TWO)
    assert found.mae == pytest.approx(reference.mean_absolute_error(truth, answers), rel=1e-5)
    roots = np.sqrt(reference.mean_squared_error(truth, answers, multioutput="raw_values"))
    assert found.rmse == pytest.approx(roots.mean(), rel=1e-5)
    assert found.r2 == pytest.approx(reference.r2_score(truth, answers), rel=1e-5)
    each = reference.mean_absolute_error(truth, answers, multioutput="raw_values")
    assert [one["mae"] for one in found.numbers] == pytest.approx(each.tolist(), rel=1e-5)


def test_the_loss_is_huber_s_of_deviations_the_mean_over_numbers_and_images() -> None:
    answers, truth = random_answers(7)
    outputs = TWO.standardised(answers).float()
    by_hand = []
    for row, wanted in zip(outputs.double(), TWO.standardised(truth), strict=True):
        off = (row - wanted).abs()
        costs = torch.where(off < 1, off.square() / 2, off - 0.5)
        by_hand.append(float(costs.mean()))
    together = float(TWO.loss(outputs, truth))
    assert together == pytest.approx(sum(by_hand) / 7, rel=1e-5)
    alone = [TWO.loss(outputs[i : i + 1], truth[i : i + 1]) for i in range(7)]
    assert float(torch.stack(alone).mean()) == pytest.approx(together, rel=1e-5)
    assert TWO.loss(outputs, truth, double=True).dtype == torch.float64
    assert float(TWO.loss(outputs, truth, label_smoothing=0.3)) == together


@given(st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_another_unit_gives_the_same_loss_and_metrics_in_that_unit(
    factor: float, offset: float
) -> None:
    scale = Scale(
        mean=WIDTH.mean * factor + offset,
        deviation=WIDTH.deviation * factor,
        median=WIDTH.median * factor + offset,
        lowest=offset,
        highest=10 * factor + offset,
    )
    other = make_task(SPEC.model_copy(update={"scales": (scale,)}))
    assert isinstance(other, Regression)
    answers = torch.tensor([[1.5], [2.0], [3.0], [7.0], [8.5]])
    found = measure(answers.double() * factor + offset, TRUTH.double() * factor + offset, other)
    plain = measure(answers)
    assert found.mae == pytest.approx(plain.mae * factor, rel=1e-3)
    assert found.loss == pytest.approx(plain.loss, rel=1e-3, abs=1e-6)
    assert found.r2 == pytest.approx(plain.r2, rel=1e-3, abs=1e-5)


def test_r2_is_not_defined_where_a_number_is_the_same_in_all_images() -> None:
    same = torch.full((5, 1), 4.0)
    assert measure(TRUTH, same).r2 is None
    assert TASK.undefined("r2", [(4.0,), (4.0,)]) == "another width"
    assert TASK.undefined("r2", [(4.0,), (5.0,)]) is None
    assert TASK.undefined("mae", [(4.0,), (4.0,)]) is None


def test_metrics_go_through_json_and_are_the_task_s_record() -> None:
    for truth in (TRUTH, torch.full((5, 1), 4.0)):
        found = measure(TRUTH + 0.5, truth)
        plain = json.loads(json.dumps(found.to_json()))
        require(TASKS["regression"].record, plain)
        assert Metrics.from_json(plain) == found
        assert found.correct == ""


@given(st.integers(1, 7), st.integers(0, 2**16))
def test_batches_of_any_size_give_the_same_metrics(batch: int, seed: int) -> None:
    answers, truth = random_answers(19, seed)
    outputs = TWO.standardised(answers).float()
    meter = TWO.meter()
    for start in range(0, 19, batch):
        part = slice(start, start + batch)
        meter.update(meter.observe(outputs[part], truth[part]))
    assert meter.compute() == measure(answers, truth, TWO)


@pytest.mark.parametrize("metric", TASK.metrics)
def test_the_constant_answer_is_the_median_of_the_training_images(metric: str) -> None:
    constant = TASK.constant(measure(TRUTH), metric)
    dull = measure(torch.full((5, 1), 2.5))
    assert constant.score == pytest.approx(dull.value(metric))
    assert TASK.answer_name(constant.answer) == "2.5"
    assert TASK.uninformed_loss(measure(TRUTH)) == pytest.approx(dull.loss)


def test_the_same_number_for_every_image_is_noticed() -> None:
    silent = measure(torch.full((5, 1), 3.3))
    assert TASK.has_constant_outputs(silent)
    only = TASK.only_answer(silent)
    assert only is not None
    assert TASK.answer_name(only) == "the same number"
    assert only < TASK.answers
    assert TASK.only_answer(measure(TRUTH)) is None
    assert TASK.only_answer(measure(TRUTH[:1], TRUTH[:1])) is None


def test_the_gallery_has_where_the_second_model_is_farther_off_the_worst_first() -> None:
    meters = []
    for answers in (TRUTH, TRUTH + torch.tensor([[0.0], [1.5], [0.9], [-4.0], [0.0]])):
        meter = TASK.meter()
        meter.update(meter.observe(TASK.standardised(answers).float(), TRUTH))
        meters.append(meter)
    found = TASK.examples(*meters)
    assert [(one.index, one.truth, one.before, one.after) for one in found] == [
        (3, "5", "5", "1"),
        (1, "2", "2", "3.5"),
    ]
    assert all(one.confidence_after is None for one in found)


def test_both_halves_have_the_same_metrics_and_targets() -> None:
    assert TASKS["regression"].metrics is DEFINITIONS["regression"].metrics
    assert TASK.outputs == TASK.targets.outputs == 1
    assert TASK.targets.scales == (WIDTH,)


def test_outputs_for_other_numbers_are_refused_with_the_model_s_name() -> None:
    with pytest.raises(ModelError, match="each of 2 numbers") as refused:
        TWO.refuse_outputs(torch.zeros(1, 3), "Small")
    assert refused.value.where == "Small"
    TWO.refuse_outputs(torch.zeros(1, 2), "Small")
    assert TASK.outputs_of(torch.zeros(4)).shape == (4, 1)  # of a model that squeezes its one


@pytest.mark.parametrize("truth", [torch.zeros(5), torch.full((5, 1), math.nan), None])
def test_targets_that_are_no_numbers_are_refused(truth: torch.Tensor | None) -> None:
    with pytest.raises(TrainError, match="targets"):
        TASK.loss(torch.zeros(5, 1), truth)


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainError, match="aren't finite"):
        measure(torch.full((5, 1), math.nan))


def test_a_task_without_the_training_images_scales_says_so() -> None:
    bare = make_task(SPEC.model_copy(update={"scales": ()}))
    with pytest.raises(TrainError, match="0 scales for 1 numbers"):
        bare.loss(torch.zeros(5, 1), TRUTH)


def test_distillation_is_nothing_for_equal_answers_and_grows_with_their_distance() -> None:
    answers = torch.tensor([[2.0]])
    near = TASK.distance(answers + 0.1, answers, 4.0)
    far = TASK.distance(-answers, answers, 4.0)
    assert TASK.distance(answers, answers, 4.0) == 0
    assert 0 < near < far


def test_categories_are_quarters_of_a_normal_distribution() -> None:
    outputs = torch.tensor([[-2.0], [-0.3], [0.3], [2.0], [0.7]])
    asked = TASK.categories(TASK.in_units(outputs).float(), outputs)
    assert asked.choices == 4
    assert asked.chosen.flatten().tolist() == [0, 1, 2, 3, 3]
    assert TASK.predicted_categories(outputs).chosen.flatten().tolist() == [0, 1, 2, 3, 3]
