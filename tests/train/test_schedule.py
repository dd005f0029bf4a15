from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunedge.errors import TrainError
from prunedge.train import TrainConfig, TransferSettings
from prunedge.train.optim import make_optimizer
from prunedge.train.schedule import learning_rate
from tests.train.tiny import model


def test_the_rate_climbs_in_a_line_and_falls_in_a_cosine() -> None:
    recipe = TrainConfig(lr=1.0, warmup=0.3, final=0.0)
    rates = [learning_rate(batch, 10, recipe) for batch in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.0)
    assert rates[3:] == sorted(rates[3:], reverse=True)


@pytest.mark.parametrize("total", [1, 2])
def test_very_short_trainings_still_learn(total: int) -> None:
    assert all(learning_rate(batch, total, TrainConfig(lr=1.0)) > 0 for batch in range(total))


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(
        TrainError,
        match=r"lr = -1 \(a number above 0\); batch_size = 1 .*; metric = 'speed' \(one of accuracy, f1, auroc, ",
    ):
        TrainConfig(lr=-1, batch_size=1, metric="speed")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": "a"}, r"lr = 'a' \(a number above 0\)"),
        ({"lr": None}, r"lr = None \(a number above 0\)"),
        ({"batch_size": 2.5}, r"batch_size = 2\.5 \(a whole number, at least 2\)"),
        ({"batch_size": "8"}, r"batch_size = '8' \(a whole number"),
        ({"clip": float("nan")}, r"clip = nan \(a number above 0\)"),
        ({"distill": True}, r"distill = True \(a number from 0 to 1\)"),
        ({"augment": ["flips"]}, r"augment = \['flips'\] \(one of"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_rule(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainError, match=words):
        TrainConfig(**wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    config = TrainConfig(lr=np.float32(0.5), batch_size=np.int64(8))  # type: ignore[arg-type]
    assert config.lr == 0.5


def test_weight_decay_spares_biases_and_normalisation() -> None:
    groups = make_optimizer(model(), TrainConfig(weight_decay=0.1)).param_groups
    assert {
        tuple(sorted({one.ndim for one in group["params"]})): group["weight_decay"]
        for group in groups
    } == {
        (2, 4): 0.1,
        (1,): 0.0,
    }


def test_random_weights_are_trained_boldly_and_plain_models_gently() -> None:
    normalised, plain = model(), model()[:1]
    assert (
        TransferSettings(pretrained=False).config(normalised).lr
        > TransferSettings(pretrained=True).config(normalised).lr
    )
    assert (
        TransferSettings(pretrained=False).config(plain).lr
        < TransferSettings(pretrained=False).config(normalised).lr
    )
    assert TransferSettings(pretrained=False, lr=0.3, metric="f1").config(plain) == TrainConfig(
        lr=0.3, metric="f1", warmup=0.2
    )


def test_rewinding_goes_through_the_end_of_the_schedule_again() -> None:
    whole = [learning_rate(batch, 100, TrainConfig(lr=1.0)) for batch in range(100)]
    rewound = TrainConfig(lr=1.0, start=0.8)
    assert [learning_rate(batch, 20, rewound) for batch in range(20)] == pytest.approx(whole[80:])


@pytest.mark.parametrize(
    "wrong", [{"start": 1.0}, {"distill": 1.5}, {"temperature": 0.0}, {"augment": "more"}]
)
def test_impossible_aids_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainError, match=next(iter(wrong))):
        TrainConfig(**wrong)  # type: ignore[arg-type]
