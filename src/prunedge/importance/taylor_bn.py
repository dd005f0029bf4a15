"""Taylor expansion of the loss at the norms behind a channel: `taylor-bn`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph, Group
from prunedge.importance.consumers import refuse_without_norms, scales_of
from prunedge.importance.criteria import collected
from prunedge.importance.pending import settle
from prunedge.importance.scores import Scores, finished
from prunedge.utils.tracing import traced


@collected("gradients", "taylor-bn")
class ScaleCollector:
    """`taylor-bn`: the squared first-order change of the loss when a channel's norms give zero.

    theta = (sum over the group's norms of gamma * dC/dgamma + beta * dC/dbeta)^2, C the mean loss
    over all images (Molchanov et al. 2019, equation 9). Groups without a norm have no score.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[str, torch.Tensor] = {}
        self._examples = 0
        self._failed = ""
        self.drop_batch()

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """Say before each forward pass how many examples the batch holds.

        `here` of them pass in this process (None: all).
        """
        settle(self)
        self._batch = batch_size
        self._here = batch_size if here is None else here

    undecided = ""  # it sums over examples: which example a gradient is of makes no difference

    def drop_batch(self) -> None:
        """Forget the batch that has just gone forward and backward."""
        self._pending: dict[str, torch.Tensor] = {}
        self._batch = 0
        self._here = 0

    def _settle(self) -> None:
        for name, change in self._pending.items():
            _add(self._sums, name, change)

    def needs(self, model: nn.Module) -> set[str]:
        """The weights whose gradients the criterion reads.

        PrunedgeError where the model has none of them.
        """
        refuse_without_norms(model, self._graph, "the criterion 'taylor-bn'")
        names: set[str] = set()
        for group in self._graph.groups:
            names.update(name for name, _ in self._scales_and_shifts(model, group))
        return names

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hook into the gradients of every group's scales and shifts while the context lasts."""
        parameters = dict(model.named_parameters())
        handles = []
        for group in self._graph.groups:
            for name, indices in self._scales_and_shifts(model, group):
                parameter = parameters[name]
                if parameter.requires_grad:
                    hook = self._gradient_hook(group, parameter, indices)
                    handles.append(parameter.register_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other images or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the number of examples since the last `reset`, for another process."""
        settle(self)
        return self._sums, self._examples

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        settle(self)
        sums, examples = gathered
        for name, total in sums.items():
            _add(self._sums, name, total)
        self._examples += examples

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""
        settle(self)
        if not self._examples:
            raise GraphError(
                "the criterion 'taylor-bn' has seen no images",
                remedy="rank on at least one batch",
            )
        if not self._sums:
            raise GraphError(
                "the criterion 'taylor-bn' reads batch norms, and this model has none",
                remedy="use taylor",
            )
        values = {name: (total / self._examples).square() for name, total in self._sums.items()}
        return finished(values, "taylor-bn", self._examples)

    def _scales_and_shifts(self, model: nn.Module, group: Group) -> list[tuple[str, torch.Tensor]]:
        """The scales and shifts of a group's norms, and the indices that belong to each channel."""
        scales = scales_of(model, group)
        shift_names = {f"{name.removesuffix('weight')}bias" for name, _ in scales}
        shifts = []
        for own in group.having("channel"):
            if own.tensor in shift_names:
                shifts.append((own.tensor, torch.as_tensor(own.indices)))
        return scales + shifts

    def _gradient_hook(
        self, group: Group, parameter: torch.Tensor, indices: torch.Tensor
    ) -> Callable[[torch.Tensor], None]:
        @traced("rank")
        def hook(gradient: torch.Tensor) -> None:
            change = (parameter.detach().double() * gradient.double()).cpu()
            _add(self._pending, group.name, change[indices].sum(1) * self._batch)

        return hook


def _add(sums: dict[str, torch.Tensor], name: str, more: torch.Tensor) -> None:
    sums[name] = sums[name] + more if name in sums else more
