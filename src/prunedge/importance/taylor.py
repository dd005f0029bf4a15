"""Taylor expansion of the loss: gathered from gradients that fine-tuning computes anyway."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from prunedge.errors import GraphError, Undecided
from prunedge.graph import ChannelGraph, Group, Slice, call
from prunedge.graph.outputs import tensors_in
from prunedge.importance.batch import moved
from prunedge.importance.consumer_hooks import ConsumerHooks
from prunedge.importance.criteria import collected
from prunedge.importance.pending import settle
from prunedge.importance.reading import Reading
from prunedge.importance.scores import Scores, checked, finished, of_criterion
from prunedge.importance.taylor_terms import KINDS, products, term
from prunedge.utils import distributed
from prunedge.utils.tracing import traced


@collected("gradients", "taylor", "taylor-fo", "fisher")
class TaylorCollector:
    """Accumulates a criterion of the Taylor family while a model trains or runs backward passes.

    For each example n the first-order change of the loss when a channel is zeroed at all its
    consumers is minus c_n = sum over consumers and positions of dC/dz * z, with z the consumer's
    input. With w the weights that consume the channel, c_n is also sum w * dC/dw. Four criteria
    come from it:

    `taylor`: its absolute value *per example*, divided by the M positions of the channel's map,
    averaged over the examples:

        theta = 1/N sum_n | 1/M sum_m (dC/dz_nm * z_nm) |

    (Molchanov et al. 2017, equations 8 and following). On a plain chain this is the published
    formula exactly (pooling between a channel and its consumer keeps the sum, and M counts the
    producer's positions).

    `taylor-fo`: (1/N sum_n c_n)^2, the squared sum of weight * gradient of the mean loss (Molchanov
    et al. 2019, equation 8, with the gate of section 3.2 at the channel's consumers).

    `fisher`: 1/(2N) sum_n c_n^2, the second-order term with the empirical Fisher information in the
    Hessian's place (Theis et al. 2018, equation 13).

    `signed`: -1/N sum_n c_n, the first-order estimate of the loss's change itself.

    With a `function`, which gives a number for each of the c_n, (examples, channels), its mean: a
    user's own.

    The loss must be the mean over the batch; `start_batch` scales it back. Several processes may
    each see a slice of the batch, and their share of the gradient of the mean over all of it. Sums
    run in float64; memory does not grow with the number of images.

    Forward hooks show what each consumer reads, and of which example
    (`prunedge.importance.consumer_hooks`). Where a consumer is no layer that is called as such, nor
    a weight in torch's `linear` or attention, no hook sees its input: c_n is then read off the
    weight, sum of w * dC/dw, which is the sum over the batch. That is all that `taylor-fo` and
    `signed` need; the others need batches of one example. `undecided` says after each batch, and
    `result` raises, when the batch's examples can't be told apart.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        kind: str = "taylor",
        function: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if function is None and kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind}")
        self._graph = graph
        self._kind = kind
        self._function = function
        self._groups = {group.name: group for group in graph.groups}
        self._unused: frozenset[str] = frozenset()
        # The other criteria sum over examples: which example a change belongs to doesn't matter.
        self._by_example = function is not None or kind in ("taylor", "fisher")
        self._hooks = ConsumerHooks(graph, self._by_example)
        self.reset()

    def reset(self) -> None:
        """Forget what was gathered."""
        self._sums: dict[str, torch.Tensor] = {}
        for name, group in self._groups.items():
            self._sums[name] = torch.zeros(group.size, dtype=torch.float64)
        self._pending: dict[str, torch.Tensor] = {}
        self._by_weight: dict[str, torch.Tensor] = {}
        self._batch = 0
        self._here = 0
        self._examples = 0
        self._is_divided = False
        self._failed = ""
        self._hooks.start(0)

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """Say before each forward pass how many examples the batch holds.

        `here` of them pass in this process (None: all, undivided).
        """
        settle(self)
        self._batch = batch_size
        self._here = batch_size if here is None else here
        self._is_divided = here is not None
        # A process without examples runs one that doesn't count.
        self._hooks.start(max(1, self._here))

    @property
    def undecided(self) -> str:
        """Why the examples of the last batch can't be told apart; empty when they can."""
        if self._hooks.undecided or not self._by_example or self._batch <= 1:
            return self._hooks.undecided
        for group in self._by_weight:
            return (
                f"{group}: code of the model's own reads it, with a weight that no layer is "
                "called for"
            )
        return ""

    def drop_batch(self) -> None:
        """Forget the batch that has just gone forward and backward."""
        self._pending = {}
        self._by_weight = {}
        self._batch = 0
        self._here = 0
        self._hooks.start(0)

    def absorb(self, other: Self) -> None:
        """Take over what another collector has gathered, on other images or in another process."""
        self.take_over(other.gathered())

    def gathered(self) -> Any:
        """The sums and the number of examples since the last `reset`, for another process."""
        settle(self)
        sums = {name: total.cpu() for name, total in self._sums.items()}
        return sums, self._examples, self._failed

    def take_over(self, gathered: Any) -> None:
        """Add what another collector's `gathered` gave."""
        settle(self)
        sums, examples, failed = gathered
        for name, total in sums.items():
            self._sums[name] = self._sums[name].cpu() + total
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
                remedy="rank in a pass of its own",
            )
        if not self._examples:
            raise GraphError(
                "the Taylor criterion has seen no images", remedy="rank on at least one batch"
            )
        values = {name: total.cpu() / self._examples for name, total in self._sums.items()}
        if self._kind == "taylor-fo":
            values = {name: value.square() for name, value in values.items()}
        return finished(values, self._kind, self._examples)

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[None]:
        """Hook into every consumer of every group while the context lasts."""
        handles = []
        parameters = dict(model.named_parameters())
        for group in self._groups.values():
            for number, consumed in enumerate(group.having("in")):
                weight = parameters.get(consumed.tensor)
                if weight is not None and weight.requires_grad:
                    hook = self._weight_hook(group, number, consumed, weight)
                    handles.append(weight.register_hook(hook))
        try:
            with self._hooks.attached(model, self._see):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def needs(self, model: nn.Module) -> set[str]:
        """The weights whose gradients the criterion reads, since no hook sees their input.

        Runs the graph's example once, to tell them from those that don't take part; gradients and
        flags of the parameters change.
        """
        for parameter in model.parameters():
            is_number = parameter.is_floating_point() or parameter.is_complex()
            parameter.requires_grad_(is_number)
            parameter.grad = None
        with self.attach(model), torch.enable_grad():
            self._hooks.start(1)
            outputs = tensors_in(call(model, self._example_for(model)))
            unseen = self.unseen()
            total = torch.zeros(())
            for output in outputs.values():
                if output.requires_grad:
                    total = total.to(output.device) + output.abs().float().sum()
            if total.requires_grad:
                total.backward()
        self.reset()

        idle: set[str] = set()
        if total.requires_grad:
            idle = {name for name, x in model.named_parameters() if x.grad is None}
        self.leave_out(idle)
        return unseen - idle

    def _example_for(self, model: nn.Module) -> Any:
        """The graph's example on the model's device."""
        first = next(model.parameters(), None)
        if first is None:
            return self._graph.example
        return moved(self._graph.example, lambda x: x.to(first.device))

    def unseen(self) -> set[str]:
        """Tensors that consume channels, and that the last forward pass did not show at work."""
        unseen = set()
        for group in self._groups.values():
            for number, consumed in enumerate(group.having("in")):
                if not self._hooks.sees((group.name, number)):
                    unseen.add(consumed.tensor)
        return unseen

    def leave_out(self, tensors: Collection[str]) -> None:
        """These tensors take no part in the model's mode (auxiliary heads in evaluation).

        Their layers are not waited for.
        """
        self._unused = frozenset(tensors)

    def _weight_hook(
        self, group: Group, number: int, consumed: Slice, weight: torch.Tensor
    ) -> Callable[[torch.Tensor], None]:
        """A gradient hook for a consumer's weight: reads c off it where no hook saw its input."""
        indices = torch.as_tensor(consumed.indices)

        @traced("rank")
        def hook(gradient: torch.Tensor) -> None:
            if self._hooks.sees((group.name, number)) or consumed.tensor in self._unused:
                return
            product = weight.detach() * gradient.detach()
            by_feature = product.movedim(consumed.dim, 0).flatten(1).sum(1)
            change = by_feature[indices.to(by_feature.device)].sum(1)  # (channels,)
            if self._is_divided:
                change = distributed.all_reduce_sum(change)
            before = self._by_weight.get(group.name)
            self._by_weight[group.name] = change if before is None else before + change

        return hook

    def _see(self, reading: Reading, read: torch.Tensor) -> torch.Tensor | None:
        """Hook into the gradient of what a consumer reads; gives what it shall read instead."""
        if not torch.is_grad_enabled() or self._failed:
            return None
        # A view of its own: the gradient at *this* consumer, not the sum over all that use the
        # tensor. Behind frozen layers nothing asks for gradients, so the view asks itself.
        z = read.view_as(read) if read.requires_grad else read.detach().requires_grad_()
        # The hook must not hold `z` itself: a tensor that its own hook refers to keeps the whole
        # batch's graph alive.
        value = z.detach()
        z.register_hook(lambda gradient: self._gather(reading, value, gradient.detach()))
        return z

    @traced("rank")
    def _gather(self, reading: Reading, z: torch.Tensor, gradient: torch.Tensor) -> None:
        z = reading.arranged(z)
        gradient = reading.arranged(gradient)
        others = [dim for dim in range(1, z.dim()) if dim != reading.channel_dim]
        change = products(z, gradient, others)  # (examples, features)
        if not self._by_example:
            change = change.sum(0, keepdim=True)
        for tap in reading.taps:
            columns = tap.columns_on(change.device)
            by_column = change[:, columns.reshape(-1)].reshape(len(change), *columns.shape)
            by_channel = by_column.sum(-1)  # (examples, channels)
            before = self._pending.get(tap.group)
            self._pending[tap.group] = by_channel if before is None else before + by_channel

    @traced("rank")
    def _settle(self) -> None:
        if not self._here:
            return
        for name in self._pending.keys() | self._by_weight.keys():
            for change in self._changes(name):
                total = self._term(change, self._groups[name]).sum(0)
                self._sums[name] = self._sums[name].to(total.device) + total

    def _changes(self, name: str) -> list[torch.Tensor]:
        """The batch's c for a group, (examples, channels) each, or (1, channels) of all of them."""
        changes = []
        seen = self._pending.get(name)
        if seen is not None:
            # The loss is a mean over the batch: an example's own gradient is the batch's size times
            # larger.
            changes.append(seen.double() * self._batch)
        read_off = self._by_weight.get(name)
        if read_off is not None:
            # Each process has the sum over all processes: its share is that of its own examples.
            share = 1 if self._by_example else self._here
            changes.append(read_off.double()[None] * share)
        if self._by_example:
            # Both are of the same example: a weight is read only in batches of a single example.
            return [torch.stack(changes).sum(0)]
        return changes

    def _term(self, change: torch.Tensor, group: Group) -> torch.Tensor:
        """What the criterion adds up, from the examples' c."""
        if self._function is None:
            return term(self._kind, change, group)
        with of_criterion(self._kind):
            numbers = self._function(change)
        return checked(numbers, change.shape, self._kind)
