from __future__ import annotations

import pytest
import torch

from prunedge.train import measure
from prunedge.train.oneclass import largest_class, majority, only_answer

LABELS = torch.tensor([0, 1, 1, 1, 2])


def logits(answers: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(answers), 3).float()


@pytest.mark.parametrize(("answers", "only"), [([1, 1, 1, 1, 1], 1), ([2, 2, 2, 2, 2], 2), ([1, 1, 1, 1, 0], None)])
def test_a_single_answer_is_noticed(answers: list[int], only: int | None) -> None:
    assert only_answer(measure(logits(answers), LABELS)) == only


def test_a_split_of_one_class_says_nothing() -> None:
    assert only_answer(measure(logits([1, 1, 1]), torch.tensor([1, 1, 1]))) is None


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc"])
def test_the_largest_class_scores_what_a_network_that_answers_it_scores(metric: str) -> None:
    dull = measure(logits([1] * 5), LABELS)
    other = measure(logits([0, 0, 2, 1, 0]), LABELS)
    assert largest_class(other) == 1
    assert majority(other, metric) == pytest.approx(dull.value(metric))
