"""Calls that pick positions of a tensor by numbers, and which positions.

Slices, `narrow`, `index_select`, `gather`, lists, and in-place writes to these. A number in the
code (`y[:, :4]`) goes on meaning what it says when channels have left: other channels, then. What
such a call picked is read off its arguments here, as positions along a dimension; `repicks` writes
them anew for other positions.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from prunedge.graph.sizes.sites import uncounted

SUBSCRIPTS = {"__getitem__", "__setitem__"}
_RANGES = {"narrow", "narrow_copy"}
LISTS = {
    "index_select",
    "index_add",
    "index_add_",
    "index_copy",
    "index_copy_",
    "index_fill",
    "index_fill_",
}
NAMES = SUBSCRIPTS | _RANGES | LISTS | {"select", "roll", "gather", "slice_scatter"}

Positions = tuple[int, ...]


class Picked(NamedTuple):
    """What a call picks along one dimension of its first tensor.

    `how` is "range" (a slice, which is a view), "number" (the dimension goes) or "list" (a copy).
    `positions` count from 0; None where they can't be told. `literal` holds the numbers that the
    code names, which are the same each time; None where it gives a tensor of numbers, which is
    `numbers` then.
    """

    dim: int
    how: str
    positions: Positions | None
    literal: tuple[int | None, ...] | None = None
    numbers: torch.Tensor | None = None


def is_pick(func: Any) -> bool:
    """Whether this function picks positions by numbers."""
    return getattr(func, "__name__", "") in NAMES


def tensor_of(args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The tensor that is picked from."""
    return args[0] if args else kwargs.get("input")


def picked(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    """What a call picks, dimension by dimension; those that it takes whole are left out.

    Nothing where the arguments are none that torch takes: it is about to say so.
    """
    try:
        # Numbers that are read here are no part of what the model computes, nor of its code.
        with uncounted(), _disable_current_modes():
            return _picked(func.__name__, args, kwargs)
    except (KeyError, TypeError):
        return []


def _picked(name: str, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    x = tensor_of(args, kwargs)
    if not isinstance(x, torch.Tensor):
        return []
    if name in SUBSCRIPTS:
        return _subscripted(x, args[1])
    if name == "roll":
        return _rolled(x, args, kwargs)

    if name == "slice_scatter":
        dim = optional_argument(args, kwargs, 2, "dim", 0)
    else:
        dim = argument(args, kwargs, 1, "dim")
    if not isinstance(dim, int) or not x.dim():
        return []
    dim %= x.dim()
    size = x.shape[dim]
    if name in LISTS:
        return [_listed(dim, argument(args, kwargs, 2, "index"), size)]
    if name == "gather":
        return [_gathered(dim, argument(args, kwargs, 2, "index"), size)]
    if name == "slice_scatter":
        return [_scattered(dim, args, kwargs, size)]
    if name == "select":
        number = operator.index(argument(args, kwargs, 2, "index"))
        return [Picked(dim, "number", (number % size,), (number,))]
    return [_narrowed(dim, args, kwargs, size)]


def argument(args: Any, kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    """An argument of a call by its position or its name; KeyError where it is missing."""
    return args[position] if len(args) > position else kwargs[name]


def optional_argument(
    args: Any, kwargs: Mapping[str, Any], position: int, name: str, default: Any = None
) -> Any:
    """The same, or the default where it is missing."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def _scattered(dim: int, args: Any, kwargs: Mapping[str, Any], size: int) -> Picked:
    start = optional_argument(args, kwargs, 3, "start")
    end = optional_argument(args, kwargs, 4, "end")
    step = optional_argument(args, kwargs, 5, "step")
    pick = _sliced(dim, slice(start, end, step), size)
    if step in (None, 1):
        return pick
    # Every n-th may have to become a list, which is no slice.
    return pick._replace(positions=None)


def _narrowed(dim: int, args: Any, kwargs: Mapping[str, Any], size: int) -> Picked:
    start = operator.index(argument(args, kwargs, 2, "start"))
    length = operator.index(argument(args, kwargs, 3, "length"))
    first = start + size if start < 0 else start
    return Picked(dim, "range", tuple(range(first, first + length)), (start, length))


def _rolled(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    picks = []
    for dim, shift in shifts_of(x, args, kwargs).items():
        size = x.shape[dim]
        positions = tuple((position - shift) % size for position in range(size))
        picks.append(Picked(dim, "list", positions, (shift,)))
    return picks


def shifts_of(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> dict[int, int]:
    """By how much `roll` shifts each dimension; nothing where it shifts the flattened tensor."""
    shifts = argument(args, kwargs, 1, "shifts")
    amounts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = optional_argument(args, kwargs, 2, "dims", ())
    dims = (dims,) if isinstance(dims, int) else tuple(dims or ())

    by_dim: dict[int, int] = {}
    for dim, shift in zip(dims, amounts, strict=bool(dims)):
        dim %= x.dim()
        by_dim[dim] = by_dim.get(dim, 0) + operator.index(shift)
    return by_dim


def _gathered(dim: int, index: torch.Tensor, size: int) -> Picked:
    line = line_along(index, dim)
    if line is None:
        return Picked(dim, "list", None, numbers=index)
    return _listed(dim, line, size)._replace(numbers=index)


def line_along(index: torch.Tensor, dim: int) -> torch.Tensor | None:
    """The numbers of a table along one of its dimensions, (size,) int64.

    None where they differ along another.
    """
    if not index.numel():
        return None
    first_line = [slice(0, 1)] * index.dim()
    first_line[dim] = slice(None)
    line = index[tuple(first_line)]
    return line.reshape(-1) if bool((line == index).all()) else None


def _subscripted(x: torch.Tensor, index: Any) -> list[Picked]:
    items = items_of_index(x, index)
    lists = sum(is_list(item) for _, item in items)
    picks: list[Picked] = []
    for dim, item in items:
        if dim is None or dim >= x.dim():
            continue
        size = x.shape[dim]
        if isinstance(item, slice):
            if item == slice(None):
                continue
            pick = _sliced(dim, item, size)
            # Every n-th may have to become a list, and two lists or more are indexed together.
            is_known = not lists or item.step in (None, 1)
            picks.append(pick if is_known else pick._replace(positions=None))
        elif not is_list(item):
            number = operator.index(item)
            picks.append(Picked(dim, "number", (number % max(1, size),), (number,)))
        elif lists > 1 or (isinstance(item, torch.Tensor) and item.dim() > 1):
            # Two lists or more are indexed together, and tables of numbers make dimensions.
            taken = item.dim() if _is_mask(item) else 1
            picks += [Picked(dim + more, "list", None) for more in range(taken)]
        else:
            picks.append(_listed(dim, item, size))
    return picks


def items_of_index(x: torch.Tensor, index: Any) -> list[tuple[int | None, Any]]:
    """The items of a subscript (`y[:, 1:3, None]` has three), each with the dimension it indexes.

    None for those that index no dimension.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    consumed = [_consumes(item) for item in items]
    placed: list[tuple[int | None, Any]] = []
    dim = 0
    for item, count in zip(items, consumed, strict=True):
        if item is Ellipsis:
            dim = x.dim() - sum(consumed[len(placed) + 1 :])
            placed.append((None, item))
        else:
            placed.append((dim if count else None, item))
            dim += count
    return placed


def _consumes(item: Any) -> int:
    """How many dimensions an item of a subscript indexes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.dim() if _is_mask(item) else 1


def _is_mask(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8)


def is_list(item: Any) -> bool:
    """Whether an item of a subscript lists positions, or may."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return False
    if isinstance(item, (torch.Tensor, np.ndarray)):
        return item.ndim > 0
    return not hasattr(item, "__index__")


def _sliced(dim: int, item: slice, size: int) -> Picked:
    ends = (item.start, item.stop, item.step)
    bounds = tuple(None if bound is None else operator.index(bound) for bound in ends)
    positions = tuple(range(*slice(*bounds).indices(size)))
    return Picked(dim, "range", positions, bounds)


def _listed(dim: int, numbers: Any, size: int) -> Picked:
    if isinstance(numbers, torch.Tensor):
        indices = numbers.nonzero() if _is_mask(numbers) else numbers
        positions = _from_zero(indices.reshape(-1).tolist(), size)
        return Picked(dim, "list", positions, numbers=numbers)
    try:
        literal = tuple(operator.index(number) for number in numbers)
    except TypeError:  # lists of lists, and what else torch may take
        return Picked(dim, "list", None)
    if literal and all(isinstance(number, (bool, np.bool_)) for number in numbers):
        positions = tuple(position for position, is_picked in enumerate(literal) if is_picked)
        return Picked(dim, "list", positions, literal)
    return Picked(dim, "list", _from_zero(literal, size), literal)


def _from_zero(numbers: Sequence[int], size: int) -> Positions:
    return tuple(number + size if number < 0 else number for number in numbers)
