"""Weights of rare classes and the focal loss: what they are by hand, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from prunedge.edge.tasks import DEFINITIONS, refusal_of
from prunedge.edge.tasks.base import Scale, TaskSpec
from prunedge.errors import TrainError
from prunedge.tasks import LossWeighting, make_task
from prunedge.tasks.weighting import (
    MOST,
    class_weights,
    label_weights,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)

COUNTS = st.lists(st.integers(0, 5000), min_size=2, max_size=6).filter(any)


def spec(task: str) -> TaskSpec:
    scales = ()
    if task == "regression":
        scales = (Scale(mean=1.0, deviation=1.0, median=1.0, lowest=0.0, highest=2.0),) * 3
    return TaskSpec(name=task, classes=("free", "crack", "stain"), size=(16, 16), scales=scales)


@given(COUNTS)
def test_the_mean_weight_of_an_image_is_1_and_none_is_over_the_cap(counts: list[int]) -> None:
    weights = class_weights(np.array(counts)).double()
    images = torch.tensor(counts, dtype=torch.float64)
    assert float((weights * images).sum() / images.sum()) == pytest.approx(1, rel=1e-5)
    assert float(weights.max() / weights.min()) <= MOST * (1 + 1e-5)
    order = images.argsort()
    assert bool((weights[order].diff() <= 1e-6).all()), "rarer classes weigh no less"


@given(st.lists(st.integers(100, 1999), min_size=2, max_size=5))
def test_weights_below_the_cap_are_scikit_learns(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    wanted = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(class_weights(np.array(counts)).numpy(), wanted, rtol=1e-5)


@given(st.integers(0, 2**16), st.integers(2, 5), st.floats(0, 0.5))
def test_without_weights_and_gamma_it_is_cross_entropy(
    seed: int, classes: int, soft: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(9, classes, generator=generator)
    labels = torch.randint(classes, (9,), generator=generator)
    found = weighted_cross_entropy(logits, labels, LossWeighting(), label_smoothing=soft)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, label_smoothing=soft))
    tiny = weighted_cross_entropy(logits, labels, LossWeighting(focal=1e-12))
    torch.testing.assert_close(tiny, F.cross_entropy(logits, labels))


@given(st.integers(0, 2**16), st.floats(0.5, 5))
def test_the_focal_loss_is_equation_5_of_its_paper(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(7, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (7,), generator=generator)
    weights = torch.tensor([0.5, 2.0, 4.0])
    p = logits.softmax(1)[torch.arange(7), labels]
    wanted = (weights[labels] * -((1 - p) ** gamma) * p.log()).mean()
    found = weighted_cross_entropy(logits, labels, LossWeighting(weights, gamma))
    torch.testing.assert_close(found, wanted)


@given(st.integers(0, 2**16), st.floats(1, 5))
def test_the_focal_loss_of_labels_is_torchvisions(seed: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(7, 3, generator=generator)
    wanted = torch.randint(2, (7, 3), generator=generator).float()
    found = weighted_binary_cross_entropy(logits, wanted, LossWeighting(focal=gamma))
    reference = sigmoid_focal_loss(logits, wanted, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(found, reference)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
def test_the_gradient_is_finite_where_an_answer_is_certain(gamma: float) -> None:
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0]], requires_grad=True)
    weighting = LossWeighting(focal=gamma)
    weighted_cross_entropy(logits, torch.tensor([0, 0]), weighting).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    logits.grad = None
    weighted_binary_cross_entropy(logits, torch.eye(2), weighting).backward()
    assert bool(logits.grad.isfinite().all())


def test_a_rare_label_has_pos_weight() -> None:
    weights = label_weights(np.array([25, 50]), 100)
    torch.testing.assert_close(weights[1] / weights[0], torch.tensor([3.0, 1.0]))
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    plain = F.binary_cross_entropy_with_logits(
        logits, wanted, pos_weight=torch.tensor([3.0, 1.0]), reduction="none"
    )
    found = weighted_binary_cross_entropy(logits, wanted, LossWeighting(weights))
    torch.testing.assert_close(found, (plain * weights[0]).mean())


@pytest.mark.parametrize("task", ["classification", "multilabel", "ordinal"])
def test_equal_weights_are_the_task_s_own_loss(task: str) -> None:
    made = make_task(spec(task))
    targets = torch.tensor([0, 1, 2, 1])
    if task == "multilabel":
        targets = F.one_hot(targets, 3).float()
    outputs = torch.randn(4, made.outputs, generator=torch.Generator().manual_seed(1))
    weights = torch.ones_like(made.loss_weights(targets.numpy()))
    for soft in (0.0, 0.1):
        found = made.weighted_loss(outputs, targets, LossWeighting(weights), label_smoothing=soft)
        torch.testing.assert_close(found, made.loss(outputs, targets, label_smoothing=soft))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Several processes share a batch: dividing by the weights' sum would not add up."""
    made = make_task(spec("classification"))
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([0, 0, 0, 0, 1, 2])
    weighting = LossWeighting(made.loss_weights(targets.numpy()), 2.0)
    whole = made.weighted_loss(outputs, targets, weighting)
    first = made.weighted_loss(outputs[:4], targets[:4], weighting)
    second = made.weighted_loss(outputs[4:], targets[4:], weighting)
    torch.testing.assert_close(whole, (4 * first + 2 * second) / 6)


@pytest.mark.parametrize(
    ("task", "balance", "focal", "words"),
    [
        ("multilabel", "sampler", 0.0, "use balance='loss'"),
        ("regression", "loss", 0.0, "has no classes: leave it out"),
        (
            "regression",
            "none",
            2.0,
            "but with classification, multilabel and segmentation: leave it out",
        ),
        ("ordinal", "none", 2.0, "focal=2.0 can't be had with task='ordinal'"),
    ],
)
def test_what_a_task_can_t_balance_is_said(
    task: str, balance: str, focal: float, words: str
) -> None:
    refused = refusal_of(task, balance, focal)
    assert refused is not None
    assert words in refused


def test_what_is_not_refused_has_a_loss() -> None:
    for name, definition in DEFINITIONS.items():
        made = make_task(spec(name))
        assert refusal_of(name, "none", 0.0) is None
        assert ("loss" in definition.balances) == (refusal_of(name, "loss", 0.0) is None)
        if "loss" not in definition.balances:
            with pytest.raises(TrainError, match="classes"):
                made.loss_weights(np.zeros((4, 3)))
