"""Criteria that read the channels' activations: their size and their spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import GraphError, Undecided
from prunedge.graph import ChannelGraph
from prunedge.importance.consumer_hooks import ConsumerHooks
from prunedge.importance.criteria import collected
from prunedge.importance.pending import settle
from prunedge.importance.reading import ConsumerKey, Reading
from prunedge.importance.scores import Scores, checked, finished, of_criterion
from prunedge.tasks import Task


class ActivationCollector:
    """Adds up what a criterion needs from the channels' values at the inputs of their consumers.

    Nothing grows with the images.

    Where a group has several consumers (a residual sum), the score is the mean over those that the
    hooks see (`prunedge.importance.consumer_hooks`). Groups of which they see none have no score,
    and stay whole.
    """

    criterion = ""
    by_example = False  # whether it needs to know which example a value belongs to

    def __init__(self, graph: ChannelGraph) -> None:
        self._hooks = ConsumerHooks(graph, self.by_example)
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[ConsumerKey, torch.Tensor] = {}
        self._counts: dict[ConsumerKey, int] = {}
        self._examples = 0
        self._failed = ""
        self.drop_batch()

    def start_batch(self, batch_size: int) -> None:
        """Say before each forward pass how many examples the batch holds."""
        settle(self)
        self._batch = batch_size
        self._here = batch_size
        self._hooks.start(batch_size)

    @property
    def undecided(self) -> str:
        """Why the examples of the last batch can't be told apart; empty when they can."""
        return self._hooks.undecided

    def drop_batch(self) -> None:
        """Forget the batch that has just gone through."""
        self._pending: dict[ConsumerKey, torch.Tensor] = {}
        self._pending_counts: dict[ConsumerKey, int] = {}
        self._batch = 0
        self._here = 0
        self._hooks.start(0)

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hook into every consumer of every group while the context lasts."""
        with self._hooks.attached(model, self._see):
            yield

    def observe(self, targets: Any, outputs: Any, task: Task) -> None:
        """The batch that just went through had these targets (None without any) of a task, and the
        model answered so.
        """

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other images or in another process."""
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
            add(self._sums, key, total)
            self._counts[key] = self._counts.get(key, 0) + counts[key]
        self._examples += examples
        self._failed = self._failed or failed

    def result(self) -> Scores:
        """The scores of everything since the last `reset`.

        GraphError when there was nothing, `Undecided` when a batch was.
        """
        settle(self)
        if self._failed:
            raise Undecided(
                f"the examples of a batch can't be told apart: {self._failed}",
                remedy="gather one example at a time",
            )
        if not self._examples:
            raise GraphError(
                f"the criterion '{self.criterion}' has seen no images",
                remedy="rank on at least one batch",
            )
        by_group: dict[str, list[torch.Tensor]] = {}
        for consumer, total in self._sums.items():
            group, _ = consumer
            score = self._score(total, self._counts[consumer])
            by_group.setdefault(group, []).append(score)
        values = {group: torch.stack(scores).mean(0) for group, scores in by_group.items()}
        return finished(values, self.criterion, self._examples)

    def _see(self, reading: Reading, read: torch.Tensor) -> None:
        z = reading.arranged(read.detach())
        for tap in reading.taps:
            self._gather((tap.group, tap.number), tap.read(z, reading.channel_dim))

    def _gather(self, key: ConsumerKey, values: torch.Tensor) -> None:
        """Take in the channels' values at one reading: (n, channels, positions).

        n counts the examples with `by_example`.
        """
        self._wait(key, self._summary(values).cpu(), self._count(values))

    def _wait(self, key: ConsumerKey, summary: torch.Tensor, count: int) -> None:
        add(self._pending, key, summary)
        self._pending_counts[key] = self._pending_counts.get(key, 0) + count

    def _settle(self) -> None:
        for key, total in self._pending.items():
            add(self._sums, key, total)
            self._counts[key] = self._counts.get(key, 0) + self._pending_counts[key]

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        """What a reading adds for each channel, (channels, ...) float64: sums over rows and places.

        `values` are as the model computes them: sums run in float64 without a copy of the whole
        map.
        """
        raise NotImplementedError

    def _count(self, values: torch.Tensor) -> int:
        """Of how many numbers for each channel `_summary` is the sum."""
        return values.shape[0] * values.shape[2]

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        """(channels,) float64."""
        return total / count


def add(sums: dict[ConsumerKey, torch.Tensor], key: ConsumerKey, more: torch.Tensor) -> None:
    """Add to a sum that may not have begun."""
    sums[key] = sums[key] + more if key in sums else more


@collected("activations", "activation-mean")
class ActivationMean(ActivationCollector):
    """theta = 1 / |a| sum_i |a_i| over examples and places (Molchanov et al. 2017, section 2.2).

    The absolute value changes nothing behind a ReLU, and lets other activations count.
    """

    criterion = "activation-mean"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(values, 1, dim=2, dtype=torch.float64).sum(0)


@collected("activations", "activation-std")
class ActivationStd(ActivationCollector):
    """theta = sqrt(1 / |a| sum_i (a_i - mean)^2) over examples and places.

    Molchanov et al. 2017, section 2.2.
    """

    criterion = "activation-std"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        sums = values.sum(2, dtype=torch.float64)
        squares = torch.linalg.vector_norm(values, 2, dim=2, dtype=torch.float64).square()
        return torch.stack((sums.sum(0), squares.sum(0)), 1)

    def _score(self, total: torch.Tensor, count: int) -> torch.Tensor:
        mean, square = (total / count).unbind(1)
        return (square - mean.square()).clamp_min(0).sqrt()


@collected("activations", "apoz")
class Apoz(ActivationCollector):
    """theta = 1 - APoZ, the share of values that are not zero (Hu et al. 2016, equation 1).

    Models without ReLU have none that are.
    """

    criterion = "apoz"

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        return values.count_nonzero(2).double().sum(0)


class ActivationFunction(ActivationCollector):
    """A user's own number for each example and channel, from the channel's values.

    These are (examples, channels, places). The score is the mean over examples, and over a
    consumer's calls where it is called several times.
    """

    by_example = True

    def __init__(
        self, graph: ChannelGraph, name: str, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__(graph)
        self.criterion = name
        self._function = function

    def _summary(self, values: torch.Tensor) -> torch.Tensor:
        with of_criterion(self.criterion):
            numbers = self._function(values.double())
        return checked(numbers, values.shape[:2], self.criterion).sum(0)

    def _count(self, values: torch.Tensor) -> int:
        return len(values)
