"""Classification: its metrics, its constant answer, its gallery."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import ClassTargets
from prunedge.edge.tasks.decision import DamageSpec
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import OF_BATCHES, TASKS, Metrics, make_task, packed, unpacked
from prunedge.tasks.classification import ClassificationMeter, measure

SPEC = TaskSpec(name="classification", classes=("crack", "sound", "stain"), size=(16, 16))
TASK = make_task(SPEC)
LABELS = torch.tensor([0, 1, 1, 1, 2])


def logits(answers: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(answers), 3).float()


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_agree_with_scikit_learn(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(60, classes, generator=generator) * 2
    labels = torch.randint(classes, (60,), generator=generator)
    found, guesses, p = measure(logits, labels), logits.argmax(1).numpy(), logits.softmax(1).numpy()
    truth = labels.numpy()
    auroc = np.mean([reference.roc_auc_score(truth == k, p[:, k]) for k in range(classes)])
    assert found.accuracy == reference.accuracy_score(truth, guesses)
    assert found.f1 == pytest.approx(reference.f1_score(truth, guesses, average="macro"), abs=1e-6)
    assert found.auroc == pytest.approx(auroc, abs=1e-6)
    assert found.loss == pytest.approx(
        reference.log_loss(truth, p, labels=range(classes)), abs=1e-5
    )
    assert np.array_equal(found.confusion, reference.confusion_matrix(truth, guesses))
    assert found.n == 60


def test_a_class_without_images_has_no_auroc() -> None:
    found = measure(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert found.auroc is None
    assert found.value("accuracy") == 1.0
    with pytest.raises(TrainError, match="auroc isn't defined"):
        found.value("auroc")
    with pytest.raises(TrainError, match="no metric is called 'speed'"):
        found.value("speed")


def test_metrics_go_through_json() -> None:
    for labels in ([0, 1], [0, 0]):
        found = measure(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor(labels))
        assert Metrics.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(st.integers(1, 7), st.integers(0, 2**16))
def test_batches_of_any_size_give_the_same_metrics(batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(19, 3, generator=generator)
    labels = torch.randint(3, (19,), generator=generator)
    meter = ClassificationMeter(3)
    for start in range(0, 19, batch):
        rows = slice(start, start + batch)
        meter.update(meter.observe(outputs[rows], labels[rows]))
    assert meter.compute() == measure(outputs, labels)


@pytest.mark.parametrize(
    ("answers", "only"), [([1, 1, 1, 1, 1], 1), ([2, 2, 2, 2, 2], 2), ([1, 1, 1, 1, 0], None)]
)
def test_a_single_answer_is_noticed(answers: list[int], only: int | None) -> None:
    assert TASK.only_answer(measure(logits(answers), LABELS)) == only


def test_a_rare_class_that_is_ranked_but_never_answered_is_no_single_answer() -> None:
    labels = torch.tensor([1] * 18 + [0, 2])
    spread = torch.zeros(20, 3)
    spread[:, 1] = 3.0
    assert TASK.only_answer(measure(spread, labels)) == 1, "equal scores"
    spread[18, 0] = 1.0
    spread[19, 2] = 1.0
    assert TASK.only_answer(measure(spread, labels)) is None
    even = torch.tensor([0, 1, 2, 1])
    ranked = torch.tensor([[1.0, 3, 0], [0, 3, 0], [0, 3, 1], [0, 3, 0]])
    assert TASK.only_answer(measure(ranked, even)) == 1, "no class is rare"


def test_a_split_of_one_class_says_nothing() -> None:
    metrics = measure(logits([1, 1, 1]), torch.tensor([1, 1, 1]))
    assert TASK.only_answer(metrics) is None


@pytest.mark.parametrize("metric", TASK.metrics)
def test_the_constant_answer_scores_what_a_model_that_gives_it_scores(metric: str) -> None:
    costs = DamageSpec(miss=3.0, alarm=1.0)
    task = make_task(SPEC.model_copy(update={"damage": costs}))
    dull = measure(logits([1] * 5), LABELS, SPEC.classes, costs)
    other = measure(logits([0, 0, 2, 1, 0]), LABELS, SPEC.classes, costs)
    constant = task.constant(other, metric)
    # Where a miss is dear, calling everything damaged costs less than calling nothing so.
    assert task.answer_name(constant.answer) == ("crack" if metric == "cost" else "sound")
    assert constant.score == pytest.approx(dull.value(metric))


def test_the_gallery_has_what_the_second_model_gets_wrong_and_the_first_does_not() -> None:
    meters = []
    for answers in ([0, 1, 1, 0, 2], [0, 2, 1, 0, 0]):
        meter = TASK.meter()
        meter.update(meter.observe(5 * logits(answers), LABELS))
        meters.append(meter)
    examples = TASK.examples(*meters)
    assert [(one.index, one.truth, one.before, one.after) for one in examples] == [
        (1, "sound", "sound", "stain"),
        (4, "stain", "stain", "crack"),
    ]
    assert all(0.9 < one.confidence_after <= 1 for one in examples)


def test_a_head_has_an_output_for_each_class() -> None:
    assert TASK.outputs == 3


def test_both_halves_know_the_same_tasks() -> None:
    assert TASKS.keys() == DEFINITIONS.keys()


def test_targets_are_those_that_images_were_listed_with() -> None:
    assert TASK.targets == ClassTargets(SPEC.classes)


def test_auroc_lacks_a_class_without_images_and_accuracy_does_not() -> None:
    assert TASK.undefined("auroc", [0, 1, 1]) == "stain"
    assert TASK.undefined("accuracy", [0, 1, 1]) is None


def test_outputs_for_other_classes_are_refused_with_the_model_s_name() -> None:
    with pytest.raises(ModelError, match="2 outputs for 3 classes") as refused:
        TASK.refuse_outputs(torch.zeros(1, 2), "Small")
    assert refused.value.where == "Small"
    OF_BATCHES.refuse_outputs(torch.zeros(1, 2), "Small")


def test_distillation_is_nothing_for_equal_answers_and_grows_with_their_distance() -> None:
    answers = torch.tensor([[2.0, 0.0, 1.0]])
    near = TASK.distance(answers + 0.1 * torch.eye(3)[:1], answers, 4.0)
    far = TASK.distance(-answers, answers, 4.0)
    assert TASK.distance(answers, answers, 4.0) == pytest.approx(0, abs=1e-7)
    assert 0 < near < far


@given(st.lists(st.booleans(), max_size=70))
def test_answers_survive_packing(correct: list[bool]) -> None:
    assert unpacked(packed(correct)).tolist() == correct


def test_a_task_that_nobody_knows_is_refused() -> None:
    from prunedge.errors import PrunedgeError

    with pytest.raises(PrunedgeError, match="'palmistry' is not known") as refused:
        make_task(SPEC.model_copy(update={"name": "palmistry"}))
    assert all(name in str(refused.value) for name in TASKS)
