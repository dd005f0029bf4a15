"""Criteria that read the channels' activations: their size, their spread, and what they tell about the class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import ChannelGraph
from prunedge.importance.scores import Scores, checked
from prunedge.importance.taps import Tap, taps

# Cells of the fine histogram: 8 an octave from 2^-16 to 2^16 on each side of zero, and one for zero itself.
_OCTAVE, _REACH = 8, 16
_SIDE = 2 * _REACH * _OCTAVE
CELLS = 2 * _SIDE + 1
BINS = 16


class ActivationCollector:
    """Adds up what a criterion needs from the channels' values at the inputs of their consumers; nothing grows with the pictures.

    Where a group has several consumers (a residual sum), the score is the mean over those that a tap sees. Groups that no tap sees
    have no score, and stay whole.
    """

    criterion = ""

    def __init__(self, graph: ChannelGraph) -> None:
        self._graph = graph
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[tuple[str, int], torch.Tensor] = {}
        self._examples: dict[tuple[str, int], int] = {}

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        """Watch every consumer of every group while the context lasts."""
        found = taps(network, self._graph)
        handles = [module.register_forward_pre_hook(self._watch(tuple(these))) for module, these in found.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def observe(self, labels: torch.Tensor, outputs: torch.Tensor) -> None:
        """The batch that just went through had these labels (n,) int64, and the network answered with these logits (n, classes)."""

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other pictures or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the numbers of examples since the last `reset`, for another process."""
        return self._sums, self._examples

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        sums, examples = gathered
        for key, total in sums.items():
            self._add(key, total, examples[key])

    def result(self) -> Scores:
        """The scores of everything since the last `reset`."""
        if not self._examples:
            raise GraphError(f"the criterion '{self.criterion}' has seen no pictures", remedy="rank on at least one batch")
        by_group: dict[str, list[torch.Tensor]] = {}
        for key, total in self._sums.items():
            by_group.setdefault(key[0], []).append(self._score(total, self._examples[key]))
        values = {name: torch.stack(several).mean(0) for name, several in by_group.items()}
        return Scores(values, self.criterion, max(self._examples.values()))

    def _watch(self, these: tuple[Tap, ...]) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            for tap in these:
                self._gather((tap.group, tap.place), tap.read(module, args[0].detach()))

        return hook

    def _gather(self, key: tuple[str, int], values: torch.Tensor) -> None:
        """Take in the channels' values (examples, channels, places)."""
        self._add(key, self._summary(values).cpu(), len(values))

    def _add(self, key: tuple[str, int], summary: torch.Tensor, examples: int) -> None:
        self._sums[key] = self._sums[key] + summary if key in self._sums else summary
        self._examples[key] = self._examples.get(key, 0) + examples

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        """What a batch adds for each channel, (channels, ...) float64; means over places, sums over examples.

        `values` are as the network computes them: sums run in float64 without a copy of the whole map.
        """
        raise NotImplementedError

    def _score(self, total: torch.Tensor, examples: int) -> torch.Tensor:
        """(channels,) float64."""
        return total / examples


class ActivationMean(ActivationCollector):
    """theta = 1 / |a| sum_i |a_i| over examples and places (Molchanov et al. 2017, section 2.2).

    The absolute value changes nothing behind a ReLU, and lets other activations count.
    """

    criterion = "activation-mean"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(values, 1, dim=2, dtype=torch.float64).sum(0) / values.shape[2]


class ActivationStd(ActivationCollector):
    """theta = sqrt(1 / |a| sum_i (a_i - mean)^2) over examples and places (Molchanov et al. 2017, section 2.2)."""

    criterion = "activation-std"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        squares = torch.linalg.vector_norm(values, 2, dim=2, dtype=torch.float64).square()
        return torch.stack((values.mean(2, dtype=torch.float64).sum(0), squares.sum(0) / values.shape[2]), 1)

    def _score(self, total: torch.Tensor, examples: int) -> torch.Tensor:
        mean, square = (total / examples).unbind(1)
        return (square - mean.square()).clamp_min(0).sqrt()


class Apoz(ActivationCollector):
    """theta = 1 - APoZ, the share of values that are not zero (Hu et al. 2016, equation 1). Networks without ReLU have none that are."""

    criterion = "apoz"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return values.count_nonzero(2).double().sum(0) / values.shape[2]


class ActivationFunction(ActivationCollector):
    """A user's own number for each example and channel, from the channel's values (examples, channels, places); the mean over examples."""

    def __init__(self, graph: ChannelGraph, name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(graph)
        self.criterion = name
        self._function = function

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return checked(self._function(values.double()), values.shape[:2], self.criterion).sum(0)


class MutualInformation(ActivationCollector):
    """theta = I(q(a); y), in nats, of the spatial mean of a channel, quantised, and the class (Molchanov et al. 2017, section 2.2).

    The means are counted, with the class, in a fine histogram whose cells are fixed beforehand, so that neither the order nor the number of
    the pictures matters; at the end its cells are joined to at most `BINS` bins of about equal counts (`joined`).
    """

    criterion = "mutual-information"

    def reset(self) -> None:
        """Forget what was gathered."""
        super().reset()
        self._waiting: dict[tuple[str, int], torch.Tensor] = {}

    def observe(self, labels: torch.Tensor, outputs: torch.Tensor) -> None:
        """Count the waiting batch under its classes."""
        truth, classes = self._classes(labels, outputs), outputs.shape[1]
        for key, cells in self._waiting.items():
            channels = torch.arange(cells.shape[1], device=cells.device)
            flat = (channels * CELLS + cells) * classes + truth.to(cells.device)[:, None]
            counts = torch.bincount(flat.flatten(), minlength=cells.shape[1] * CELLS * classes)
            self._add(key, counts.reshape(cells.shape[1], CELLS, classes).cpu(), len(cells))
        self._waiting = {}

    def _classes(self, labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return labels

    def _gather(self, key: tuple[str, int], values: torch.Tensor) -> None:
        self._waiting[key] = cell(values.mean(2, dtype=torch.float64))

    def _score(self, total: torch.Tensor, examples: int) -> torch.Tensor:
        return information(joined(total))


class PredictionInformation(MutualInformation):
    """As `mutual-information`, with the class that the network itself answers: needs no labels."""

    criterion = "mutual-information-prediction"

    def _classes(self, labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.argmax(1)


def cell(values: torch.Tensor) -> torch.Tensor:
    """The cell (0 to CELLS - 1) of the fine histogram that each value falls in; int64, in the order of the values."""
    octaves = values.abs().log2().add(_REACH).mul(_OCTAVE).floor().add(1).clamp(0, _SIDE)
    return (_SIDE + values.sign() * octaves.nan_to_num(0.0, neginf=0.0)).long()


def joined(counts: torch.Tensor, bins: int = BINS) -> torch.Tensor:
    """Join neighbouring cells of (channels, cells, classes) counts to `bins` bins of about equal counts, (channels, bins, classes)."""
    of_cell = counts.sum(2)
    middle = of_cell.cumsum(1) - of_cell / 2  # where the middle of each cell lies in the order of the examples
    place = (middle * bins / of_cell.sum(1, keepdim=True)).floor().clamp(0, bins - 1).long()
    found = torch.zeros(len(counts), bins, counts.shape[2], dtype=counts.dtype)
    return found.scatter_add_(1, place[:, :, None].expand_as(counts), counts)


def information(counts: torch.Tensor) -> torch.Tensor:
    """Mutual information in nats of each contingency table in (channels, bins, classes), (channels,) float64.

    sum p(b, y) log(p(b, y) / (p(b) p(y))): Cover and Thomas, equation 2.28.
    """
    share = counts.double() / counts.sum((1, 2), keepdim=True)
    alone = share.sum(2, keepdim=True) * share.sum(1, keepdim=True)
    return torch.where(share > 0, share * (share / alone).log(), 0.0).sum((1, 2)).clamp_min(0)
