"""Criteria that read the channels' activations: their size, their spread, and what they tell about the class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import GraphError, PrunedgeError, Undecided
from prunedge.graph import ChannelGraph
from prunedge.importance.observe import Reading, Watch
from prunedge.importance.pending import settle
from prunedge.importance.scores import Scores, checked, finished, of_criterion
from prunedge.models.classification import class_logits, cross_entropy

# Cells of the fine histogram: 8 an octave from 2^-16 to 2^16 on each side of zero, and one for zero itself.
_OCTAVE, _REACH = 8, 16
_SIDE = 2 * _REACH * _OCTAVE
CELLS = 2 * _SIDE + 1
BINS = 16
PART = 2**22  # numbers of contingency tables at a time: 32 MB


class ActivationCollector:
    """Adds up what a criterion needs from the channels' values at the inputs of their consumers; nothing grows with the pictures.

    Where a group has several consumers (a residual sum), the score is the mean over those that are seen (`prunedge.importance.observe`).
    Groups of which none is seen have no score, and stay whole.
    """

    criterion = ""
    by_example = False  # whether it needs to know which example a value belongs to

    def __init__(self, graph: ChannelGraph) -> None:
        self._watch = Watch(graph, self.by_example)
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[tuple[str, int], torch.Tensor] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._examples = 0
        self._failed = ""
        self.drop_batch()

    def start_batch(self, batch_size: int) -> None:
        """Say before each forward pass how many examples the batch holds."""
        settle(self)
        self._batch = self._here = batch_size
        self._watch.start(batch_size)

    @property
    def undecided(self) -> str:
        """Why the examples of the batch that has just gone through can't be told apart; empty when they can."""
        return self._watch.undecided

    def drop_batch(self) -> None:
        """Forget the batch that has just gone through."""
        self._pending: dict[tuple[str, int], torch.Tensor] = {}
        self._pending_counts: dict[tuple[str, int], int] = {}
        self._batch = self._here = 0
        self._watch.start(0)

    @contextmanager
    def attach(self, network: nn.Module) -> Iterator[None]:
        """Watch every consumer of every group while the context lasts."""
        with self._watch.attached(network, self._see):
            yield

    def observe(self, labels: Any, outputs: Any) -> None:
        """The batch that just went through had these labels (n,) integers or None, and the network answered with `outputs`."""

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other pictures or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the numbers of values since the last `reset`, for another process."""
        settle(self)
        return self._sums, self._counts, self._examples, self._failed

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        settle(self)
        sums, counts, examples, failed = gathered
        for key, total in sums.items():
            _add(self._sums, key, total)
            self._counts[key] = self._counts.get(key, 0) + counts[key]
        self._examples += examples
        self._failed = self._failed or failed

    def result(self) -> Scores:
        """The scores of everything since the last `reset`; GraphError when there was nothing, `Undecided` when a batch was."""
        settle(self)
        if self._failed:
            raise Undecided(f"the examples of a batch can't be told apart: {self._failed}", remedy="gather one example at a time")
        if not self._examples:
            raise GraphError(f"the criterion '{self.criterion}' has seen no pictures", remedy="rank on at least one batch")
        by_group: dict[str, list[torch.Tensor]] = {}
        for key, total in self._sums.items():
            by_group.setdefault(key[0], []).append(self._score(total, self._counts[key]))
        values = {name: torch.stack(several).mean(0) for name, several in by_group.items()}
        return finished(values, self.criterion, self._examples)

    def _see(self, reading: Reading, read: torch.Tensor) -> None:
        z = reading.arranged(read.detach())
        for tap in reading.taps:
            self._gather((tap.group, tap.place), tap.read(z, reading.place))

    def _gather(self, key: tuple[str, int], values: torch.Tensor) -> None:
        """Take in the channels' values at one reading: (rows, channels, places), the rows being the examples with `by_example`."""
        self._wait(key, self._summary(values).cpu(), self._count(values))

    def _wait(self, key: tuple[str, int], summary: torch.Tensor, count: int) -> None:
        _add(self._pending, key, summary)
        self._pending_counts[key] = self._pending_counts.get(key, 0) + count

    def _settle(self) -> None:
        for key, total in self._pending.items():
            _add(self._sums, key, total)
            self._counts[key] = self._counts.get(key, 0) + self._pending_counts[key]

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        """What a reading adds for each channel, (channels, ...) float64: sums over rows and places.

        `values` are as the network computes them: sums run in float64 without a copy of the whole map.
        """
        raise NotImplementedError

    def _count(self, values: torch.Tensor) -> int:
        """Of how many numbers for each channel `_summary` is the sum."""
        return values.shape[0] * values.shape[2]

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        """(channels,) float64."""
        return total / count


def _add(sums: dict[tuple[str, int], torch.Tensor], key: tuple[str, int], more: torch.Tensor) -> None:
    sums[key] = sums[key] + more if key in sums else more


class ActivationMean(ActivationCollector):
    """theta = 1 / |a| sum_i |a_i| over examples and places (Molchanov et al. 2017, section 2.2).

    The absolute value changes nothing behind a ReLU, and lets other activations count.
    """

    criterion = "activation-mean"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(values, 1, dim=2, dtype=torch.float64).sum(0)


class ActivationStd(ActivationCollector):
    """theta = sqrt(1 / |a| sum_i (a_i - mean)^2) over examples and places (Molchanov et al. 2017, section 2.2)."""

    criterion = "activation-std"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        squares = torch.linalg.vector_norm(values, 2, dim=2, dtype=torch.float64).square()
        return torch.stack((values.sum(2, dtype=torch.float64).sum(0), squares.sum(0)), 1)

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        mean, square = (total / count).unbind(1)
        return (square - mean.square()).clamp_min(0).sqrt()


class Apoz(ActivationCollector):
    """theta = 1 - APoZ, the share of values that are not zero (Hu et al. 2016, equation 1). Networks without ReLU have none that are."""

    criterion = "apoz"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return values.count_nonzero(2).double().sum(0)


class ActivationFunction(ActivationCollector):
    """A user's own number for each example and channel, from the channel's values (examples, channels, places).

    The score is the mean over examples, and over a consumer's calls where it is called several times.
    """

    by_example = True

    def __init__(self, graph: ChannelGraph, name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(graph)
        self.criterion = name
        self._function = function

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        with of_criterion(self.criterion):
            numbers = self._function(values.double())
        return checked(numbers, values.shape[:2], self.criterion).sum(0)

    def _count(self, values: torch.Tensor) -> int:
        return len(values)


class MutualInformation(ActivationCollector):
    """theta = I(q(a); y), in nats, of the spatial mean of a channel, quantised, and the class (Molchanov et al. 2017, section 2.2).

    The means (over all of a consumer's calls, where it is called several times) are counted, with the class, in a fine histogram whose
    cells are fixed beforehand, so that neither the order nor the number of the pictures matters; at the end its cells are joined to at most
    `BINS` bins of about equal counts (`joined`).
    """

    criterion = "mutual-information"
    by_example = True

    def drop_batch(self) -> None:
        """Forget the batch that has just gone through."""
        super().drop_batch()
        self._classes: torch.Tensor | None = None
        self._number = 0

    def observe(self, labels: Any, outputs: Any) -> None:
        """The classes that the batch is counted under: PrunedgeError when there is not one for each example."""
        logits = class_logits(outputs)
        self._number = logits.shape[1]
        self._classes = self._truth(labels, logits)

    def _truth(self, labels: Any, logits: torch.Tensor) -> torch.Tensor:
        if labels is None:
            remedy = f"yield (inputs, labels), or use {PredictionInformation.criterion}"
            raise PrunedgeError(f"the criterion '{self.criterion}' needs labels, and the batches have none", remedy=remedy)
        cross_entropy(logits, labels)  # says what is wrong with them, if anything
        return labels.long()

    def _gather(self, key: tuple[str, int], values: torch.Tensor) -> None:
        self._wait(key, values.sum(2, dtype=torch.float64), values.shape[2])  # (examples, channels)

    def _settle(self) -> None:
        truth, classes = self._classes, self._number
        if truth is None:
            raise PrunedgeError(f"the criterion '{self.criterion}' was not told the classes of a batch", remedy="call observe")
        for key, total in self._pending.items():
            cells = cell(total / self._pending_counts[key]).cpu()
            channels = torch.arange(cells.shape[1]).expand_as(cells)
            places = torch.stack((channels, cells, truth.cpu()[:, None].expand_as(cells))).flatten(1)
            ones = torch.ones(places.shape[1], dtype=torch.int64)
            # Sparse, since most cells stay empty in most classes: whole, a network for ImageNet would take gigabytes.
            counts = torch.sparse_coo_tensor(places, ones, (cells.shape[1], CELLS, classes), check_invariants=False).coalesce()
            _add(self._sums, key, counts)
            self._sums[key] = self._sums[key].coalesce()
            self._counts[key] = self._counts.get(key, 0) + len(cells)

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        return torch.cat([information(joined(part)) for part in _in_parts(_without_absent_classes(total))])


class PredictionInformation(MutualInformation):
    """As `mutual-information`, with the class that the network itself answers: needs no labels."""

    criterion = "mutual-information-prediction"

    def _truth(self, labels: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(1)


def cell(values: torch.Tensor) -> torch.Tensor:
    """The cell (0 to CELLS - 1) of the fine histogram that each value falls in; int64, in the order of the values."""
    octaves = values.abs().log2().add(_REACH).mul(_OCTAVE).floor().add(1).clamp(0, _SIDE)
    return (_SIDE + values.sign() * octaves.nan_to_num(0.0, neginf=0.0)).long()


def _without_absent_classes(counts: torch.Tensor) -> torch.Tensor:
    """Sparse (channels, cells, classes) counts of those classes alone that occur, which say as much."""
    channel, cells, classes = counts.indices()
    present, place = classes.unique(return_inverse=True)
    shape = (*counts.shape[:2], len(present))
    return torch.sparse_coo_tensor(torch.stack((channel, cells, place)), counts.values(), shape, check_invariants=False).coalesce()


def _in_parts(counts: torch.Tensor) -> Iterator[torch.Tensor]:
    """Sparse (channels, cells, classes) counts, a few channels at a time: so many that their bins hold `PART` numbers."""
    step = max(1, PART // (BINS * counts.shape[2]))
    indices, values = counts.indices(), counts.values()
    for start in range(0, len(counts), step):
        stop = min(start + step, len(counts))
        here = (indices[0] >= start) & (indices[0] < stop)
        moved = indices[:, here] - torch.tensor([[start], [0], [0]])
        yield torch.sparse_coo_tensor(moved, values[here], (stop - start, *counts.shape[1:]), check_invariants=False).coalesce()


def joined(counts: torch.Tensor, bins: int = BINS) -> torch.Tensor:
    """Join neighbouring cells of (channels, cells, classes) counts to `bins` bins of about equal counts, (channels, bins, classes).

    The counts may be sparse; the bins are not.
    """
    counts = counts if counts.is_sparse else counts.to_sparse()
    counts = counts.coalesce()
    of_cell = torch.sparse.sum(counts, 2).to_dense()
    middle = of_cell.cumsum(1) - of_cell / 2  # where the middle of each cell lies in the order of the examples
    place = (middle * bins / of_cell.sum(1, keepdim=True)).floor().clamp(0, bins - 1).long()
    found = torch.zeros(len(counts), bins, counts.shape[2], dtype=counts.dtype)
    channel, cells, classes = counts.indices()
    return found.index_put_((channel, place[channel, cells], classes), counts.values(), accumulate=True)


def information(counts: torch.Tensor) -> torch.Tensor:
    """Mutual information in nats of each contingency table in (channels, bins, classes), (channels,) float64.

    sum p(b, y) log(p(b, y) / (p(b) p(y))): Cover and Thomas, equation 2.28.
    """
    share = counts.double() / counts.sum((1, 2), keepdim=True)
    alone = share.sum(2, keepdim=True) * share.sum(1, keepdim=True)
    return torch.where(share > 0, share * (share / alone).log(), 0.0).sum((1, 2)).clamp_min(0)
