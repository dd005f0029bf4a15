"""What may take part in a training beside the model, the images and the config."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from prunedge.train.optim import OptimState
from prunedge.train.state import Checkpointer

Progress = Callable[[int, int, str], None]  # batches done, batches in all, what is going on
# Adds to the gradients, the training being so far along (0 to 1).
Penalty = Callable[[nn.Module, float], None]


class TrainingCollector(Protocol):
    """Gathers numbers (importance scores) from an epoch's batches while a model trains on them.

    The loss that goes backward is the mean over the batch. Where several processes share it, what
    each of them sees is its part of the gradient of the mean over the whole; `gathered` and
    `take_over` then join what they have.
    """

    def reset(self) -> None:
        """Forget everything: an epoch begins."""

    def attach(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Hook into `model` for as long as the context lasts."""

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """A batch of that many images comes next.

        `here` of them are in this process (None: all, there is no other).
        """

    def gathered(self) -> Any:
        """What was gathered since `reset`, to be sent to another process."""

    def take_over(self, gathered: Any) -> None:
        """Add what another process has gathered."""

    def result(self) -> Any:
        """What was gathered since `reset`.

        `Undecided` where the batches did not show what it needs.
        """


@dataclass(frozen=True)
class TrainExtras:
    """What may take part in a training; nothing of it has to.

    `optimizer_state` is the optimizer's to start from, by parameter name. `teacher` is the model
    whose answers the config's `distill` adds to the loss, `penalty` adds the gradients of a
    regularisation. The `collector` gathers from the batches, `progress` hears of them. With a
    `checkpointer` the training is kept after every epoch, and goes on from what is kept, to the
    same result. Where blocks are frozen or a moving average is kept, nothing is collected: it would
    not be of the model that comes out. Where `is_trial` nobody asks what comes out for more than
    its loss: metrics that are slow are left out.
    """

    optimizer_state: OptimState | None = None
    teacher: nn.Module | None = None
    penalty: Penalty | None = None
    collector: TrainingCollector | None = None
    progress: Progress | None = None
    checkpointer: Checkpointer | None = None
    is_trial: bool = False


NO_EXTRAS = TrainExtras()


def silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""
