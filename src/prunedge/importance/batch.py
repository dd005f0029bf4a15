"""A batch in any form: how many examples it holds, and some of them alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from prunedge.errors import PrunedgeError

_REMEDY = (
    "let every tensor hold the examples along its first dimension, or give batches of one example"
)


def count(batch: Any) -> int:
    """How many examples a batch holds: the first dimension of the first tensor in it, or the length
    of a list in it.

    A batch is a tensor, or a tuple, list, dict or dataclass of them, as deep as you like. Within a
    batch a list that comes before any tensor is a list of examples (images of several sizes).
    PrunedgeError when there is no tensor.
    """
    found = _count(batch, is_outermost=True)
    if not found:
        what = f"the examples of a batch of type {type(batch).__name__} can't be counted"
        raise PrunedgeError(
            what, remedy="let batches be a tensor, or a tuple, list, dict or dataclass of tensors"
        )
    return found


def _count(value: Any, is_outermost: bool = False) -> int:
    if isinstance(value, torch.Tensor):
        return value.shape[0] if value.dim() else 0
    if isinstance(value, list) and not is_outermost:
        return len(value)
    return next(filter(None, map(_count, _parts(value))), 0)


def picked(batch: Any, rows: Sequence[int], examples: int) -> Any:
    """These examples of a batch of that many, in the batch's own form.

    Tensors whose first dimension is the number of examples are cut, and lists within the batch of
    that length; all else stays whole. PrunedgeError where a list may be either the examples or what
    all of them have.
    """
    return _picked(batch, list(rows), examples, is_outermost=True)


def _picked(value: Any, rows: list[int], examples: int, is_outermost: bool = False) -> Any:
    if isinstance(value, torch.Tensor):
        if not value.dim() or value.shape[0] != examples:
            return value
        return value[torch.tensor(rows, device=value.device)]
    if isinstance(value, list) and not is_outermost and len(value) == examples:
        if all(
            isinstance(one, torch.Tensor) and one.dim() and one.shape[0] == examples
            for one in value
        ):
            what = (
                f"a list of {examples} tensors whose first dimension is {examples}, too, may "
                "be the examples or their parts"
            )
            raise PrunedgeError(what, remedy=_REMEDY)
        return [value[row] for row in rows]
    return _rebuilt(value, lambda part: _picked(part, rows, examples))


def moved(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The batch with each of its tensors handed through the function."""
    return (
        function(batch)
        if isinstance(batch, torch.Tensor)
        else _rebuilt(batch, lambda part: moved(part, function))
    )


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a batch, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for part in _parts(value) for tensor in tensors(part)]


def described(value: Any) -> tuple[Any, ...]:
    """What of a call's arguments may decide which way a model takes: words, whole numbers, and
    which arguments there are.
    """
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.dim())
    if isinstance(value, Mapping):
        return tuple((key, described(part)) for key, part in value.items())
    if value is None or isinstance(value, (bool, int, str)):
        return (value,)
    return (type(value).__name__, *map(described, _parts(value)))


def as_pair(batch: Any) -> tuple[Any, Any]:
    """The model's inputs and the labels of a batch; None for labels where there are none.

    Two things in a tuple or list are (inputs, labels), one is (inputs,); a tensor or a dict alone
    is inputs. Inputs are a tensor, or a tuple or dict of the model's arguments. PrunedgeError for
    more than two.
    """
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) > 2 or not batch:
        what = f"a batch of {len(batch)} things is not (inputs, labels)"
        raise PrunedgeError(
            what, remedy="give loss=fn with fn(model, batch), or yield ((inputs, ...), labels)"
        )
    return batch[0], batch[1] if len(batch) == 2 else None


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (tuple, list)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


def _rebuilt(value: Any, function: Callable[[Any], Any]) -> Any:
    """A container of the same kind with what the function makes of its parts; anything else as it
    is.
    """
    if isinstance(value, tuple):
        parts = [function(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [function(part) for part in value]
    if isinstance(value, Mapping):
        made: Any = copy.copy(value) if hasattr(value, "__setitem__") else dict(value)
        for key, part in value.items():
            made[key] = function(part)
        return made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(made, field.name, function(getattr(value, field.name)))
        return made
    return value
