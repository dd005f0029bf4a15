"""Slices that are zero for a moment, and moved in blocks, are the same places as one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunedge.graph import masking as module
from prunedge.graph.masking import in_blocks, masking


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_too_small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGE", 0)
        yield


@st.composite
def places(draw: st.DrawFn) -> tuple[torch.Tensor, int, np.ndarray]:
    """A tensor, one of its dimensions, and indices along it: those of some blocks, or any, in any order."""
    block, blocks, other, dim = (
        draw(st.integers(*limits)) for limits in ((1, 5), (1, 6), (1, 3), (0, 1))
    )
    size = block * blocks
    chosen = draw(st.lists(st.integers(0, blocks - 1), min_size=1, unique=True))
    indices = (np.asarray(chosen)[:, None] * block + np.arange(block)).ravel()
    if draw(st.booleans()):
        indices = np.asarray(draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)))
    shape = (size, other, 2) if dim == 0 else (other, size, 2)
    tensor = torch.arange(float(np.prod(shape))).reshape(shape) + 1
    return tensor, dim, indices


@given(places())
def test_blocks_are_the_same_places(place: tuple[torch.Tensor, int, np.ndarray]) -> None:
    tensor, dim, indices = place
    view, where = in_blocks(tensor, dim, indices)
    wanted = tensor.index_select(dim, torch.as_tensor(indices))
    assert view.data_ptr() == tensor.data_ptr()
    assert torch.equal(view.index_select(dim, where).reshape(wanted.shape), wanted)


@given(places())
def test_zeroed_for_a_moment(place: tuple[torch.Tensor, int, np.ndarray]) -> None:
    tensor, dim, indices = place
    before, wanted = tensor.clone(), tensor.index_fill(dim, torch.as_tensor(indices), 0)
    with masking([(tensor, dim, indices)]):
        assert torch.equal(tensor, wanted)
    assert torch.equal(tensor, before)


def test_the_columns_of_a_channel_move_at_once() -> None:
    columns = (np.array([0, 1, 4])[:, None] * 49 + np.arange(49)).ravel()
    view, where = in_blocks(torch.zeros(3, 6 * 49), 1, columns)
    assert view.shape == (3, 6, 49)
    assert where.tolist() == [0, 1, 4]
