"""Whoever judges or ranks a split asks the split's own task; of bare batches nobody knows another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import prunedge as pe
from prunedge.errors import TrainError
from prunedge.tasks import OF_BATCHES, Classification, task_of_batches
from tests.small_models import Residual, randomise, tiny


def test_a_split_knows_its_task(tiny_data: Path, tmp_path: Path) -> None:
    data = pe.load_folder(tiny_data, size=16, cache_dir=tmp_path)
    task = task_of_batches(data.val)
    assert isinstance(task, Classification)
    assert task.spec == data.spec
    assert data.val.take(2).spec == data.spec


def test_bare_batches_are_classified() -> None:
    assert task_of_batches([(torch.zeros(1, 3, 4, 4), torch.zeros(1))]) is OF_BATCHES


def test_a_model_of_other_classes_is_not_judged_by_a_split(tiny_data: Path, tmp_path: Path) -> None:
    data = pe.load_folder(tiny_data, size=16, cache_dir=tmp_path)
    with pytest.raises(TrainError, match="5 outputs for 2 classes"):
        pe.evaluate(tiny(5), data.val)
    batches = list(data.val.batches(8))
    assert pe.evaluate(tiny(5), batches).n == len(data.val)


def test_ranking_by_a_split_is_ranking_by_its_batches(tiny_data: Path, tmp_path: Path) -> None:
    data = pe.load_folder(tiny_data, size=16, cache_dir=tmp_path)
    model = randomise(Residual())
    graph = pe.trace(model, data.example())
    by_split = pe.rank(model, graph, data.val).values
    by_batches = pe.rank(model, graph, list(data.val.batches())).values
    assert by_split.keys() == by_batches.keys()
    assert all(by_split[name].equal(by_batches[name]) for name in by_split)
