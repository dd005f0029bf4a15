"""Images drawn so that classes are equally frequent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunedge import data as images
from prunedge.data.sampler import balanced_order
from tests.tiny_images import write_tiny

KINDS = st.lists(st.integers(0, 4), max_size=120).map(lambda kinds: np.array(kinds, np.int64))


def order(kinds: np.ndarray, seed: int) -> np.ndarray:
    return balanced_order(kinds, torch.Generator().manual_seed(seed))


@given(KINDS, st.integers(0, 2**16))
def test_classes_are_equally_frequent_and_so_are_the_images_of_each(
    kinds: np.ndarray, seed: int
) -> None:
    drawn = order(kinds, seed)
    assert len(drawn) == len(kinds)
    assert np.array_equal(drawn, order(kinds, seed))
    if not len(kinds):
        return
    _, counts = np.unique(kinds[drawn], return_counts=True)
    assert len(counts) == len(np.unique(kinds))
    assert counts.max() - counts.min() <= 1
    times = np.bincount(drawn, minlength=len(kinds))
    for kind in np.unique(kinds):
        of_kind = times[kinds == kind]
        assert of_kind.max() - of_kind.min() <= 1


@pytest.fixture
def skewed(tmp_path: Path) -> images.Dataset:
    write_tiny(tmp_path / "images", 40, 16)
    for index in range(4, 20):
        (tmp_path / "images" / "crack" / f"{index:03d}.png").unlink()
    return images.load(tmp_path / "images", size=16, cache_dir=tmp_path / "cache")


def drawn(split: images.Split, seed: int, epoch: int, batch: int = 8) -> np.ndarray:
    batches = split.batches(batch, shuffle_seed=seed, epoch=epoch, balanced=True)
    return torch.cat([targets for _, targets in batches]).numpy()


def test_an_epoch_is_as_long_and_follows_from_the_seed_and_its_number(
    skewed: images.Dataset,
) -> None:
    split = skewed.train
    first = drawn(split, 1, 0)
    assert len(first) == len(split)
    assert abs(int((first == 0).sum()) - int((first == 1).sum())) <= 1
    assert np.array_equal(first, drawn(split, 1, 0))
    assert np.array_equal(first, drawn(split, 1, 0, batch=5))
    assert not np.array_equal(first, drawn(split, 1, 1))
    assert not np.array_equal(first, drawn(split, 2, 0))


def test_several_processes_see_the_same_epoch(skewed: images.Dataset) -> None:
    batches = skewed.train.batches(8, shuffle_seed=1, balanced=True)
    whole = [targets for _, targets in batches]
    parts = [list(batches.shards(rank, 2)) for rank in range(2)]
    for index, targets in enumerate(whole):
        seen = [part[index].targets[: part[index].here] for part in parts]
        assert torch.equal(torch.cat(seen), targets)


def test_images_in_order_can_t_be_drawn(skewed: images.Dataset) -> None:
    with pytest.raises(ValueError, match="give a seed"):
        skewed.train.batches(8, balanced=True)
