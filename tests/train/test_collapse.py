from __future__ import annotations

import pytest
import torch

from prunedge.train import measure
from prunedge.train.collapse import Taught, largest_class, majority, one_class_warning, only_answer
from prunedge.utils.advice import speaking

LABELS = torch.tensor([0, 1, 1, 1, 2])


def logits(answers: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(answers), 3).float()


@pytest.mark.parametrize(
    ("answers", "only"), [([1, 1, 1, 1, 1], 1), ([2, 2, 2, 2, 2], 2), ([1, 1, 1, 1, 0], None)]
)
def test_a_single_answer_is_noticed(answers: list[int], only: int | None) -> None:
    assert only_answer(measure(logits(answers), LABELS)) == only


def test_a_split_of_one_class_says_nothing() -> None:
    assert only_answer(measure(logits([1, 1, 1]), torch.tensor([1, 1, 1]))) is None


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc"])
def test_the_largest_class_scores_what_a_model_that_answers_it_scores(metric: str) -> None:
    dull = measure(logits([1] * 5), LABELS)
    other = measure(logits([0, 0, 2, 1, 0]), LABELS)
    assert largest_class(other) == 1
    assert majority(other, metric) == pytest.approx(dull.value(metric))


@pytest.mark.parametrize(
    ("taught", "has", "lacks"),
    [
        (
            Taught(10, True, 0.003),
            ("a lower --lr (it was 0.003: try 0.0006)", "more epochs"),
            ("weights",),
        ),
        (Taught(10, False, 0.02), ("--lr", "pretrained --weights"), ()),
        (Taught(0, False, 0.02), ("--train-epochs 10",), ("--lr", "lower")),
        (
            Taught(10, True, 0.003, "runs/vgg"),
            ("not from runs/vgg", "lower learning rate (it was 0.003"),
            ("--lr", "weights"),
        ),
        (
            Taught(0, True, None, "runs/vgg"),
            ("not from runs/vgg", "trained on these images"),
            ("--lr", "lower"),
        ),
        (
            Taught(10, True, 0.0003, tried_lower=True),
            ("more epochs, or on more images",),
            ("--lr", "try"),
        ),
        (None, ("pe.fit(", "lr=..."), ("--",)),
    ],
)
def test_advice_is_what_can_be_done_there(
    taught: Taught | None, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    with speaking("command"):
        advice = one_class_warning("crack", taught).partition(": ")[2]
    assert all(word in advice for word in has) and not any(word in advice for word in lacks)


def test_a_study_is_told_its_own_keys() -> None:
    with speaking("study"):
        assert "`lr`" in one_class_warning(
            "crack", Taught(10, True, 0.003)
        ) and "--" not in one_class_warning("crack", Taught(0, True))
