"""Who teaches a model and judges it: the one seam between the loop and a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from prunedge.edge.tasks.metric import Metric
from prunedge.graph import ChannelGraph
from prunedge.importance import Provenance, Scores
from prunedge.importance.criteria import GradientCollector
from prunedge.pruning.steps import Step
from prunedge.surgery import OptimState
from prunedge.tasks import ConstantAnswer
from prunedge.train import Penalty
from prunedge.train.state import Epoch


@dataclass(frozen=True)
class FineTuning:
    """A training that the loop asks for: so many `epochs`, all that is random in it from `seed`.

    A `collector` watches the backward passes, and a `penalty` adds gradients. `optimizer_state` is
    what the optimizer may start from. `is_gentler`: the last one, at the usual learning rate, ended
    in a model with one answer. `is_polish`: it is the last, longer one, of what is handed over.
    """

    epochs: int
    seed: int
    optimizer_state: OptimState | None = None
    collector: GradientCollector | None = None
    penalty: Penalty | None = None
    is_gentler: bool = False
    is_polish: bool = False


@dataclass(frozen=True)
class FineTuned:
    """The trained `model`; what the collector gathered, None where nothing was. `note` is what is
    to be said of how it was trained.
    """

    model: nn.Module
    optimizer_state: OptimState | None = field(default=None, repr=False)
    collected: Any = field(default=None, repr=False)
    history: tuple[Epoch, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """What a model does on validation data: every figure by its name, and the `value` of the one
    that the rule watches.

    `correct` says which images were answered right (`prunedge.tasks.packed`), empty where that is
    unknown. `only_answer` is the answer that every image gets, None where answers differ or are no
    categories; `constant` is the best constant answer, where there is one.
    """

    values: Mapping[str, float | None]
    value: float
    correct: str = ""
    only_answer: int | None = None
    constant: ConstantAnswer | None = None

    @classmethod
    def of_step(cls, step: Step) -> Judgement:
        """What is kept of it in the history, as far as the rule asks."""
        return cls(step.metrics, step.metric_after, step.correct, step.only_answer)


class Trainer(Protocol):
    """Whoever teaches a model and judges it."""

    def example(self) -> Any:
        """What the model takes: it is traced, proven and timed with that."""

    def fit(self, model: nn.Module, work: FineTuning) -> FineTuned:
        """Train `model`, in place where that can be."""

    def evaluate(self, model: nn.Module, metric: Metric) -> Judgement:
        """How good `model` is on validation data. `model` stays as it was."""

    def rank(self, model: nn.Module, graph: ChannelGraph, criterion: str, seed: int) -> Scores:
        """The scores of all channels, in a pass of its own over training data."""

    def calibration(self, examples: int, seed: int) -> Iterable[Any]:
        """Batches of about so many training examples, for compensation."""

    def sources(self) -> Sequence[str | None]:
        """Where each validation image comes from, as far as that is known."""

    def provenance(self, criterion: str, *, distills: bool) -> Provenance | None:
        """What scores are of that are gathered while this trains any model; `distills`: by a
        training that has a teacher. None where that can't be told.
        """
