"""The truth that criteria guess at: how the loss changes when a channel is zero at all its
consumers, one channel at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial as partial_of
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from prunedge.graph import ChannelGraph, Group, call
from prunedge.graph.inputs import brought_to
from prunedge.graph.masking import masking
from prunedge.importance import batch as examples
from prunedge.importance.consumers import consumer
from prunedge.importance.replay import Instead, Replay
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.tasks import Task, task_of_batches
from prunedge.tasks.logits import Loss

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Truth:
    """The change of the mean loss when each channel is zeroed: group -> (channels,) float64, NaN
    where it was not measured.

    The mean is over the examples. Positive where the loss rises. `loss` is that of the whole
    model over the same `examples`. `seconds` were spent on `channels` measurements,
    `seconds_whole` would be one evaluation of the whole model.
    """

    changes: Mapping[str, torch.Tensor]
    loss: float
    examples: int
    channels: int
    seconds: float
    seconds_whole: float

    @property
    def fraction(self) -> float:
        """What a channel has cost, as a fraction of an evaluation of the whole model."""
        return self.seconds / max(1, self.channels) / self.seconds_whole


@dataclass(frozen=True)
class Partial:
    """Sums over the batches that are done: all that is needed to go on. `next` is the group to be
    measured next in batch `batch`.
    """

    sums: Mapping[str, torch.Tensor]
    batch: int = 0
    next: int = 0
    loss: float = 0.0
    examples: int = 0
    seconds: float = 0.0
    seconds_whole: float = 0.0


def sample(graph: ChannelGraph, channels: int | None, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """At most this many channels of each group, drawn at random (all when None)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        group.name: tuple(
            sorted(
                torch.randperm(group.size, generator=generator)[: channels or group.size].tolist()
            )
        )
        for group in graph.groups
    }


@full_float32()
def oracle(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any],
    chosen: Mapping[str, tuple[int, ...]],
    *,
    loss: Loss | None = None,
    task: Task | None = None,
    partial: Partial | None = None,
    keep: Callable[[Partial], None] | None = None,
    progress: Progress | None = None,
) -> Truth:
    """Zero each of the `chosen` channels (group -> channels) at all its consumers and measure the
    loss, in evaluation mode, in float32.

    The oracle of Molchanov et al. 2017, section 2.2. `batches` and `loss` are as for `rank`:
    (inputs, targets) and the `task`'s loss, or whatever `loss(model, batch)` takes for the mean
    over the batch's examples. The batches must come in the same order each time and fit into memory
    with the activations of all layers: those before a channel's first consumer are computed once
    for each batch. `keep` is told after each group what is known so far; with such a `partial` a
    later call goes on from there. The model's weights are as before in the end.
    """
    task = task or task_of_batches(batches)
    batches = [brought_to(batch, model) for batch in batches]
    done = partial or Partial(
        {
            group.name: torch.zeros(len(chosen[group.name]), dtype=torch.float64)
            for group in graph.groups
        }
    )
    count = sum(map(len, chosen.values()))
    tensors = dict(model.named_parameters())
    with evaluating(model), torch.no_grad(), Replay(model).attached() as replay:
        for number, batch in enumerate(batches):
            if number < done.batch:
                continue
            held = examples.count(batch)
            run = partial_of(_loss, model, batch, loss, task, held)
            before = replay.record(run)
            if done.next == 0:
                begun = perf_counter()
                replay.run(run, 0)
                whole = done.seconds_whole + perf_counter() - begun
                done = replace(
                    done,
                    loss=done.loss + before,
                    examples=done.examples + held,
                    seconds_whole=whole,
                )
            starts = replay.starts()
            behind = number * count + sum(
                len(chosen[group.name]) for group in graph.groups[: done.next]
            )
            for place in range(done.next, len(graph.groups)):
                group = graph.groups[place]
                begun = perf_counter()
                start = min((starts[part.tensor] for part in group.having("in")), default=0)
                first = _first(model, group, replay.module(start))
                changes = torch.zeros(len(chosen[group.name]), dtype=torch.float64)
                for index, channel in enumerate(chosen[group.name]):
                    instead = None if first is None else first.without(channel)
                    with masking(
                        (tensors[part.tensor], part.dim, part.indices[channel])
                        for part in group.having("in")
                    ):
                        changes[index] = replay.run(run, start, instead) - before
                    behind += 1
                    if progress is not None:
                        progress(behind, count * len(batches), f"oracle: {group.name}")
                done = replace(
                    done,
                    sums={**done.sums, group.name: done.sums[group.name] + changes},
                    next=place + 1,
                    seconds=done.seconds + perf_counter() - begun,
                )
                if keep is not None:
                    keep(done)
            done = replace(done, batch=number + 1, next=0)
    changes_by_group = {}
    for group in graph.groups:
        changes = torch.full((group.size,), torch.nan, dtype=torch.float64)
        changes[list(chosen[group.name])] = done.sums[group.name] / done.examples
        changes_by_group[group.name] = changes
    return Truth(
        changes_by_group,
        done.loss / done.examples,
        done.examples,
        count,
        done.seconds,
        done.seconds_whole,
    )


def _loss(model: nn.Module, batch: Any, loss: Loss | None, task: Task, held: int) -> float:
    """The sum of the loss over a batch of `held` examples; the task's is added up in float64."""
    if loss is not None:
        return float(loss(model, batch)) * held
    inputs, targets = examples.as_pair(batch)
    return float(task.loss(call(model, inputs), targets, double=True)) * held


@dataclass(frozen=True)
class _First:
    """The layer that consumes a group's channels before all others do: its input never changes.

    `columns` (channels, k) say which of its inputs belong to each channel.
    """

    layer: nn.Conv2d | nn.Linear
    columns: torch.Tensor

    def without(self, channel: int) -> Instead:
        """What the layer gives without a channel: what it gave, less the channel's part, which is a
        fraction of the work.
        """
        layer, columns = self.layer, self.columns[channel].to(self.layer.weight.device)
        weight = layer.weight.index_select(1, columns)

        def instead(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            if isinstance(layer, nn.Linear):
                return output - functional.linear(x.index_select(-1, columns), weight)
            part = x.index_select(x.dim() - 3, columns)
            return output - functional.conv2d(
                part, weight, None, layer.stride, layer.padding, layer.dilation
            )

        return instead


def _first(model: nn.Module, group: Group, module: nn.Module | None) -> _First | None:
    """None where the module that runs first is no plain layer: then it has to run with its weights
    zeroed.
    """
    for part in group.having("in"):
        plain = type(module) is nn.Linear or (
            type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
        )
        if plain and part.dim == 1 and consumer(model, part) is module:
            return _First(module, torch.as_tensor(part.indices))  # type: ignore[arg-type]
    return None
