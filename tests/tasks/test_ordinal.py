"""Ordinal: answers that are consistent whatever the outputs are, its metrics, its constant answer."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from prunedge.edge.tasks import DEFINITIONS, decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.ordinal import DegreeTargets
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import TASKS, Metrics, make_task
from prunedge.tasks.ordinal import Ordinal, log_probabilities
from prunedge.utils.records import require

SPEC = TaskSpec(name="ordinal", classes=("none", "light", "medium", "severe"), size=(16, 16))
TASK = make_task(SPEC)
DEGREES = torch.tensor([0, 0, 0, 1, 2, 3])

assert isinstance(TASK, Ordinal)

numbers = st.floats(-60, 60, width=32)
rows = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6)


def logits(degrees: list[int]) -> torch.Tensor:
    """Outputs that answer these degrees, far from the middle."""
    return torch.tensor([[8.0 if k < degree else -8.0 for k in range(3)] for degree in degrees])


def measure(outputs: torch.Tensor, degrees: torch.Tensor = DEGREES) -> Metrics:
    meter = TASK.meter()
    meter.update(meter.observe(outputs, degrees))
    return meter.compute()


def random_answers(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(n, 3, generator=generator)
    return outputs, torch.randint(4, (n,), generator=generator)


@given(rows)
def test_probabilities_are_a_distribution_and_exceeding_a_degree_falls_with_it(
    outputs: list[list[float]],
) -> None:
    likely = log_probabilities(torch.tensor(outputs, dtype=torch.float64)).exp()
    assert bool((likely >= 0).all())
    torch.testing.assert_close(likely.sum(1), torch.ones(len(outputs), dtype=torch.float64))
    exceeded = 1 - likely.cumsum(1)
    assert bool((exceeded.diff(dim=1) <= 1e-12).all())


@given(rows)
def test_the_device_decodes_the_same_probabilities(outputs: list[list[float]]) -> None:
    given_outputs = torch.tensor(outputs)
    wanted = log_probabilities(given_outputs.double()).exp()
    found = torch.from_numpy(decoder_of(SPEC).decode(given_outputs.numpy()))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)


@given(rows, st.integers(0, 2), st.floats(0, 5, width=32))
def test_a_higher_output_never_lowers_the_degree(
    outputs: list[list[float]], place: int, more: float
) -> None:
    low = torch.tensor(outputs)
    high = low.clone()
    high[:, place] += more
    assert bool((TASK.decided(high) >= TASK.decided(low)).all())


def test_the_loss_is_what_the_questions_that_an_image_takes_part_in_cost() -> None:
    """CORN: an image of degree 2 answers 'beyond 0?' yes, 'beyond 1?' yes, 'beyond 2?' no."""
    outputs, degrees = random_answers(9)
    by_hand = []
    for row, degree in zip(outputs.double().sigmoid(), degrees.tolist(), strict=True):
        asked = [-math.log(row[k]) for k in range(degree)]
        if degree < 3:
            asked.append(-math.log(1 - row[degree]))
        by_hand.append(sum(asked))
    together = float(TASK.loss(outputs, degrees))
    assert together == pytest.approx(sum(by_hand) / 9, rel=1e-6)
    alone = [TASK.loss(outputs[i : i + 1], degrees[i : i + 1]) for i in range(9)]
    assert float(torch.stack(alone).mean()) == pytest.approx(together, rel=1e-6)
    assert measure(outputs, degrees).loss == pytest.approx(sum(by_hand) / 9, rel=1e-9)
    assert TASK.loss(outputs, degrees, double=True).dtype == torch.float64

    every = [float(TASK.loss(outputs, torch.full((9,), degree))) for degree in range(4)]
    softened = float(TASK.loss(outputs, degrees, label_smoothing=0.2))
    assert softened == pytest.approx(0.8 * together + 0.2 * sum(every) / 4, rel=1e-6)


def test_the_loss_is_finite_for_the_largest_outputs() -> None:
    outputs = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    loss = TASK.loss(outputs, torch.tensor([3]))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_metrics_agree_with_scikit_learn() -> None:
    outputs, degrees = random_answers(80)
    found = measure(outputs, degrees)
    answers = TASK.decided(outputs)
    kappa = reference.cohen_kappa_score(degrees, answers, weights="quadratic")
    assert found.kappa == pytest.approx(kappa, abs=1e-6)
    assert found.degrees_off == pytest.approx(reference.mean_absolute_error(degrees, answers))
    assert found.accuracy == reference.accuracy_score(degrees, answers)
    assert found.two_off == pytest.approx(float(((degrees - answers).abs() >= 2).float().mean()))
    assert found.degrees == reference.confusion_matrix(degrees, answers).tolist()


def test_kappa_is_not_defined_of_a_single_degree() -> None:
    same = torch.ones(4, dtype=torch.long)
    assert measure(logits([1, 1, 2, 0]), same).kappa is None
    assert TASK.undefined("kappa", [1, 1]) == "none"
    assert TASK.undefined("kappa", [1, 2]) is None
    assert TASK.undefined("accuracy", [1, 1]) is None


def test_metrics_go_through_json_and_are_the_task_s_record() -> None:
    for degrees in (DEGREES, torch.ones(6, dtype=torch.long)):
        found = measure(random_answers(6)[0], degrees)
        plain = json.loads(json.dumps(found.to_json()))
        require(TASKS["ordinal"].record, plain)
        assert Metrics.from_json(plain) == found


@given(st.integers(1, 7), st.integers(0, 2**16))
def test_batches_of_any_size_give_the_same_metrics(batch: int, seed: int) -> None:
    outputs, degrees = random_answers(19, seed)
    meter = TASK.meter()
    for start in range(0, 19, batch):
        part = slice(start, start + batch)
        meter.update(meter.observe(outputs[part], degrees[part]))
    assert meter.compute() == measure(outputs, degrees)


@pytest.mark.parametrize("metric", TASK.metrics)
def test_no_constant_answer_is_better_than_the_one_that_is_told(metric: str) -> None:
    constant = TASK.constant(measure(random_answers(6)[0]), metric)
    order = TASK.metrics[metric].order
    scores = [measure(logits([degree] * 6)).value(metric) for degree in range(4)]
    assert scores[constant.answer] == pytest.approx(constant.score)
    assert order(constant.score) == pytest.approx(max(map(order, scores)))


def test_a_single_answer_is_noticed() -> None:
    only = TASK.only_answer(measure(logits([1] * 6)))
    assert only is not None
    assert TASK.answer_name(only) == "light"
    assert TASK.only_answer(measure(logits([1] * 5 + [2]))) is None
    assert TASK.only_answer(measure(logits([1] * 3), torch.ones(3, dtype=torch.long))) is None


def test_equal_outputs_for_all_images_are_a_silent_model() -> None:
    assert TASK.has_constant_outputs(measure(torch.tensor([[0.3, -2.0, 1.0]]).expand(6, 3)))
    assert not TASK.has_constant_outputs(measure(random_answers(6)[0]))
    even = torch.tensor([[math.log(3), math.log(2), 0.0]]).expand(6, 3)
    assert TASK.uninformed_loss(measure(even)) == pytest.approx(measure(even).loss)


def test_the_gallery_has_what_the_second_model_gets_wrong_and_the_first_does_not() -> None:
    meters = []
    for answers in ([0, 0, 1, 1, 2, 3], [0, 2, 1, 1, 2, 0]):
        meter = TASK.meter()
        meter.update(meter.observe(logits(answers), DEGREES))
        meters.append(meter)
    found = [(one.index, one.truth, one.before, one.after) for one in TASK.examples(*meters)]
    assert found == [(1, "none", "none", "medium"), (5, "severe", "severe", "none")]


def test_a_head_has_one_output_less_than_there_are_degrees() -> None:
    assert TASK.outputs == TASK.targets.outputs == 3
    two = make_task(SPEC.model_copy(update={"classes": ("sound", "worn")}))
    meter = two.meter()
    meter.update(meter.observe(torch.tensor([[2.0], [-2.0]]), torch.tensor([1, 0])))
    assert meter.compute().accuracy == meter.compute().kappa == 1


def test_both_halves_have_the_same_metrics_and_targets() -> None:
    assert TASKS["ordinal"].metrics is DEFINITIONS["ordinal"].metrics
    assert TASK.targets == DegreeTargets(SPEC.classes)


def test_outputs_for_other_degrees_are_refused_with_the_model_s_name() -> None:
    with pytest.raises(ModelError, match="3 logits between 4 degrees") as refused:
        TASK.refuse_outputs(torch.zeros(1, 4), "Small")
    assert refused.value.where == "Small"
    TASK.refuse_outputs(torch.zeros(1, 3), "Small")


@pytest.mark.parametrize(
    "degrees",
    [torch.zeros(5), torch.full((5,), 4), torch.full((5,), -1), None, torch.zeros(4).long()],
)
def test_targets_that_are_no_degrees_are_refused(degrees: torch.Tensor | None) -> None:
    with pytest.raises(TrainError, match="degrees"):
        TASK.loss(torch.zeros(5, 3), degrees)


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainError, match="aren't finite"):
        measure(torch.full((6, 3), math.nan))


def test_distillation_is_nothing_for_equal_answers_and_grows_with_their_distance() -> None:
    answers = torch.tensor([[2.0, 0.0, -1.0]])
    near = TASK.distance(answers + 0.1, answers, 4.0)
    far = TASK.distance(-answers, answers, 4.0)
    assert TASK.distance(answers, answers, 4.0) == pytest.approx(0, abs=1e-6)
    assert 0 < near < far


def test_categories_are_the_degrees() -> None:
    outputs = logits([0, 3, 1, 1, 2, 0])
    asked = TASK.categories(DEGREES, outputs)
    assert asked.choices == 4
    assert asked.chosen.flatten().tolist() == DEGREES.tolist()
    assert TASK.predicted_categories(outputs).chosen.flatten().tolist() == [0, 3, 1, 1, 2, 0]
