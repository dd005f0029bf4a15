"""Which of torch's functions name sizes, constants, numbers of channels, or factors."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from prunedge.graph.sizes.picks import is_pick, tensor_of

DIVISIONS = {"tensor_split": None, "vsplit": 0, "hsplit": 1, "dsplit": 2}  # what they divide
SPLITS = {"split", "split_with_sizes", *DIVISIONS}
SHAPES = {"reshape", "view", "unflatten"}
# Calls that make constants beside channels. Code often pads where an image's size asks for it, and
# whether such a call is the one that is meant, its own sizes say.
CONSTANTS = {
    "pad",
    "zeros",
    "ones",
    "full",
    "empty",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
}
# Calls that name channels, or blocks of them, among other numbers. Where torch's own layers make
# them, their attributes are mended.
CONVOLUTIONS = {f"conv{turned}{rank}d" for turned in ("", "_transpose") for rank in (1, 2, 3)}
EXPANSIONS = {"expand", "broadcast_to"}
NUMBERS = CONVOLUTIONS | EXPANSIONS | {"layer_norm", "rms_norm", "group_norm"}
FACTORS = {
    "mul",
    "mul_",
    "multiply",
    "div",
    "div_",
    "divide",
    "true_divide",
    "__mul__",
    "__rmul__",
    "__imul__",
    "__truediv__",
    "__itruediv__",
}


def name_of(func: Any) -> str:
    """The name of one of torch's functions."""
    return getattr(func, "__name__", "")


def names_sizes(func: Any) -> bool:
    """Whether it is a reshape or a split."""
    name = name_of(func)
    return name in SHAPES or name in SPLITS


def names_numbers(func: Any) -> bool:
    """Whether it names channels among other numbers."""
    return name_of(func) in NUMBERS


def makes_constants(func: Any) -> bool:
    """Whether it makes a tensor of one number, or pads with one."""
    return name_of(func) in CONSTANTS


def is_noted(func: Any) -> bool:
    """Whether it names sizes, positions, numbers of channels, or makes constants."""
    if is_pick(func) or names_numbers(func):
        return True
    return names_sizes(func) or makes_constants(func)


def factor_of(func: Any, args: Any) -> float | None:
    """The number by which it multiplies or divides; None where it does not."""
    if len(args) > 1 and type(args[1]) is float and name_of(func) in FACTORS:
        return args[1]
    return None


def is_by_whole_number(func: Any, args: Any) -> bool:
    """Whether it multiplies or divides by a whole number."""
    return len(args) > 1 and type(args[1]) is int and name_of(func) in FACTORS


def is_recorded_factor(func: Any, args: Any) -> bool:
    """Whether this is a factor that torch.jit.trace records: a tensor then, since sizes are."""
    if name_of(func) not in FACTORS or not torch.jit.is_tracing():
        return False
    return len(args) > 1 and isinstance(args[1], torch.Tensor) and args[1].dim() == 0


def run_in_sizes(func: Any, args: Any, kwargs: Any) -> Any:
    """The call itself; a `tensor_split` as a `split`, whose sizes a dispatch mode gets to see."""
    if func.__name__ not in DIVISIONS:
        return func(*args, **kwargs)
    x = tensor_of(args, kwargs)
    dim = divided_dim(func, x, args, kwargs)
    sizes = sizes_divided_into(x, args, kwargs, dim)
    return func(*args, **kwargs) if sizes is None else x.split(sizes, dim)


def divided_dim(func: Any, x: torch.Tensor, args: Any, kwargs: Any) -> int:
    """The dimension that `tensor_split` or its like divides."""
    dim = DIVISIONS[func.__name__]
    if dim is None:
        return int(args[2] if len(args) > 2 else kwargs.get("dim", 0))
    return min(dim, x.dim() - 1)


def sizes_divided_into(x: torch.Tensor, args: Any, kwargs: Any, dim: int) -> list[int] | None:
    """The sizes that `tensor_split` makes.

    None where they are no plain slices one after the other.
    """
    words = ("indices_or_sections", "sections", "indices", "tensor_indices_or_sections")
    asked = args[1] if len(args) > 1 else next(kwargs[word] for word in words if word in kwargs)
    if isinstance(asked, torch.Tensor):
        asked = asked.tolist()

    size = x.shape[dim]
    if isinstance(asked, int):
        return [size // asked + (number < size % asked) for number in range(asked)]
    bounds = [0, *(min(bound, size) for bound in asked), size]
    sizes = [end - start for start, end in itertools.pairwise(bounds)]
    return None if min(bounds) < 0 or min(sizes) < 0 else sizes
