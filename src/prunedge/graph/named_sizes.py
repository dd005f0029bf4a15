"""Sizes and positions that the model's code names, and the channels that they count.

`y[:, :4]` and `x.reshape(b, n, 3, 64)` say numbers that change when channels leave. Each such call
is noted with the labels of the tensor that it is made on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import Labels, lying_along, varying_dims
from prunedge.graph.ledger import Sized
from prunedge.graph.memory import address
from prunedge.graph.parameters import ParamView
from prunedge.graph.sizes import CodeCall
from prunedge.graph.sizes.picks import Picked, Positions

if TYPE_CHECKING:
    from prunedge.graph.labels import Labeller

ModuleCall = tuple[str, CodeCall]  # a module and a call in its code
ReadSite = tuple[str, str, int]  # a module, a site in its code that reads a size, the dimension


class _Pick(NamedTuple):
    """A call that picks positions; `lines` holds the tensor's labels by dimension."""

    site: ModuleCall
    x: torch.Tensor
    lines: dict[int, Labels]
    picked: list[Picked]


class _Read(NamedTuple):
    """A site in a module's code that reads sizes of a tensor, which carried this tag then."""

    module: str
    site: str
    dims: tuple[int, ...]
    x: torch.Tensor
    tag: Labels | ParamView


class _Gaps(NamedTuple):
    """A view of every n-th channel: the labels of all, and which of them along a dimension."""

    labels: Labels
    dim: int
    positions: Positions


class NamedSizes:
    """What the code names, as `sizes.SizedCalls` reports it (a `sizes.Watcher`).

    Which channels a call has met is known for sure only when all has been written into the tensors:
    `settle` notes it when the run is over.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller
        self._ledger = labeller.ledger
        self._made_at: dict[int, tuple[ModuleCall, torch.Size]] = {}  # filled tensors, by address
        self._picks: list[_Pick] = []
        self._reads: dict[tuple[str, str, int, tuple[int, ...]], _Read] = {}
        self._no_channels: set[ReadSite] = set()  # where sizes without channels are read, too
        self._gaps: dict[int, _Gaps] = {}  # by the view's id
        self._alive: list[torch.Tensor] = []

    def note(self, sizes: Iterable[tuple[int, Labels, int]]) -> None:
        """The call under way names the sizes of channels: (index among its sizes, labels, dim)."""
        named = tuple(sizes)
        site = self._labeller.code.site
        if named and site is not None:
            self._ledger.resizes.append(Sized(*site, named))

    def names(self, site: ModuleCall, x: torch.Tensor, dims: Mapping[int, int]) -> None:
        """A call names the sizes of these dimensions of a tensor; index among them -> dimension."""
        labels = self._labeller.labels(x)
        if labels is None:
            return
        sizes = [(index, labels, dim) for index, dim in dims.items() if labels.shape[dim] > 1]
        if sizes:
            self._ledger.resizes.append(Sized(*site, tuple(sizes)))

    def made(self, tensor: torch.Tensor) -> None:
        """The call under way has made this tensor of one number."""
        site = self._labeller.code.site
        if site is not None:
            self._made_at[address(tensor)] = (site, tensor.shape)

    def constants(self, tensor: torch.Tensor, dim: int) -> Labels | None:
        """Labels of a new tensor of one number that is joined with channels along a dimension.

        Each of its positions may leave. None where it can't be made smaller, since it is a slice of
        another tensor, or its size is not named by the call that made it.
        """
        site, size = self._made_at.get(address(tensor), (None, None))
        memory = self._labeller.memory
        if site is None or size != tensor.shape:
            return None
        if memory.at(tensor) is not None or not memory.is_filled(tensor):
            return None
        labels = self._ledger.constants(tensor.shape[dim], dim, tensor.dim())
        self._ledger.resizes.append(Sized(*site, ((dim, labels, dim),)))
        return labels

    def reads(self, site: tuple[str, str], x: torch.Tensor, dims: tuple[int, ...]) -> None:
        """Code reads the sizes of these dimensions of a tensor."""
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return
        tag = self._labeller.tag(x)
        memory = self._labeller.memory
        is_plain = memory.at(x) is None and not memory.is_filled(x)
        if is_plain and not isinstance(tag, ParamView):
            for dim in dims:
                if x.shape[dim] > 1 and (tag is None or tag.shape[dim] == 1):
                    self._no_channels.add((*site, dim))
        if tag is not None:
            self._alive.append(x)
            self._reads.setdefault((*site, id(x), dims), _Read(*site, dims, x, tag))

    def picks(self, site: ModuleCall, x: torch.Tensor, picked: list[Picked], beyond: str) -> None:
        """A call picks positions of this tensor by numbers.

        Where they are channels it picks others when some of those have left.
        """
        labeller = self._labeller
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            whole = torch._C._functorch.get_unwrapped(x)
            return labeller.freeze_all(whole, "is picked inside of a vmap")
        tag = labeller.tag(x)
        if tag is None and not labeller.memory.is_filled(x):
            return

        lines: dict[int, Labels] = {}
        for pick in picked:
            labels = self._line(tag, pick.dim, x.dim())
            if labels is not None:
                lines[pick.dim] = labels
                self._freeze_unknown(pick, labels, beyond)
        self._picks.append(_Pick(site, x, lines, picked))

    def _freeze_unknown(self, pick: Picked, labels: Labels, beyond: str) -> None:
        """Channels stay where it can't be known which of them a call picks."""
        if labels.shape[pick.dim] == 1:
            return
        is_fixed = pick.numbers is None or not self._labeller.varies(pick.numbers)
        if pick.positions is not None and is_fixed and not beyond:
            return

        if beyond:
            how = beyond
        elif is_fixed:
            how = "in a way that can't be followed"
        else:
            how = "by numbers that depend on the input or on chance"
        self._ledger.freeze_where_pruned(labels, pick.dim, f"is picked {how}")

    def _line(self, tag: Labels | ParamView | None, dim: int, rank: int) -> Labels | None:
        """Labels of a tensor of that rank, or of a parameter's view along one of its dimensions."""
        if not isinstance(tag, ParamView):
            return tag
        atoms = self._ledger.of(tag, dim, None)
        return None if atoms is None else lying_along(atoms, dim, rank)

    def picked(self, x: torch.Tensor, picked: list[Picked], out: object) -> None:
        """Note a view of every n-th channel that a call has picked.

        An in-place write to such a view must still reach these channels.
        """
        labels = self._labeller.labels(x)
        if labels is None or not isinstance(out, torch.Tensor):
            return
        for pick in picked:
            positions = pick.positions
            if pick.how != "range" or positions is None or len(positions) < 2:
                continue
            if positions[1] - positions[0] > 1 and labels.shape[pick.dim] > 1:
                self._alive.append(out)
                self._gaps[id(out)] = _Gaps(labels, pick.dim, positions)

    def follow_gaps(self, call: Call) -> None:
        """Follow a call on a view of every n-th channel: an in-place write, or another view."""
        if not self._gaps or not call.args:
            return
        gaps = self._gaps.get(id(call.input))
        if gaps is None:
            return
        if call.func._schema.is_mutable:
            self._tie_between(gaps)
            return
        for x in call.results:
            if x._is_view() and address(x) == address(call.input):
                self._gaps[id(x)] = gaps
                self._alive.append(x)

    def _tie_between(self, gaps: _Gaps) -> None:
        """Tie each n-th channel to those between it and the next.

        If whole blocks leave, every n-th channel is still every n-th of those that stay: a view,
        which can be written to.
        """
        labels, dim, positions = gaps
        step = positions[1] - positions[0]
        inside = labels.narrow(dim, positions[0], labels.shape[dim] - positions[0])
        for block in inside.split(step, dim):
            reason = "lies between channels that are written to"
            self._ledger.tie(block.narrow(dim, 0, 1), block, reason)

    def settle(self) -> None:
        """The run is over: note what the calls have met in the end."""
        self._settle_memories()
        self._settle_picks()
        self._settle_reads()

    def _settle_memories(self) -> None:
        """Calls that made tensors into which channels were written name the sizes of these."""
        for where, owner in self._labeller.memory.owners.items():
            site, size = self._made_at.get(where, (None, None))
            labels = self._labeller.labels(owner)
            if site is not None and size == owner.shape and labels is not None:
                sizes = tuple((dim, labels, dim) for dim in varying_dims(labels))
                self._ledger.resizes.append(Sized(*site, sizes))

    def _written_labels(self, x: torch.Tensor) -> Labels | None:
        """What has been written into the tensor's memory until the end."""
        return None if self._labeller.memory.at(x) is None else self._labeller.labels(x)

    def _settle_picks(self) -> None:
        """Calls that picked positions: which channels these are in the end."""
        first_by_numbers: dict[tuple[object, ...], tuple[Labels, Positions]] = {}
        for site, x, lines, picked in self._picks:
            final = self._written_labels(x)
            has_final = final is not None and final.dim() == x.dim()
            for pick in picked:
                dim = pick.dim
                positions = pick.positions
                labels = final if has_final else lines.get(dim)
                if labels is None or labels.shape[dim] == 1 or positions is None:
                    continue
                size = labels.shape[dim]
                if any(not 0 <= position < size for position in positions):
                    continue  # the code has transposed the tensor in place since

                self._ledger.resizes.append(Sized(*site, ((dim, labels, dim),), (positions,)))
                if pick.literal is not None:
                    key = (*site, dim, pick.literal)
                    first = first_by_numbers.setdefault(key, (labels, positions))
                    self._pick_alike(first, (labels, positions), dim)
                if len(set(positions)) < size:
                    indices = torch.tensor(positions, dtype=torch.int64)
                    self._ledger.pieces.append(labels.index_select(dim, indices))

    def _pick_alike(
        self, first: tuple[Labels, Positions], second: tuple[Labels, Positions], dim: int
    ) -> None:
        """The same numbers pick from tensors of two widths (a module that is called twice).

        What they count must leave alike.
        """
        labels, positions = first
        other_labels, other_positions = second
        if labels.shape[dim] == other_labels.shape[dim]:
            return
        if positions != other_positions or not positions:
            return
        if len(varying_dims(labels)) != 1 or len(varying_dims(other_labels)) != 1:
            return

        counted = max(positions) + 1
        self._ledger.tie(
            labels.narrow(dim, 0, counted),
            other_labels.narrow(dim, 0, counted),
            "is picked by the same numbers as channels that stay",
        )

    def _settle_reads(self) -> None:
        """Sites that read sizes: which channels these count in the end."""
        known: set[tuple[str, str, int, int]] = set()
        for module, site, dims, x, first_tag in self._reads.values():
            final = self._written_labels(x)
            tag = first_tag if final is None else final
            sizes = []
            for dim in dims:
                if (module, site, dim) in self._no_channels:
                    continue  # there it counts height or width, too, which may be as many
                labels = self._line(tag, dim, x.dim())
                if labels is None or dim >= labels.dim() or labels.shape[dim] == 1:
                    continue
                if labels.shape[dim] != x.shape[dim]:
                    continue

                # Labels that are the same object are read once only.
                key = (module, site, dim, id(tag))
                if key not in known:
                    known.add(key)
                    sizes.append((dim, labels, dim))
            if sizes:
                self._ledger.reads.append(Sized(module, CodeCall(site, 0), tuple(sizes)))
