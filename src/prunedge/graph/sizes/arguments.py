"""The arguments of calls that name sizes, written anew with the pinned ones."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from prunedge.errors import GraphError
from prunedge.graph.sizes.kinds import (
    CONVOLUTIONS,
    DIVISIONS,
    EXPANSIONS,
    SPLITS,
    divided_dim,
    sizes_divided_into,
)
from prunedge.graph.sizes.picks import tensor_of
from prunedge.graph.sizes.pinning import CodeCall, Pinning

Arguments = tuple[Any, Any]  # those by position, and those by name


def with_constants(
    func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning
) -> Arguments:
    """The arguments of `pad`, or of a call that makes a tensor of one number, with pinned sizes."""
    name = func.__name__
    kwargs = dict(kwargs)
    first = 1 if name == "pad" or name.startswith("new_") else 0
    keyword = next((word for word in ("pad", "size") if word in kwargs), None)
    # `torch.zeros(2, 3)` and `torch.zeros((2, 3))` are the same.
    is_spread = keyword is None and isinstance(args[first], int)
    if keyword is not None:
        asked = list(kwargs[keyword])
    else:
        asked = list(args[first:] if is_spread else args[first])

    now = _pinned_constants(asked, call, pinning)
    pinning.needed |= now != asked
    if keyword is not None:
        return args, {**kwargs, keyword: now}
    rest = () if is_spread else args[first + 1 :]
    return (*args[:first], now, *rest), kwargs


def _pinned_constants(asked: list[Any], call: CodeCall, pinning: Pinning) -> list[Any]:
    """The sizes of constants that a call asks for, with the pinned ones among them."""
    now = list(asked)
    for index, (own, size) in pinning.sizes[call].items():
        # A negative pad cuts off channels, as many as it says.
        number = abs(asked[index]) if index < len(asked) else None
        if (call, index) in pinning.open and number is not None:
            pinning.asked[call, index] = number
        elif number not in (own, size):
            raise GraphError(
                f"this pruned layer made constants of the sizes {asked} where {own} was expected "
                f"at place {index}: its code took a way that it had not taken when it was pruned",
                remedy="use it at the image size and in the mode that it was pruned with",
            )
        now[index] = -size if asked[index] < 0 else size
    return now


def with_sizes(func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of a reshape or a split with the pinned sizes."""
    name = func.__name__
    x = tensor_of(args, kwargs)
    if name in DIVISIONS:
        return _divided_into(func, args, kwargs, call, pinning)
    if name in SPLITS:
        return _split_into(args, kwargs, call, pinning)
    if name == "unflatten":
        is_by_position = len(args) > 2
        dim = args[1] if is_by_position else kwargs["dim"]
        sizes = args[2] if is_by_position else kwargs["sizes"]
        now = _pinned(sizes, call, pinning, dim % x.dim())
        pinning.needed |= _differ(now, sizes)
        return (x, dim, now), {}

    sizes = _sizes_asked(args, kwargs.get("shape", kwargs.get("size")))
    now = _pinned(sizes, call, pinning)
    pinning.needed |= _differ(now, sizes)
    return (x, now), {}


def _sizes_asked(args: Any, named: Any) -> Any:
    """The sizes of `view(2, 3)`, `view((2, 3))` or `view(size=(2, 3))`."""
    if named is not None:
        return named
    return args[1] if isinstance(args[1], (tuple, list)) else args[1:]


def _split_sizes(call: CodeCall, pinning: Pinning) -> list[int]:
    """The sizes that a call splits into now."""
    pins = pinning.sizes[call]
    return [pins[index].now for index in range(len(pins))]


def _divided_into(func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of `tensor_split` or its like: where its pieces end now."""
    x = tensor_of(args, kwargs)
    now = _split_sizes(call, pinning)
    dim = divided_dim(func, x, args, kwargs)
    pinning.needed |= sizes_divided_into(x, args, kwargs, dim) != now

    bounds = list(itertools.accumulate(now[:-1]))
    if func.__name__ == "tensor_split":
        return (x, bounds, dim), {}
    return (x, bounds), {}


def _split_into(args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of a split: the sizes of its pieces now."""
    now = _split_sizes(call, pinning)
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if len(args) > 1:
        asked = args[1]
    else:
        words = ("split_size", "split_sizes", "split_size_or_sections")
        asked = next((kwargs[word] for word in words if word in kwargs), None)

    whole = sum(now)
    if isinstance(asked, int):
        own = [min(asked, whole - start) for start in range(0, whole, asked)]
        pinning.needed |= own != now
    elif isinstance(asked, (tuple, list)):
        pinning.needed |= len(asked) != len(now) or _differ(now, asked)
    return (tensor_of(args, kwargs), now, dim), {}


def with_numbers(func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of a norm or an expansion with pinned sizes, or numbers of groups."""
    name = func.__name__
    kwargs = dict(kwargs)
    if name in EXPANSIONS:
        sizes = _sizes_asked(args, kwargs.get("size"))
        now = _pinned(sizes, call, pinning)
        pinning.needed |= _differ(now, sizes)
        return (tensor_of(args, kwargs), now), {}

    position = 6 if name in CONVOLUTIONS else 1
    if name in CONVOLUTIONS:
        keyword = "groups"
    elif name == "group_norm":
        keyword = "num_groups"
    else:
        keyword = "normalized_shape"

    asked = args[position] if len(args) > position else kwargs.get(keyword, 1)
    is_sequence = isinstance(asked, (tuple, list))
    sizes = asked if is_sequence else [asked]
    now = _pinned(sizes, call, pinning)
    pinning.needed |= _differ(now, sizes)
    value = now if is_sequence else now[0]
    if len(args) > position:
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, keyword: value}


def _differ(now: list[Any], sizes: Any) -> bool:
    """Whether any of these sizes has changed.

    Those that export or torch.jit.trace leave open are taken for the same.
    """
    pairs = zip(now, sizes, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def _pinned(sizes: Any, call: CodeCall, pinning: Pinning, first: int = 0) -> list[Any]:
    """The sizes with the pinned ones among them, whose indices count from `first`."""
    now = list(sizes)
    for pinned_index, pin in pinning.sizes[call].items():
        index = pinned_index - first
        if not 0 <= index < len(now):
            continue
        size = now[index]
        if isinstance(size, torch.SymInt):
            # Sizes of channels are plain numbers to torch.export: a batch is in this one.
            now[index] = size * pin.now // pin.own
            continue
        number = int(size)
        if number == -1:
            continue

        is_open = (call, pinned_index) in pinning.open
        # Blocks may be folded into the batch, whose size is free.
        is_multiple = pin.own > 0 and number * pin.now % pin.own == 0
        if number == pin.own or not is_multiple or is_open:
            now[index] = pin.now
        else:
            now[index] = size * pin.now // pin.own
        if is_open:
            pinning.asked[call, pinned_index] = number
    return now
