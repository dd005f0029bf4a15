"""What the rules share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.ledger import Condition
from prunedge.graph.observations import Operation
from prunedge.graph.parameters import ParamView


def unknown(labeller: Labeller, call: Call) -> None:
    """No rule: all that it touches stays."""
    reason = f"{call.signature.spelled} is an operation that prunedge does not follow"
    labeller.freeze_all(call.tensors, reason)
    count_flops(labeller, call)
    if call.is_in_place:
        labeller.memory.write(call.input, None)


def count_flops(labeller: Labeller, call: Call) -> None:
    """Count what torch's FLOP counter counts of an operation whose cost no removal changes."""
    formula = flop_registry.get(call.func._overloadpacket)
    if formula is not None:
        macs = formula(*call.args, **call.kwargs, out_val=call.out) // 2
        labeller.ledger.operations.append(Operation(None, macs // labeller.batch))


def squash_all_but(labeller: Labeller, labels: torch.Tensor, dim: int) -> torch.Tensor:
    """The labels along one dimension, those along all others tied to them."""
    return labeller.ledger.squash(labels, [d for d in varying_dims(labels) if d != dim])


def lines_along(
    labeller: Labeller, labels: torch.Tensor, dims: list[int]
) -> dict[int, list[torch.Tensor]]:
    """The labels along each of these dimensions, the others tied where there are several."""
    return {dim: [squash_all_but(labeller, labels, dim).reshape(-1)] for dim in dims}


def param_lines(
    labeller: Labeller, view: ParamView, dims: list[int]
) -> dict[int, list[torch.Tensor]]:
    """For each of these dimensions of a parameter's view, atoms of what varies along it alone."""
    lines: dict[int, list[torch.Tensor]] = {}
    for dim in dims:
        for axis, coordinate in enumerate(view.coordinates):
            small = compact(coordinate)
            varies_there_alone = small.shape[dim] > 1 and small.numel() == small.shape[dim]
            if varies_there_alone and not bool((small < 0).any()):
                atoms = small.reshape(-1) + labeller.ledger.base[view.name, axis]
                lines.setdefault(dim, []).append(atoms)
    return lines


def dims_of(call: Call, rank: int) -> list[int]:
    """The dimensions that a reduction's arguments name, from 0; all where they name none."""
    dim = call.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else dim
    return [d % rank for d in dims]


def only_if_pruned(
    labeller: Labeller,
    labels: torch.Tensor,
    dim: int,
    varying: list[int],
    partner: torch.Tensor | None,
    reason: str,
) -> None:
    """Tie to the partner, or freeze where there is none.

    At once where channels lie along one dimension, else if they turn out to leave along `dim`.
    """
    ledger = labeller.ledger
    if len(varying) > 1:
        ledger.conditions.append(Condition(labels, dim, partner, reason))
    elif partner is None:
        ledger.freeze(labels, reason)
    else:
        ledger.tie(labels, partner, reason)


def padded_shape(x: torch.Tensor, rank: int) -> list[int]:
    """The shape of an operand that is broadcast to that rank."""
    return [1] * (rank - x.dim()) + list(x.shape)


def narrowed(x: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The positions that stay; `kept` holds them by dimension."""
    for dim, positions in kept.items():
        x = x.index_select(dim, positions)
    return x


def restored(out: Any, shape: torch.Size, kept: Mapping[int, torch.Tensor]) -> Any:
    """Results at their full length, with zeros where channels are removed.

    Those that do not have the shape that the input (of this `shape` before) was narrowed to are
    given as they are.
    """
    short = list(shape)
    for dim, positions in kept.items():
        short[dim] = len(positions)

    def with_zeros(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor) or list(tensor.shape) != short:
            return tensor
        for dim, positions in kept.items():
            size = list(tensor.shape)
            size[dim] = shape[dim]
            tensor = tensor.new_zeros(size).index_copy(dim, positions, tensor)
        return tensor

    return tree_map(with_zeros, out)


def over_what_stays(call: Call, kept: Mapping[int, torch.Tensor]) -> Any:
    """The operation on the positions that stay, its results at their full length."""
    out = call.again(narrowed(call.input, kept))
    return restored(out, call.input.shape, kept)


def name_all(labeller: Labeller, tensors: Iterable[torch.Tensor], labels: Any) -> None:
    """Give all of these tensors the same labels."""
    for tensor in tensors:
        labeller.name(tensor, labels)
