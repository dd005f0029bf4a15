"""Scores gathered inside any training loop, at no pass of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph
from prunedge.graph.channels import refuse_graph_of_another, require_graph
from prunedge.importance import batch as examples
from prunedge.importance.consumer_hooks import is_probing
from prunedge.importance.criteria import CRITERIA, GradientCollector
from prunedge.importance.pending import settle
from prunedge.importance.registry import gathered_while_training
from prunedge.importance.scores import Scores
from prunedge.models.build import require_model
from prunedge.utils.advice import option
from prunedge.utils.arguments import require


class Collecting:
    """What a `collector` gathers from the backward passes of a training of `model`, while the
    context lasts; entered again, it begins anew.

    Every forward pass of the model in training mode with gradients begins a batch, whose examples
    are counted along the first dimension of the first tensor that it is called with. Passes without
    gradients, or in evaluation mode, are left out. The loss has to be the mean over the examples.
    """

    def __init__(self, model: nn.Module, collector: GradientCollector) -> None:
        self._model = model
        self._collector = collector
        self._attached: ExitStack | None = None
        self.was_entered = False
        self.has_batches = False

    def __enter__(self) -> Self:
        """Begin anew."""
        if self._attached is not None:
            raise PrunedgeError(
                "these scores are being collected already", remedy="leave that block first"
            )
        self._collector.reset()
        self.was_entered = True
        self.has_batches = False
        self._attached = ExitStack()
        # Before the collector's own hooks, which ask how many examples there are.
        begin = self._model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._attached.callback(begin.remove)
        self._attached.enter_context(self._collector.attach(self._model))
        return self

    def __exit__(self, *error: object) -> None:
        """Take the hooks off the model."""
        assert self._attached is not None
        self._attached.close()
        self._attached = None

    def scores(self) -> Scores:
        """The scores of all batches. GraphError where there was none; `Undecided` where which
        example is where in a batch can't be told (`pe.rank` tells them apart one by one).
        """
        return self._collector.result()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_probing():
            return
        collector: Any = self._collector
        if module.training and torch.is_grad_enabled():
            collector.start_batch(examples.count((args, kwargs)))
            self.has_batches = True
            return
        # A pass that teaches nothing. What the batch before it gave is complete.
        settle(collector)
        collector.drop_batch()


def collector_of(criterion: str, graph: ChannelGraph) -> GradientCollector:
    """The collector of a criterion; PrunedgeError where it doesn't read gradients."""
    collector = gathered_while_training(criterion, graph)
    if collector is None:
        suited = [name for name, known in CRITERIA.items() if known.reads == "gradients"]
        raise PrunedgeError(
            f"the criterion '{criterion}' can't be gathered while a model trains",
            where=option("criterion", criterion),
            remedy=f"rank(...) does it in a pass of its own; or take {', '.join(suited)}",
        )
    return collector


@contextmanager
def collect(
    model: nn.Module, graph: ChannelGraph, criterion: str = "taylor"
) -> Iterator[Collecting]:
    """Gather the scores of every channel from whatever trains `model` while the block lasts.

    `graph` is the model's channel graph (`pe.trace`). Only criteria that read gradients can be
    gathered so. Optimizer, loss and batches are the loop's own; nothing in it changes, and no
    further pass is made (but a few examples once, where the model hides which example is where).
    The loss has to be the mean over the examples of a batch; a factor that stays the same (a scaled
    loss) changes no order. Raises PrunedgeError for another criterion, or an unknown one, and
    GraphError for another model's graph.

    Example:
        with pe.collect(model, graph) as collecting:
            train_one_epoch(model)
        plan = pe.choose(graph, collecting.scores(), 0.3)
    """
    require_model(model)
    require_graph(graph)
    refuse_graph_of_another(model, graph)
    require("criterion", criterion, str, "the name of a criterion")
    with Collecting(model, collector_of(criterion, graph)) as collecting:
        yield collecting
