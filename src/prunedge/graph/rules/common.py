"""What the rules share."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from prunedge.graph.channels import Operation
from prunedge.graph.inputs import tensors_of
from prunedge.graph.labels import Condition, Labeller, ParamView, compact


def outputs_of(out: Any) -> list[torch.Tensor]:
    """The tensors that an operation made."""
    return tensors_of(out)


def base_name(func: Any) -> str:
    """The operation's name without its library and the underscore of the form that works in place."""
    name = str(func._schema.name.split("::")[1])
    return name[:-1] if is_in_place(func) else name


def is_in_place(func: Any) -> bool:
    """Whether the operation writes into its first argument and gives it back."""
    name = str(func._schema.name)
    return name.endswith("_") and not name.endswith("__")


def nothing(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The results carry no channels."""


def filled(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A new tensor that holds one number throughout, or nothing yet."""
    for made in outputs_of(out):
        lab.fill(made)


def unknown(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """No rule: all that it touches stays."""
    lab.freeze_all(args, kwargs, f"{func._schema.name.split('::')[1]} is an operation that prunedge does not follow")
    count_flops(lab, func, args, kwargs, out)
    if is_in_place(func):
        lab.write(args[0], None)


def count_flops(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Count what torch's FLOP counter counts of an operation whose cost no removal changes."""
    formula = flop_registry.get(func._overloadpacket)
    if formula is not None:
        lab.ledger.operations.append(Operation(None, formula(*args, **kwargs, out_val=out) // 2 // lab.batch))


def varying_dims(labels: torch.Tensor) -> list[int]:
    """The dimensions along which (compact) labels vary."""
    return [dim for dim, size in enumerate(labels.shape) if size > 1]


def lines_along(lab: Labeller, labels: torch.Tensor, dims: list[int]) -> dict[int, list[torch.Tensor]]:
    """The labels along each of these dimensions, the others tied where there are several."""
    return {dim: [lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != dim]).reshape(-1)] for dim in dims}


def param_lines(lab: Labeller, view: ParamView, dims: list[int]) -> dict[int, list[torch.Tensor]]:
    """For each of these dimensions of a parameter's view, the atoms of what varies along it alone."""
    lines: dict[int, list[torch.Tensor]] = {}
    for dim in dims:
        for axis, coordinate in enumerate(view.coordinates):
            small = compact(coordinate)
            if small.shape[dim] > 1 and small.numel() == small.shape[dim] and not bool((small < 0).any()):
                lines.setdefault(dim, []).append(small.reshape(-1) + lab.ledger.base[view.name, axis])
    return lines


def dims_of(func: Any, args: Any, kwargs: Any, rank: int) -> list[int]:
    """The dimensions that a reduction's arguments name, from 0; all where they name none."""
    place = next((i for i, one in enumerate(func._schema.arguments) if one.name == "dim"), None)
    if place is None:
        return list(range(rank))
    # An argument that equals its default is not among those of the call.
    default = func._schema.arguments[place].default_value
    value = kwargs.get("dim", args[place] if place < len(args) else default)
    if value is None or value == []:
        return list(range(rank))
    return [d % rank for d in ([value] if isinstance(value, int) else value)]


def only_if_pruned(lab: Labeller, labels: torch.Tensor, dim: int, varying: list[int], partner: torch.Tensor | None, reason: str) -> None:
    """Tie to the partner, or freeze: at once where channels lie along one dimension, else if they turn out to leave along it."""
    if len(varying) > 1:
        lab.ledger.conditions.append(Condition(labels, dim, partner, reason))
    elif partner is None:
        lab.ledger.freeze(labels, reason)
    else:
        lab.ledger.tie(labels, partner, reason)


def padded_shape(x: torch.Tensor, rank: int) -> list[int]:
    """The shape of an operand that is broadcast to that rank."""
    return [1] * (rank - x.dim()) + list(x.shape)
