"""A first training that is cut off goes on from its last epoch, to the very same model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prunedge import data as images
from prunedge.graph import trace
from prunedge.importance import gathered_while_training
from prunedge.runs import checkpoint as module
from prunedge.runs.checkpoint import NAME, RunCheckpointer
from prunedge.train import FitResult, TrainConfig, TrainExtras, fit, make_engine
from tests.slow_cases import some_slow
from tests.small_models import Residual, randomise

PLAIN = TrainConfig(lr=0.05, batch_size=8)
OTHERS = [
    replace(PLAIN, optimizer="adamw", lr=0.005),
    replace(PLAIN, ema=0.9),
    replace(PLAIN, freeze=1),
    replace(PLAIN, layer_decay=0.5),
    replace(PLAIN, balance="sampler"),
    replace(PLAIN, balance="loss", focal=2.0),
    replace(PLAIN, optimizer="adamw", lr=0.005, ema=0.95, freeze=1, layer_decay=0.7, patience=1),
]


class Cut(Exception):
    """The machine goes off."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> images.Dataset:
    from tests.tiny_images import write_tiny

    return images.load(
        write_tiny(tmp_path_factory.mktemp("images")),
        size=16,
        cache_dir=tmp_path_factory.mktemp("cache"),
    )


def train(
    data: images.Dataset,
    folder: Path | None,
    cut: int | None = None,
    config: TrainConfig = PLAIN,
) -> FitResult:
    """Five epochs; `cut` ends it in the middle of that epoch."""
    model = randomise(Residual())
    collector = gathered_while_training("taylor", trace(model, data.example()))
    keeper = RunCheckpointer(folder) if folder else None

    def progress(done: int, total: int, what: str) -> None:
        if cut is not None and done > total * (cut + 0.5) / 5:
            raise Cut

    return fit(
        model,
        data.train,
        epochs=5,
        config=config,
        engine=make_engine("32"),
        seed=3,
        val=data.val,
        extras=TrainExtras(collector=collector, progress=progress, checkpointer=keeper),
    )


def same(one: FitResult, other: FitResult) -> None:
    for (name, a), (_, b) in zip(
        one.model.state_dict().items(), other.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert one.best_epoch == other.best_epoch
    assert one.val == other.val
    assert [replace(epoch, seconds=0, seconds_evaluate=0) for epoch in one.history] == [
        replace(epoch, seconds=0, seconds_evaluate=0) for epoch in other.history
    ]
    if other.collected is None:
        assert one.collected is None
    else:
        for name, values in other.collected.values.items():
            assert torch.equal(one.collected.values[name], values)
    assert one.optimizer_state.keys() == other.optimizer_state.keys()
    assert all(
        torch.equal(one.optimizer_state[name][key], value)
        for name, held in other.optimizer_state.items()
        for key, value in held.items()
    )


@pytest.mark.parametrize("cuts", [(1,), (2, 4), (1, 2, 3, 4)])
def test_a_training_goes_on_to_the_same_end(
    data: images.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuts: tuple[int, ...]
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    for cut in cuts:
        with pytest.raises(Cut):
            train(data, tmp_path, cut)
        kept = RunCheckpointer(tmp_path).kept()
        assert kept is not None
        assert kept.epochs == cut
        assert len(kept.history) == cut
    same(train(data, tmp_path), train(data, None))


@pytest.mark.parametrize("config", some_slow(OTHERS, OTHERS[:5]))
def test_however_it_learns_a_training_goes_on_to_the_same_end(
    data: images.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: TrainConfig
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    for cut in (1, 3):
        try:
            train(data, tmp_path, cut, config)
        except Cut:
            continue
        assert config.patience is not None
    same(train(data, tmp_path, config=config), train(data, None, config=config))


def test_a_training_that_patience_ended_is_not_gone_on_with(
    data: images.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    config = replace(PLAIN, patience=1)  # the second epoch is no better
    alone = train(data, None, config=config)
    assert len(alone.history) == 2
    # As if it had been killed between its last epoch and what follows the training.
    same(train(data, tmp_path, config=config), alone)
    same(train(data, tmp_path, config=config), alone)


def test_scores_that_were_gathered_otherwise_are_left(
    data: images.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    with pytest.raises(Cut):
        train(data, tmp_path, 2)
    same, other = (
        RunCheckpointer(tmp_path).kept(),
        RunCheckpointer(tmp_path, "another criterion").kept(),
    )
    assert same is not None
    assert same.best.collected is not None
    assert other is not None
    assert other.best.collected is None
    assert other.epochs == same.epochs == 2


def test_what_was_written_short_ago_is_not_written_again(
    data: images.Dataset, tmp_path: Path
) -> None:
    train(data, tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", None])
def test_what_cannot_be_read_begins_anew(
    data: images.Dataset, tmp_path: Path, content: Any
) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    assert RunCheckpointer(tmp_path).kept() is None
    RunCheckpointer(tmp_path).forget()
    assert not (tmp_path / NAME).exists()
