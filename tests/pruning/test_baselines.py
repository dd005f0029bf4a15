"""The baselines: the same shape from random weights, the same proportions at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge import data as images
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.pruning.baselines import epochs_of, random, scratch
from prunedge.surgery import remove
from prunedge.train import TrainConfig, make_engine
from tests.pruning.test_loop import START
from tests.small_models import Residual, randomise

CONFIG = TrainConfig(lr=0.01, batch_size=8)


@pytest.fixture(scope="module")
def data(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    return images.load(tiny_data, size=16, cache_dir=tmp_path_factory.mktemp("cache"))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_scratch_has_the_shape_and_none_of_the_weights(data: images.Dataset) -> None:
    trained, plan = randomise(Residual()), Plan({"a": (0, 2), "stem": (1, 2, 3)})
    pruned = remove(trained, trace(trained, data.example()), plan)
    fitted = scratch(
        Residual(), plan, data, epochs=1, config=CONFIG, engine=make_engine("32"), seed=0
    )
    assert shapes(fitted.model) == shapes(pruned)
    assert not torch.allclose(fitted.model.a.weight, pruned.a.weight, atol=0.05)


def test_random_weights_of_fewer_inputs_are_larger(data: images.Dataset) -> None:
    torch.manual_seed(0)
    model = Residual()
    fitted = scratch(
        model,
        Plan({"a": (0, 2, 3)}),
        data,
        epochs=0,
        config=CONFIG,
        engine=make_engine("32"),
        seed=0,
    )
    torch.testing.assert_close(fitted.model.b.weight, model.b.weight[:, [0, 2, 3]] * 2**0.5)
    torch.testing.assert_close(fitted.model.a.weight, model.a.weight[[0, 2, 3]])


def test_random_leaves_as_many_channels_of_each_group_in_each_step(data: images.Dataset) -> None:
    trained = randomise(Residual())
    plans = [(Plan({"a": (0, 2, 3, 4)}), 1), (Plan({"a": (0, 2), "stem": (1, 2, 3)}), 1)]
    found = [
        random(trained, plans, data, config=CONFIG, engine=make_engine("32"), seed=seed)
        for seed in (0, 0, 1)
    ]
    for one in found:
        assert (
            one.model.a.out_channels,
            one.model.stem.out_channels,
            one.model.c.out_channels,
        ) == (2, 3, 10)
    same, other = (
        all(
            torch.equal(a, b)
            for a, b in zip(found[0].model.parameters(), net.model.parameters(), strict=True)
        )
        for net in found[1:]
    )
    assert same
    assert not other
    assert trained.a.out_channels == 6


def test_the_epochs_of_a_model_count_all_that_led_to_it() -> None:
    steps = [
        START,
        replace(START, index=1, start=0, epochs=4),
        replace(START, index=2, start=1, accepted=False, keeps_rule=False, epochs=4),
        replace(START, index=3, start=1, epochs=2),
        replace(START, index=4, start=3, epochs=2),
        replace(START, index=5, start=3, epochs=8, is_polish=True),
    ]
    assert epochs_of(steps, 3, 10) == 10 + 4 + 2
    assert epochs_of(steps, 5, 10) == 10 + 4 + 2 + 8
    assert epochs_of(steps, 1, 10) == 14
