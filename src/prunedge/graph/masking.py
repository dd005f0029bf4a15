"""A model without some of its slices, for a moment: they are zero in it, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_LARGE = 2**22  # elements, below which looking for blocks takes longer than they save


@contextmanager
def masking(slices: Iterable[tuple[torch.Tensor, int, np.ndarray]]) -> Iterator[None]:
    """While inside, these (tensor, dim, int64 indices along it) are zero.

    A masked copy would take the memory of all weights again.
    """
    kept = []
    with torch.no_grad():
        try:
            for tensor, dim, indices in slices:
                view, where = in_blocks(tensor, dim, indices)
                kept.append((view, dim, where, view.index_select(dim, where)))
                view.index_fill_(dim, where, 0)
            yield
        finally:
            for view, dim, where, values in reversed(kept):
                view.index_copy_(dim, where, values)


def in_blocks(
    tensor: torch.Tensor, dim: int, indices: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same places of the tensor by fewer, larger pieces.

    Gives a view whose `dim` counts blocks, and the blocks' indices. Blocks are as large as all runs
    of indices allow: the columns of one channel after a flatten move at once, in half the time. The
    view has a dimension more, after `dim`, unless blocks are of one index each.
    """
    if tensor.numel() < _LARGE:
        return tensor, torch.as_tensor(indices, device=tensor.device)
    starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)
    sizes = (indices[starts], starts, [len(indices), tensor.shape[dim]])
    block = int(np.gcd.reduce(np.concatenate(sizes)))
    view = tensor if block == 1 else tensor.unflatten(dim, (-1, block))
    return view, torch.as_tensor(indices[::block] // block, device=tensor.device)
