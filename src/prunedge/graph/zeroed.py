"""A network without some of its slices, for a moment: they are zero in the network itself, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def zeroed(slices: Iterable[tuple[torch.Tensor, int, torch.Tensor]]) -> Iterator[None]:
    """While inside, these (tensor, dim, int64 indices along it) are zero. A masked copy would take the memory of all weights again."""
    kept = []
    with torch.no_grad():
        try:
            for tensor, dim, indices in slices:
                where = indices.to(tensor.device)
                kept.append((tensor, dim, where, tensor.index_select(dim, where)))
                tensor.index_fill_(dim, where, 0)
            yield
        finally:
            for tensor, dim, where, values in reversed(kept):
                tensor.index_copy_(dim, where, values)
