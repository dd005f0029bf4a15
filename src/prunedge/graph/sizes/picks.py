"""Calls that pick positions of a tensor by numbers.

Slices, `narrow`, `index_select`, `gather`, lists, and writes into such places.

A number in the code (`y[:, :4]`) goes on meaning what it says when channels have left: other
channels, then. What such a call picked is read off its arguments here, as positions along a
dimension, and its arguments are written anew for other positions.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

_SUBSCRIPTS = {"__getitem__", "__setitem__"}
_RANGES = {"narrow", "narrow_copy"}
_LISTS = {
    "index_select",
    "index_add",
    "index_add_",
    "index_copy",
    "index_copy_",
    "index_fill",
    "index_fill_",
}
NAMES = _SUBSCRIPTS | _RANGES | _LISTS | {"select", "roll", "gather", "slice_scatter"}

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
        # Numbers that are read here are no part of what the network computes.
        with _disable_current_modes():
            return _picked(func.__name__, args, kwargs)
    except (KeyError, TypeError):
        return []


def _picked(name: str, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    x = tensor_of(args, kwargs)
    if not isinstance(x, torch.Tensor):
        return []
    if name in _SUBSCRIPTS:
        return _subscripted(x, args[1])
    if name == "roll":
        return _rolled(x, args, kwargs)
    dim = (
        _optional(args, kwargs, 2, "dim", 0)
        if name == "slice_scatter"
        else _argument(args, kwargs, 1, "dim")
    )
    if not isinstance(dim, int) or not x.dim():
        return []
    dim %= x.dim()
    size = x.shape[dim]
    if name in _LISTS:
        return [_listed(dim, _argument(args, kwargs, 2, "index"), size)]
    if name == "gather":
        index = _argument(args, kwargs, 2, "index")
        line = line_along(index, dim)
        return [
            Picked(dim, "list", None, numbers=index)
            if line is None
            else _listed(dim, line, size)._replace(numbers=index)
        ]
    if name == "slice_scatter":
        start, end, step = (
            _optional(args, kwargs, *where) for where in ((3, "start"), (4, "end"), (5, "step"))
        )
        found = _sliced(dim, slice(start, end, step), size)
        # Every n-th may have to become a list, which is no slice.
        return [found if step in (None, 1) else found._replace(positions=None)]
    if name == "select":
        number = operator.index(_argument(args, kwargs, 2, "index"))
        return [Picked(dim, "number", (number % size,), (number,))]
    start = operator.index(_argument(args, kwargs, 2, "start"))
    length = operator.index(_argument(args, kwargs, 3, "length"))
    first = start + size if start < 0 else start
    return [Picked(dim, "range", tuple(range(first, first + length)), (start, length))]


def repicked(
    func: Any, args: Any, kwargs: Mapping[str, Any], now: Mapping[int, Positions]
) -> tuple[Any, Any]:
    """The arguments of the same call with these positions in place of those that it names.

    Dim -> positions.
    """
    name = func.__name__
    x = tensor_of(args, kwargs)
    if name in _SUBSCRIPTS:
        return _subscript_anew(x, args, now), {}
    if name == "roll":
        shifts = _shifts(x, args, kwargs)
        # Channels that are turned round are so still when some have left: by as many as there are
        # before the first.
        shifts.update(
            {dim: positions.index(0) if 0 in positions else 0 for dim, positions in now.items()}
        )
        return (x, list(shifts.values()), list(shifts)), {}
    ((dim, positions),) = now.items()
    if name in _LISTS:
        rest = args[3:]
        own = {key: value for key, value in kwargs.items() if key not in ("input", "dim", "index")}
        return (x, dim, _tensor(positions, x), *rest), own
    if name == "gather":
        index = _argument(args, kwargs, 2, "index")
        shape = [len(positions) if d == dim else size for d, size in enumerate(index.shape)]
        line = _tensor(positions, x).reshape([-1 if d == dim else 1 for d in range(index.dim())])
        return (x, dim, line.expand(shape)), {}
    if name == "slice_scatter":
        start = positions[0] if positions else 0
        return (x, _argument(args, kwargs, 1, "src"), dim, start, start + len(positions)), {}
    if name == "select":
        return (x, dim, positions[0]), {}
    return (x, dim, positions[0] if positions else 0, len(positions)), {}


def _rolled(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> list[Picked]:
    found = []
    for dim, shift in _shifts(x, args, kwargs).items():
        size = x.shape[dim]
        found.append(
            Picked(dim, "list", tuple((place - shift) % size for place in range(size)), (shift,))
        )
    return found


def _shifts(x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> dict[int, int]:
    """By how much `roll` turns each dimension; nothing where it turns the flattened tensor."""
    shifts, dims = (
        _argument(args, kwargs, 1, "shifts"),
        args[2] if len(args) > 2 else kwargs.get("dims", ()),
    )
    several = (dims,) if isinstance(dims, int) else tuple(dims or ())
    amounts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    found: dict[int, int] = {}
    for dim, shift in zip(several, amounts, strict=bool(several)):
        found[dim % x.dim()] = found.get(dim % x.dim(), 0) + operator.index(shift)
    return found


def as_range(positions: Positions) -> slice | None:
    """The slice that takes these positions, which is a view; None where there is none."""
    if len(positions) < 2:
        first = positions[0] if positions else 0
        return slice(first, first + len(positions))
    step = positions[1] - positions[0]
    if step < 1 or positions != tuple(range(positions[0], positions[-1] + 1, step)):
        return None
    return slice(positions[0], positions[-1] + 1, step)


def _argument(args: Any, kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs[name]


def _optional(
    args: Any, kwargs: Mapping[str, Any], place: int, name: str, default: Any = None
) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def line_along(index: torch.Tensor, dim: int) -> torch.Tensor | None:
    """The numbers of a table along one of its dimensions, (size,) int64.

    None where they differ along another.
    """
    if not index.numel():
        return None
    line = index[tuple(slice(None) if d == dim else slice(0, 1) for d in range(index.dim()))]
    return line.reshape(-1) if bool((line == index).all()) else None


def _subscripted(x: torch.Tensor, index: Any) -> list[Picked]:
    entries = _entries(x, index)
    lists = sum(_is_list(one) for _, one in entries)
    found = []
    for dim, one in entries:
        if dim is None or dim >= x.dim():
            continue
        size = x.shape[dim]
        if isinstance(one, slice):
            if one != slice(None):
                sliced = _sliced(dim, one, size)
                # Every n-th may have to become a list, and several lists meet each other.
                found.append(
                    sliced
                    if not lists or one.step in (None, 1)
                    else sliced._replace(positions=None)
                )
        elif not _is_list(one):
            number = operator.index(one)
            found.append(Picked(dim, "number", (number % max(1, size),), (number,)))
        elif lists > 1 or (isinstance(one, torch.Tensor) and one.dim() > 1):
            # Several lists meet each other, and tables of numbers make dimensions.
            taken = (
                one.dim()
                if isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8)
                else 1
            )
            found += [Picked(dim + more, "list", None) for more in range(taken)]
        else:
            found.append(_listed(dim, one, size))
    return found


def _entries(x: torch.Tensor, index: Any) -> list[tuple[int | None, Any]]:
    """The parts of an index, each with the dimension that it is about.

    None for those that are about none.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    consumed = [_consumes(one) for one in parts]
    found: list[tuple[int | None, Any]] = []
    dim = 0
    for part, takes in zip(parts, consumed, strict=True):
        if part is Ellipsis:
            dim = x.dim() - sum(consumed[len(found) + 1 :])
            found.append((None, part))
        else:
            found.append((dim if takes else None, part))
            dim += takes
    return found


def _consumes(part: Any) -> int:
    """How many dimensions a part of an index is about."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    if isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8):
        return part.dim()
    return 1


def _is_list(part: Any) -> bool:
    """Whether a part of an index names several positions one by one, or may."""
    if part is None or part is Ellipsis or isinstance(part, slice):
        return False
    if isinstance(part, (torch.Tensor, np.ndarray)):
        return part.ndim > 0
    return not hasattr(part, "__index__")


def _sliced(dim: int, one: slice, size: int) -> Picked:
    bounds = tuple(
        None if bound is None else operator.index(bound)
        for bound in (one.start, one.stop, one.step)
    )
    return Picked(dim, "range", tuple(range(*slice(*bounds).indices(size))), bounds)


def _listed(dim: int, numbers: Any, size: int) -> Picked:
    if isinstance(numbers, torch.Tensor):
        is_mask = numbers.dtype in (torch.bool, torch.uint8)
        found = numbers.nonzero() if is_mask else numbers
        return Picked(dim, "list", _from_zero(found.reshape(-1).tolist(), size), numbers=numbers)
    try:
        said = tuple(operator.index(one) for one in numbers)
    except TypeError:  # lists of lists, and what else torch may take
        return Picked(dim, "list", None)
    if said and all(isinstance(one, (bool, np.bool_)) for one in numbers):
        return Picked(dim, "list", tuple(place for place, one in enumerate(said) if one), said)
    return Picked(dim, "list", _from_zero(said, size), said)


def _from_zero(numbers: Sequence[int], size: int) -> Positions:
    return tuple(number + size if number < 0 else number for number in numbers)


def _tensor(positions: Positions, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(positions, dtype=torch.int64, device=like.device)


def _subscript_anew(x: torch.Tensor, args: Any, now: Mapping[int, Positions]) -> tuple[Any, ...]:
    parts = []
    for dim, part in _entries(x, args[1]):
        if dim is None or dim not in now:
            parts.append(part)
        elif isinstance(part, slice):
            view = as_range(now[dim])
            parts.append(_tensor(now[dim], x) if view is None else view)
        elif _is_list(part):
            parts.append(_tensor(now[dim], x))
        else:
            parts.append(now[dim][0])
    return (x, tuple(parts), *args[2:])
