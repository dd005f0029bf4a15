"""The masked model: its removed slices are zero, and what mixes channels mixes those that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunedge.graph import Statistic
from prunedge.graph.calls import Call, signature_of
from prunedge.graph.plan import Plan
from prunedge.graph.rules import over_for

# (operation, its number) -> for each dimension that loses positions those that stay
KeptByCall = dict[tuple[str, int], dict[int, torch.Tensor]]


class OverWhatStays(TorchDispatchMode):
    """Runs the calls that mix channels on the positions that stay.

    Zeros in place of channels would change a mean over them. How each operation runs is registered
    beside its rule (`prunedge.graph.rules`).
    """

    def __init__(self, statistics: tuple[Statistic, ...], plan: Plan) -> None:
        super().__init__()
        self._mixing = {statistic.op for statistic in statistics}
        self._kept = _kept_by_call(statistics, plan)
        self._calls: Counter[str] = Counter()

    @property
    def counted(self) -> Counter[str]:
        """How often each operation that mixes channels somewhere was called."""
        return self._calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = signature_of(func).text
        if operation not in self._mixing:
            return func(*args, **(kwargs or {}))

        kept = self._kept.get((operation, self._calls[operation]), {})
        self._calls[operation] += 1
        over = over_for(func)
        if not kept and not over.always:
            return func(*args, **(kwargs or {}))
        return over.run(Call.of(func, args, kwargs or {}), kept)


def _kept_by_call(statistics: tuple[Statistic, ...], plan: Plan) -> KeptByCall:
    masks: dict[tuple[str, int], dict[int, torch.Tensor]] = {}
    for statistic in statistics:
        for dim, layout in statistic.layouts:
            stays = torch.as_tensor(layout.mask(plan))
            # None of it stays where a whole head leaves: what is mixed inside it no longer matters.
            if stays.any() and not stays.all():
                by_dim = masks.setdefault((statistic.op, statistic.call), {})
                by_dim[dim] = stays & by_dim[dim] if dim in by_dim else stays

    kept: KeptByCall = {}
    for call, by_dim in masks.items():
        kept[call] = {dim: stays.nonzero().flatten() for dim, stays in by_dim.items()}
    return kept


def without(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    """A copy of the tensor with zeros at these indices of each dimension."""
    copy = tensor.clone()
    for dim, indices in dims.items():
        copy.index_fill_(dim, torch.as_tensor(indices, device=copy.device), 0)
    return copy
