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
    parts_of,
)
from prunedge.graph.sizes.picks import tensor_of
from prunedge.graph.sizes.pinning import CodeCall, Pinning

Arguments = tuple[Any, Any]  # those by place, and those by name


def with_constants(
    func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning
) -> Arguments:
    """The arguments of `pad`, or of a call that makes a tensor of one number, with pinned sizes."""
    name, kwargs = func.__name__, dict(kwargs)
    first = 1 if name == "pad" or name.startswith("new_") else 0
    keyword = next((word for word in ("pad", "size") if word in kwargs), None)
    # `torch.zeros(2, 3)` and `torch.zeros((2, 3))` are the same.
    is_spread = keyword is None and isinstance(args[first], int)
    if keyword is not None:
        asked = list(kwargs[keyword])
    else:
        asked = list(args[first:] if is_spread else args[first])

    now = list(asked)
    for place, (own, size) in pinning.sizes[call].items():
        # A negative pad cuts off channels, as many as it says.
        number = abs(asked[place]) if place < len(asked) else None
        if (call, place) in pinning.open and number is not None:
            pinning.asked[call, place] = number
        elif number not in (own, size):
            raise GraphError(
                f"this pruned layer made constants of the sizes {asked} where {own} was expected "
                f"at place {place}: its code took a way that it had not taken when it was pruned",
                remedy="use it at the image size and in the mode that it was pruned with",
            )
        now[place] = -size if asked[place] < 0 else size
    pinning.needed |= now != asked

    if keyword is not None:
        return args, {**kwargs, keyword: now}
    rest = () if is_spread else args[first + 1 :]
    return (*args[:first], now, *rest), kwargs


def with_sizes(func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of a reshape or a split with the pinned sizes."""
    name, x = func.__name__, tensor_of(args, kwargs)
    if name in DIVISIONS:
        return _divided_into(func, args, kwargs, call, pinning)
    if name in SPLITS:
        return _split_into(args, kwargs, call, pinning)
    if name == "unflatten":
        dim, sizes = (args[1], args[2]) if len(args) > 2 else (kwargs["dim"], kwargs["sizes"])
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


def _parts_now(call: CodeCall, pinning: Pinning) -> list[int]:
    pins = pinning.sizes[call]
    return [pins[place].now for place in range(len(pins))]


def _divided_into(func: Any, args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of `tensor_split` or its like: where its parts end now."""
    x, now = tensor_of(args, kwargs), _parts_now(call, pinning)
    dim = divided_dim(func, x, args, kwargs)
    pinning.needed |= parts_of(x, args, kwargs, dim) != now
    bounds = list(itertools.accumulate(now[:-1]))
    return (x, bounds, dim) if func.__name__ == "tensor_split" else (x, bounds), {}


def _split_into(args: Any, kwargs: Any, call: CodeCall, pinning: Pinning) -> Arguments:
    """The arguments of a split: the sizes of its parts now."""
    now = _parts_now(call, pinning)
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
    name, kwargs = func.__name__, dict(kwargs)
    if name in EXPANSIONS:
        sizes = _sizes_asked(args, kwargs.get("size"))
        now = _pinned(sizes, call, pinning)
        pinning.needed |= _differ(now, sizes)
        return (tensor_of(args, kwargs), now), {}

    if name in CONVOLUTIONS:
        place, word = 6, "groups"
    elif name == "group_norm":
        place, word = 1, "num_groups"
    else:
        place, word = 1, "normalized_shape"
    asked = args[place] if len(args) > place else kwargs.get(word, 1)
    is_several = isinstance(asked, (tuple, list))
    sizes = asked if is_several else [asked]
    now = _pinned(sizes, call, pinning)
    pinning.needed |= _differ(now, sizes)
    value = now if is_several else now[0]
    if len(args) > place:
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, word: value}


def _differ(now: list[Any], sizes: Any) -> bool:
    """Whether any of these sizes is another one.

    Those that export or torch.jit.trace leave open are taken for the same.
    """
    pairs = zip(now, sizes, strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def _pinned(sizes: Any, call: CodeCall, pinning: Pinning, first: int = 0) -> list[Any]:
    """The sizes with the pinned ones among them, whose places count from `first`."""
    now = list(sizes)
    for place, pin in pinning.sizes[call].items():
        if not 0 <= place - first < len(now):
            continue
        size = now[place - first]
        if isinstance(size, torch.SymInt):
            # Sizes of channels are plain numbers to torch.export: a batch is in this one.
            now[place - first] = size * pin.now // pin.own
            continue
        number = int(size)
        if number == -1:
            continue
        is_open = (call, place) in pinning.open
        # Blocks may be folded into the batch, whose size is free.
        is_multiple = pin.own > 0 and number * pin.now % pin.own == 0
        if number == pin.own or not is_multiple or is_open:
            now[place - first] = pin.now
        else:
            now[place - first] = size * pin.now // pin.own
        if is_open:
            pinning.asked[call, place] = number
    return now
