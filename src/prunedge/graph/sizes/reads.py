"""Code that reads how wide a tensor is: `x.shape`, `x.size(1)`, `len(weight)`.

Where code goes by such a number (a loop over `range(0, c, 4)`, an assertion, a table by width), it
takes another way once channels have left. A pinned module can be told the width from before
instead: then its code does what it did, call by call, and each call that names sizes or positions
gets those of today.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch

from prunedge.graph.sizes.sites import is_torchs

Widths = Mapping[tuple[int, int], int]  # (dimension, what it is now) -> what the code is told


def is_read(func: Any) -> bool:
    """Whether this function tells sizes of a tensor."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return func.__self__ is torch.Tensor.shape
    return name in ("size", "__len__")


def is_own_read(func: Any, frame: FrameType) -> bool:
    """Whether it is not torch's own code that reads the size; `len` always comes by way of it."""
    return not is_torchs(frame) or func.__name__ == "__len__"


def dims_read(func: Any, x: torch.Tensor, args: Any, kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """The dimensions whose sizes a call tells, counted from 0."""
    dim = _dim(func, args, kwargs)
    return tuple(range(x.dim())) if dim is None else (dim % max(1, x.dim()),)


def widths_for_code(
    func: Any, out: Any, x: torch.Tensor, args: Any, kwargs: Mapping[str, Any], widths: Widths
) -> Any:
    """What the code is told in place of what the call gave."""
    dim = _dim(func, args, kwargs)
    if dim is not None:
        return _width(dim % max(1, x.dim()), out, widths)
    return torch.Size([_width(dim, size, widths) for dim, size in enumerate(out)])


def _dim(func: Any, args: Any, kwargs: Mapping[str, Any]) -> int | None:
    """The dimension that a call names; None where it reads all sizes."""
    if func.__name__ == "__len__":
        return 0
    if func.__name__ == "__get__":
        return None
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return dim if isinstance(dim, int) else None


def _width(dim: int, size: Any, widths: Widths) -> Any:
    if torch.jit.is_tracing():
        # Sizes are recorded as tensors then: comparing them would be recorded, too.
        candidates = {own for (along, _), own in widths.items() if along == dim}
        return candidates.pop() if len(candidates) == 1 else size
    return widths.get((dim, size), size) if isinstance(size, int) else size
