"""Calls that pick positions of a tensor by numbers, and which positions.

Slices, `narrow`, `index_select`, `gather`, lists, and writes into such places. A number in the code
(`y[:, :4]`) goes on meaning what it says when channels have left: other channels, then. What such a
call picked is read off its arguments here, as positions along a dimension; `repicks` writes them
anew for other positions.
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
    `positions` count from 0; None where they can't be told. `said` is what the code says, as
    numbers that are the same each time; None where it says a tensor. `numbers` is the tensor of
    numbers that it says, if it does.
    """

    dim: int
    how: str
    positions: Positions | None
    said: tuple[int | None, ...] | None = None
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
        start = optional_argument(args, kwargs, 3, "start")
        end = optional_argument(args, kwargs, 4, "end")
        step = optional_argument(args, kwargs, 5, "step")
        pick = _sliced(dim, slice(start, end, step), size)
        # Every n-th may have to become a list, which is no slice.
        return [pick if step in (None, 1) else pick._replace(positions=None)]
    if name == "select":
        number = operator.index(argument(args, kwargs, 2, "index"))
        return [Picked(dim, "number", (number % size,), (number,))]

    start = operator.index(argument(args, kwargs, 2, "start"))
    length = operator.index(argument(args, kwargs, 3, "length"))
    first = start + size if start < 0 else start
    return [Picked(dim, "range", tuple(range(first, first + length)), (start, length))]


def argument(args: Any, kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """An argument of a call by its place or its name; KeyError where it is missing."""
    return args[place] if len(args) > place else kwargs[name]


def optional_argument(
    args: Any, kwargs: Mapping[str, Any], place: int, name: str, default: Any = None
) -> Any:
    """The same, or the default where it is missing."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def _rolled(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    picks = []
    for dim, shift in shifts_of(x, args, kwargs).items():
        size = x.shape[dim]
        positions = tuple((place - shift) % size for place in range(size))
        picks.append(Picked(dim, "list", positions, (shift,)))
    return picks


def shifts_of(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> dict[int, int]:
    """By how much `roll` turns each dimension; nothing where it turns the flattened tensor."""
    shifts = argument(args, kwargs, 1, "shifts")
    dims = optional_argument(args, kwargs, 2, "dims", ())
    several = (dims,) if isinstance(dims, int) else tuple(dims or ())
    amounts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    by_dim: dict[int, int] = {}
    for dim, shift in zip(several, amounts, strict=bool(several)):
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
    line = index[tuple(slice(None) if d == dim else slice(0, 1) for d in range(index.dim()))]
    return line.reshape(-1) if bool((line == index).all()) else None


def _subscripted(x: torch.Tensor, index: Any) -> list[Picked]:
    parts = parts_of_index(x, index)
    lists = sum(is_list(part) for _, part in parts)
    picks: list[Picked] = []
    for dim, part in parts:
        if dim is None or dim >= x.dim():
            continue
        size = x.shape[dim]
        if isinstance(part, slice):
            if part == slice(None):
                continue
            pick = _sliced(dim, part, size)
            # Every n-th may have to become a list, and several lists meet each other.
            is_known = not lists or part.step in (None, 1)
            picks.append(pick if is_known else pick._replace(positions=None))
        elif not is_list(part):
            number = operator.index(part)
            picks.append(Picked(dim, "number", (number % max(1, size),), (number,)))
        elif lists > 1 or (isinstance(part, torch.Tensor) and part.dim() > 1):
            # Several lists meet each other, and tables of numbers make dimensions.
            taken = part.dim() if _is_mask(part) else 1
            picks += [Picked(dim + more, "list", None) for more in range(taken)]
        else:
            picks.append(_listed(dim, part, size))
    return picks


def parts_of_index(x: torch.Tensor, index: Any) -> list[tuple[int | None, Any]]:
    """The parts of a subscript, each with the dimension that it is about.

    None for those that are about none.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    consumed = [_consumes(part) for part in parts]
    placed: list[tuple[int | None, Any]] = []
    dim = 0
    for part, takes in zip(parts, consumed, strict=True):
        if part is Ellipsis:
            dim = x.dim() - sum(consumed[len(placed) + 1 :])
            placed.append((None, part))
        else:
            placed.append((dim if takes else None, part))
            dim += takes
    return placed


def _consumes(part: Any) -> int:
    """How many dimensions a part of a subscript is about."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.dim() if _is_mask(part) else 1


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8)


def is_list(part: Any) -> bool:
    """Whether a part of a subscript names several positions one by one, or may."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return False
    if isinstance(part, (torch.Tensor, np.ndarray)):
        return part.ndim > 0
    return not hasattr(part, "__index__")


def _sliced(dim: int, part: slice, size: int) -> Picked:
    ends = (part.start, part.stop, part.step)
    bounds = tuple(None if bound is None else operator.index(bound) for bound in ends)
    positions = tuple(range(*slice(*bounds).indices(size)))
    return Picked(dim, "range", positions, bounds)


def _listed(dim: int, numbers: Any, size: int) -> Picked:
    if isinstance(numbers, torch.Tensor):
        places = numbers.nonzero() if _is_mask(numbers) else numbers
        positions = _from_zero(places.reshape(-1).tolist(), size)
        return Picked(dim, "list", positions, numbers=numbers)
    try:
        said = tuple(operator.index(number) for number in numbers)
    except TypeError:  # lists of lists, and what else torch may take
        return Picked(dim, "list", None)
    if said and all(isinstance(number, (bool, np.bool_)) for number in numbers):
        positions = tuple(place for place, is_picked in enumerate(said) if is_picked)
        return Picked(dim, "list", positions, said)
    return Picked(dim, "list", _from_zero(said, size), said)


def _from_zero(numbers: Sequence[int], size: int) -> Positions:
    return tuple(number + size if number < 0 else number for number in numbers)
