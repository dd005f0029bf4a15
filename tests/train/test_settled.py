"""What `balance=auto` comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prunedge as pe
from prunedge.config.sections import Balance
from prunedge.tasks import OF_BATCHES, make_task
from prunedge.train import TrainConfig, fit, make_engine
from prunedge.train.weighting import settled
from tests.masked_images import numbers_with, write_pair
from tests.train.test_learning_rate import lines

AUTO = TrainConfig()


def masked(root: Path, shown: int, count: int = 24) -> pe.Dataset:
    """Photographs of which `shown` in six show a line."""
    for index in range(count):
        numbers = numbers_with(index, line=index % 6 < shown)
        write_pair(root, f"{index:03d}", numbers, seed=index)
    return pe.load_folder(root / "photos", masks=root / "masks", size=32)


@pytest.mark.parametrize(("shown", "balance"), [(1, "sampler"), (2, "sampler"), (5, "none")])
def test_masks_that_mostly_show_nothing_are_drawn_evenly(
    tmp_path: Path, shown: int, balance: Balance
) -> None:
    data = masked(tmp_path, shown)
    task = make_task(data.spec)
    assert settled(AUTO, task, data.train).balance == balance
    for asked in ("none", "sampler"):
        config = replace(AUTO, balance=asked)
        assert settled(config, task, data.train) == config


def test_other_tasks_and_bare_batches_are_taken_as_they_are(tmp_path: Path) -> None:
    data = lines(tmp_path / "lines", 8)
    assert settled(AUTO, make_task(data.spec), data.train).balance == "none"
    batches = [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]
    assert settled(AUTO, OF_BATCHES, batches).balance == "none"


def test_a_training_draws_as_it_is_settled(tmp_path: Path) -> None:
    data = masked(tmp_path, 1)
    engine = make_engine()
    weights = []
    for balance in ("auto", "sampler", "none"):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, len(data.classes), 3, padding=1)
        config = TrainConfig(lr=0.01, batch_size=4, augment="none", balance=balance)
        fit(model, data.train, epochs=1, config=config, engine=engine, seed=0)
        weights.append(model.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
