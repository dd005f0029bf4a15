"""The arguments of calls that pick positions, written anew for other positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from prunedge.graph.label_tensors import lying_along
from prunedge.graph.sizes.picks import (
    LISTS,
    SUBSCRIPTS,
    Positions,
    argument,
    is_list,
    items_of_index,
    shifts_of,
    tensor_of,
)


def repicked(
    func: Any, args: Any, kwargs: Mapping[str, Any], now: Mapping[int, Positions]
) -> tuple[Any, Any]:
    """The arguments of the same call with other positions than those that it names.

    `now` holds them by dimension.
    """
    name = func.__name__
    x = tensor_of(args, kwargs)
    if name in SUBSCRIPTS:
        return _subscript_anew(x, args, now), {}
    if name == "roll":
        return _roll_anew(x, args, kwargs, now), {}

    ((dim, positions),) = now.items()
    first = positions[0] if positions else 0
    if name in LISTS:
        own = {key: value for key, value in kwargs.items() if key not in ("input", "dim", "index")}
        return (x, dim, _tensor(positions, x), *args[3:]), own
    if name == "gather":
        index = argument(args, kwargs, 2, "index")
        shape = list(index.shape)
        shape[dim] = len(positions)
        line = lying_along(_tensor(positions, x), dim, index.dim())
        return (x, dim, line.expand(shape)), {}
    if name == "slice_scatter":
        source = argument(args, kwargs, 1, "src")
        return (x, source, dim, first, first + len(positions)), {}
    if name == "select":
        return (x, dim, positions[0]), {}
    return (x, dim, first, len(positions)), {}


def as_range(positions: Positions) -> slice | None:
    """The slice that takes these positions, which is a view; None where there is none."""
    if len(positions) < 2:
        first = positions[0] if positions else 0
        return slice(first, first + len(positions))
    step = positions[1] - positions[0]
    if step < 1 or positions != tuple(range(positions[0], positions[-1] + 1, step)):
        return None
    return slice(positions[0], positions[-1] + 1, step)


def _roll_anew(
    x: torch.Tensor, args: Any, kwargs: Mapping[str, Any], now: Mapping[int, Positions]
) -> tuple[Any, ...]:
    """A cyclic shift of channels (`roll`) is still one when some have left.

    By as many positions as there are before the first channel.
    """
    shifts = shifts_of(x, args, kwargs)
    for dim, positions in now.items():
        shifts[dim] = positions.index(0) if 0 in positions else 0
    return x, list(shifts.values()), list(shifts)


def _subscript_anew(x: torch.Tensor, args: Any, now: Mapping[int, Positions]) -> tuple[Any, ...]:
    items = []
    for dim, item in items_of_index(x, args[1]):
        if dim is None or dim not in now:
            items.append(item)
        elif isinstance(item, slice):
            view = as_range(now[dim])
            items.append(_tensor(now[dim], x) if view is None else view)
        elif is_list(item):
            items.append(_tensor(now[dim], x))
        else:
            items.append(now[dim][0])
    return (x, tuple(items), *args[2:])


def _tensor(positions: Positions, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(positions, dtype=torch.int64, device=like.device)
