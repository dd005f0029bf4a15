"""Multilabel: its metrics, its constant answer, its gallery."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

import prunedge as pe
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import Decision
from prunedge.edge.tasks.multilabel import LabelTargets
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import TASKS, Metrics, make_task
from prunedge.utils.records import require

SPEC = TaskSpec(name="multilabel", classes=("crack", "rust", "spall"), size=(16, 16))
TASK = make_task(SPEC)
TARGETS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 1, 0]])


def logits(answers: list[list[int]]) -> torch.Tensor:
    return 10 * torch.tensor(answers).float() - 5


def measure(outputs: torch.Tensor, targets: torch.Tensor = TARGETS) -> Metrics:
    meter = TASK.meter()
    meter.update(meter.observe(outputs, targets))
    return meter.compute()


def random_answers(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(n, 3, generator=generator)
    return outputs, torch.randint(2, (n, 3), generator=generator).float()


def test_metrics_agree_with_scikit_learn() -> None:
    outputs, targets = random_answers(60)
    found = measure(outputs, targets)
    truth = targets.numpy()
    scores = outputs.double().sigmoid().numpy()
    guesses = scores >= 0.5
    precision = reference.average_precision_score(truth, scores, average=None)
    assert found.average_precision == pytest.approx(precision, abs=1e-6)
    assert found.map == pytest.approx(precision.mean(), abs=1e-6)
    assert found.f1 == pytest.approx(reference.f1_score(truth, guesses, average="macro"), abs=1e-6)
    assert found.exact == reference.accuracy_score(truth, guesses)
    counts = reference.multilabel_confusion_matrix(truth, guesses)
    assert np.array_equal(found.presence, counts)
    assert found.n == 60


def test_the_loss_is_the_mean_over_images_of_the_mean_over_classes() -> None:
    outputs, targets = random_answers(7)
    by_hand = []
    for row, wanted in zip(outputs.double().sigmoid(), targets, strict=True):
        each = [math.log(p) if t else math.log(1 - p) for p, t in zip(row, wanted, strict=True)]
        by_hand.append(-sum(each) / 3)
    assert float(TASK.loss(outputs, targets)) == pytest.approx(sum(by_hand) / 7, rel=1e-6)
    alone = [TASK.loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(7)]
    together = float(TASK.loss(outputs, targets))
    assert float(torch.stack(alone).mean()) == pytest.approx(together, rel=1e-6)
    assert measure(outputs, targets).loss == pytest.approx(sum(by_hand) / 7, rel=1e-9)
    assert TASK.loss(outputs, targets, double=True).dtype == torch.float64
    softened = float(TASK.loss(outputs, targets, label_smoothing=0.2))
    inverted = float(TASK.loss(outputs, 1 - targets))
    assert softened == pytest.approx(0.9 * together + 0.1 * inverted, rel=1e-6)


def test_a_class_without_images_counts_in_no_average_precision() -> None:
    targets = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    found = measure(logits([[1, 0, 0], [0, 1, 0], [0, 0, 0]]), targets)
    assert found.average_precision == [1.0, 1.0, None]
    assert found.map == 1.0
    assert measure(logits([[1, 0, 0]]), torch.zeros(1, 3)).map is None
    assert TASK.undefined("map", [(0,), ()]) is None
    assert TASK.undefined("map", [(), ()]) == "crack"
    assert TASK.undefined("exact", [(), ()]) is None


def test_metrics_go_through_json_and_are_the_task_s_record() -> None:
    for targets in (TARGETS, torch.zeros(5, 3)):
        found = measure(random_answers(5)[0], targets)
        plain = json.loads(json.dumps(found.to_json()))
        require(TASKS["multilabel"].record, plain)
        assert Metrics.from_json(plain) == found


@given(st.integers(1, 7), st.integers(0, 2**16))
def test_batches_of_any_size_give_the_same_metrics(batch: int, seed: int) -> None:
    outputs, targets = random_answers(19, seed)
    meter = TASK.meter()
    for start in range(0, 19, batch):
        rows = slice(start, start + batch)
        meter.update(meter.observe(outputs[rows], targets[rows]))
    assert meter.compute() == measure(outputs, targets)


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([[0, 0, 0]] * 5, "no class"),
        ([[1, 1, 0]] * 5, "crack, rust"),
        ([[1, 1, 0]] * 4 + [[1, 0, 0]], None),
    ],
)
def test_a_single_answer_is_noticed(answers: list[list[int]], name: str | None) -> None:
    only = TASK.only_answer(measure(logits(answers)))
    assert (None if only is None else TASK.answer_name(only)) == name


def test_scores_that_order_the_images_are_no_single_answer() -> None:
    """Of rare classes none may pass a half after a few epochs."""
    outputs = TARGETS - 5.0
    metrics = measure(outputs)
    assert metrics.map == 1.0
    assert TASK.only_answer(metrics) is None


def test_a_split_of_images_that_are_labelled_alike_says_nothing() -> None:
    assert TASK.only_answer(measure(logits([[1, 0, 0]] * 3), TARGETS[:1].expand(3, 3))) is None


@pytest.mark.parametrize("metric", TASK.metrics)
def test_the_constant_answer_scores_what_a_model_that_gives_it_scores(metric: str) -> None:
    other = measure(random_answers(5)[0])
    constant = TASK.constant(other, metric)
    assert 0 <= constant.answer < TASK.answers
    named = [int(name in TASK.answer_name(constant.answer)) for name in SPEC.classes]
    dull = measure(logits([named] * 5))
    assert constant.score == pytest.approx(dull.value(metric))
    assert TASK.answer_name(TASK.constant(other, "exact").answer) == "crack, rust"


def test_equal_scores_for_all_images_are_a_silent_model() -> None:
    assert TASK.has_constant_outputs(measure(torch.tensor([[0.3, -2.0, 1.0]]).expand(5, 3)))
    assert not TASK.has_constant_outputs(measure(random_answers(5)[0]))
    assert TASK.uninformed_loss(measure(torch.zeros(5, 3))) == pytest.approx(
        measure(torch.zeros(5, 3)).loss
    )


def test_the_gallery_has_what_the_second_model_gets_wrong_and_the_first_does_not() -> None:
    right = TARGETS.int().tolist()
    wrong = [[1, 0, 1], *right[1:4], [0, 0, 0]]
    meters = []
    for answers in ([*right[:2], [1, 1, 1], *right[3:]], wrong):
        meter = TASK.meter()
        meter.update(meter.observe(logits(answers), TARGETS))
        meters.append(meter)
    examples = TASK.examples(*meters)
    assert [(one.index, one.truth, one.before, one.after) for one in examples] == [
        (0, "crack", "crack", "crack, spall"),
        (4, "crack, rust", "crack, rust", "no class"),
    ]
    assert all(0.97 < one.confidence_after < 0.99 for one in examples)


def test_metrics_go_by_one_half_whatever_a_bundle_decides() -> None:
    """So that figures of a run and of its bundle are of the same answers."""
    decision = Decision(damage=("crack",), threshold=0.9)
    meter = make_task(SPEC.model_copy(update={"decision": decision})).meter()
    meter.update(meter.observe(torch.tensor([[1.0, 1.0, -1.0]]), torch.tensor([[1.0, 1, 0]])))
    assert meter.compute().exact == 1


def test_a_head_has_an_output_for_each_class_also_for_a_single_one() -> None:
    assert TASK.outputs == 3
    single = make_task(SPEC.model_copy(update={"classes": ("crack",)}))
    meter = single.meter()
    meter.update(meter.observe(torch.tensor([[2.0], [-2.0]]), torch.tensor([[1.0], [0.0]])))
    assert meter.compute().exact == meter.compute().map == 1


def test_both_halves_have_the_same_metrics_and_targets() -> None:
    for name, definition in TASKS.items():
        assert definition.metrics is DEFINITIONS[name].metrics
    assert TASK.targets == LabelTargets(SPEC.classes)


def test_outputs_for_other_classes_are_refused_with_the_model_s_name() -> None:
    with pytest.raises(ModelError, match="for each of 3 classes") as refused:
        TASK.refuse_outputs(torch.zeros(1, 2), "Small")
    assert refused.value.where == "Small"
    TASK.refuse_outputs(torch.zeros(1, 3), "Small")


@pytest.mark.parametrize(
    "targets", [torch.zeros(5, dtype=torch.long), torch.full((5, 3), 0.5), None, torch.zeros(4, 3)]
)
def test_targets_that_are_no_zeros_and_ones_are_refused(targets: torch.Tensor | None) -> None:
    with pytest.raises(TrainError, match="targets"):
        TASK.loss(torch.zeros(5, 3), targets)


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainError, match="aren't finite"):
        measure(torch.full((5, 3), math.nan))


def test_distillation_is_nothing_for_equal_answers_and_grows_with_their_distance() -> None:
    answers = torch.tensor([[2.0, 0.0, -1.0]])
    near = TASK.distance(answers + 0.1 * torch.eye(3)[:1], answers, 4.0)
    far = TASK.distance(-answers, answers, 4.0)
    assert TASK.distance(answers, answers, 4.0) == pytest.approx(0, abs=1e-7)
    assert 0 < near < far


def test_categories_are_a_question_for_each_class() -> None:
    outputs = logits([[1, 0, 1]] * 5)
    asked = TASK.categories(TARGETS, outputs)
    assert asked.choices == 2
    assert asked.chosen.tolist() == TARGETS.long().tolist()
    assert TASK.predicted_categories(outputs).chosen.tolist() == [[1, 0, 1]] * 5


def test_nothing_outside_of_the_tasks_asks_which_task_it_is() -> None:
    source = Path(pe.__file__).parent
    for file in source.rglob("*.py"):
        if file.parent.name == "tasks":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_name = isinstance(node, ast.Constant) and node.value in TASKS
            assert not is_name, f"{file.relative_to(source)}:{node.lineno} names a task"
