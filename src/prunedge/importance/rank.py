"""Score every channel of a model in a pass of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from prunedge.data.dataset import require_batches
from prunedge.errors import GraphError, PrunedgeError
from prunedge.graph import ChannelGraph, call
from prunedge.graph.channels import refuse_graph_of_another, require_graph
from prunedge.graph.inputs import brought_to
from prunedge.importance import batch as examples
from prunedge.importance.computes import Computes
from prunedge.importance.consumers import refuse_without_norms
from prunedge.importance.criteria import CRITERIA, NORM_CRITERIA, Reads, Values
from prunedge.importance.features import Probe, probes, projected
from prunedge.importance.registry import criterion_named
from prunedge.importance.scores import Scores, finished, of_criterion
from prunedge.models.build import require_model
from prunedge.models.tf32 import full_float32
from prunedge.tasks import Task, task_of_batches
from prunedge.tasks.logits import Loss
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.arguments import require
from prunedge.utils.tracing import traced

log = logging.getLogger(__name__)


@traced("rank")
def rank(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any],
    criterion: str = "taylor",
    *,
    loss: Loss | None = None,
    task: Task | None = None,
    seed: int = 0,
    engine: Computes | None = None,
) -> Scores:
    """Score every channel in each group of the graph; higher matters more.

    `batches` yields (inputs, targets): inputs (n, 3, h, w) float32, or a tuple or dict of the
    model's arguments; targets as the `task` has them (without one it is the split's own): for
    classification labels (n,) int64, or (n, h, w) for logits of each place, and the loss is the
    cross-entropy of what `prunedge.tasks.logits.logits_of` finds in the model's answer. With
    `loss`, called as `loss(model, batch)` for the mean over the batch's examples, a batch is
    whatever `batches` yields, and so are the model's answers. How many examples it holds is told by
    the first dimension of its first tensor (`prunedge.importance.batch.count`). Criteria that read
    activations or features need neither loss nor labels (but `mutual-information`): inputs alone
    will do. Those that read the weights don't touch the batches.

    Scores do not depend on how the examples are divided into batches, wherever the model has
    them. Where it does not show which example is where, they go through it one by one, which takes
    longer. An `engine` lets the images pass in its precision and on its device; without one they
    do in float32, where the model is. The model runs in evaluation mode with its own weights
    unchanged; parameters' gradients are not touched. Groups that the criterion can't judge (no
    batch norm for `bn-scale`) have no score; those whose scores are all 0 are `Scores.zero`, and
    told in the log. Raises PrunedgeError for an unknown criterion, for one that can't judge any
    group, for answers and labels that cross-entropy is no loss for, and for scores that are not
    finite.
    """
    require_model(model)
    require_graph(graph)
    refuse_graph_of_another(model, graph)
    require_batches(batches)
    require("criterion", criterion, str, "the name of a criterion")
    task = task or task_of_batches(batches)
    chosen = criterion_named(criterion)
    if not graph.groups:
        return Scores({}, criterion)
    if chosen.compute is not None:
        with of_criterion(criterion):
            computed = chosen.compute(model, graph, torch.Generator().manual_seed(seed))
        values = _fitting(computed, graph, criterion)
        if not values:
            raise PrunedgeError(
                f"the criterion '{criterion}' can't judge any channel of this model",
                remedy="use another, such as taylor",
            )
        return finished(values, criterion)
    assert chosen.collect is not None
    collector: Any = chosen.collect(graph)
    gather_by(chosen.reads, model, batches, [collector], engine, loss=loss, task=task)
    return collector.result()


def gather_by(
    reads: Reads,
    model: nn.Module,
    batches: Iterable[Any],
    collectors: list[Any],
    engine: Computes | None = None,
    *,
    loss: Loss | None = None,
    task: Task | None = None,
) -> None:
    """`gather` for collectors of criteria that all read the same. What reads features has a loss of
    its own, and each batch passes several times.
    """
    if reads == "features":
        gather(model, _Probed(batches), collectors, engine, loss=projected, task=task)
    else:
        gather(model, batches, collectors, engine, loss=loss, task=task)


class _Probed:
    """Batches in every random direction, as often as they are asked for."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Probe]:
        return probes(self._batches)


def refuse_unjudged(model: nn.Module, graph: ChannelGraph, criterion: str) -> None:
    """PrunedgeError when it is plain before any image is looked at that the criterion can't judge
    a channel of this model.
    """
    if graph.groups and criterion in NORM_CRITERIA:
        refuse_without_norms(model, graph, f"the criterion '{criterion}'")


def _fitting(values: Values, graph: ChannelGraph, criterion: str) -> Values:
    """What a function of the weights gave, if it is a finite number for each channel of groups that
    there are.
    """
    sizes = {group.name: group.size for group in graph.groups}
    if not isinstance(values, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in values.values()
    ):
        what = (
            f"the criterion '{criterion}' gave {type(values).__name__}, and no tensor for each "
            "group"
        )
        raise PrunedgeError(
            what,
            where=option("criterion"),
            remedy="return {group.name: (group.size,) numbers} for groups of graph.groups",
        )
    for name, value in values.items():
        if name not in sizes or value.shape != (sizes[name],) or not bool(value.isfinite().all()):
            wanted = f"{sizes[name]} finite numbers" if name in sizes else "no such group"
            raise PrunedgeError(
                (
                    f"the criterion '{criterion}' gave {tuple(value.shape)} for the group "
                    f"'{name}': {wanted} expected"
                ),
                remedy="return {group.name: (group.size,) numbers} for groups of graph.groups",
            )
    return {name: value.double() for name, value in values.items()}


def gather(
    model: nn.Module,
    batches: Iterable[Any],
    collectors: list[Any],
    engine: Computes | None = None,
    *,
    loss: Loss | None = None,
    task: Task | None = None,
) -> None:
    """Let the batches go through the model once, in evaluation mode, in front of all these
    collectors.

    Batches, `loss` and `task` are as for `rank`. Several processes take whole batches in turn; in
    the end all collectors hold what all have gathered.
    """
    task = task or task_of_batches(batches)
    backward = [collector for collector in collectors if hasattr(collector, "needs")]
    forward = [collector for collector in collectors if not hasattr(collector, "needs")]
    modes = {module: module.training for module in model.modules()}
    wanted = [
        (parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()
    ]
    model.eval()
    try:
        with ExitStack() as attached:
            if engine is None:
                attached.enter_context(full_float32())
            needed = {name for collector in backward for name in collector.needs(model)}
            # Only gradients at the activations are needed, where they can be seen: those of the
            # weights cost a third of the backward pass.
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in needed)
                parameter.grad = None
            if engine is not None:
                engine = engine.suited(model)
                attached.enter_context(engine.holding(model))
                attached.enter_context(engine.autocast())
            for collector in collectors:
                attached.enter_context(collector.attach(model))
            passing = _Passing(model, backward, forward, loss, task)
            for batch in distributed.shard_batches(batches):
                passing.take(
                    brought_to(batch, model)
                    if engine is None
                    else examples.moved(batch, engine.to_device)
                )
        for collector in collectors:
            distributed.merge_collectors(collector)
    finally:
        for parameter, before, gradient in wanted:
            parameter.requires_grad_(before)
            parameter.grad = gradient
        for module, mode in modes.items():
            module.training = mode


class _Passing:
    """Batches pass a model in front of collectors: as they come, or one example at a time from
    where those can't be told apart.
    """

    def __init__(
        self,
        model: nn.Module,
        backward: list[Any],
        forward: list[Any],
        loss: Loss | None,
        task: Task,
    ) -> None:
        self._model = model
        self._backward = backward
        self._forward = forward
        self._loss = loss
        self._task = task
        self._one_by_one = False

    def take(self, batch: Any) -> None:
        """The next batch."""
        held = examples.count(batch)
        if not self._one_by_one:
            why = self._pass(batch, held)
            if not why:
                return
            log.info("one example at a time from here on, which takes longer: %s", why)
            self._one_by_one = True
            for collector in self._backward + self._forward:
                collector.drop_batch()
        for row in range(held):
            why = self._pass(examples.picked(batch, [row], held), 1)
            if why:
                raise GraphError(
                    f"even a single example can't be told apart: {why}",
                    remedy="rank with a criterion of the weights",
                )

    def _pass(self, batch: Any, held: int) -> str:
        """Let a batch through; gives why its examples can't be told apart, empty when they can."""
        collectors = self._backward + self._forward
        for collector in collectors:
            collector.start_batch(held)
        with torch.set_grad_enabled(bool(self._backward)):
            targets, outputs = self._run(batch)
        for collector in self._forward:
            collector.observe(targets, outputs, self._task)
        return next((collector.undecided for collector in collectors if collector.undecided), "")

    def _run(self, batch: Any) -> tuple[Any, Any]:
        """Forward, and backward where it is asked for; gives the targets, if there are any, and
        what the model gave.
        """
        if self._loss is not None:
            return self._run_with(self._loss, batch)
        inputs, targets = examples.as_pair(batch)
        outputs = call(self._model, inputs)
        if self._backward:
            if targets is None:
                raise PrunedgeError(
                    "the batches have no labels, and there is no loss", remedy=_NO_LOSS
                )
            self._backpropagate(self._task.loss(outputs, targets))
        return targets, outputs

    def _run_with(self, loss: Loss, batch: Any) -> tuple[Any, Any]:
        given: list[Any] = []
        watching = self._model.register_forward_hook(
            lambda module, args, output: given.append(output)
        )
        try:
            value = loss(self._model, batch)
        finally:
            watching.remove()
        if self._backward:
            self._backpropagate(value)
        targets = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
        return targets, given[-1] if given else None

    def _backpropagate(self, value: Any) -> None:
        if (
            not isinstance(value, torch.Tensor)
            or value.numel() != 1
            or not value.is_floating_point()
        ):
            gave = (
                f"{tuple(value.shape)} {value.dtype}"
                if isinstance(value, torch.Tensor)
                else type(value).__name__
            )
            raise PrunedgeError(
                f"loss gave {gave}, and not a number",
                remedy="let it give the mean over the examples, a scalar tensor",
            )
        if not value.requires_grad and any(collector.undecided for collector in self._backward):
            return  # the layers whose gradients are asked for were not known
        if not value.requires_grad:
            remedy = "let it use what the model gives, without detach() or no_grad()"
            raise PrunedgeError("the loss does not hang on any channel of the model", remedy=remedy)
        value.backward()


# Every criterion that is not read off gradients; all but one of them need no labels, either.
_NO_LOSS = "yield (inputs, labels), give loss=fn, or use a criterion that needs none: " + ", ".join(
    name
    for name, entry in CRITERIA.items()
    if entry.reads != "gradients" and name != "mutual-information"
)
