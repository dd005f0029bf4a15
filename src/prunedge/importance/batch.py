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
    """How many examples a batch holds.

    The first dimension of the first tensor in it, or the length of a list in it.

    A batch is a tensor, or a tuple, list, dict or dataclass of them, as deep as you like. Within a
    batch a list that comes before any tensor is a list of examples (images of several sizes).
    PrunedgeError when there is no tensor.
    """
    examples = _count(batch, is_outermost=True)
    if not examples:
        raise PrunedgeError(
            f"the examples of a batch of type {type(batch).__name__} can't be counted",
            remedy="let batches be a tensor, or a tuple, list, dict or dataclass of tensors",
        )
    return examples


def _count(value: Any, is_outermost: bool = False) -> int:
    if isinstance(value, torch.Tensor):
        return value.shape[0] if value.dim() else 0
    if isinstance(value, list) and not is_outermost:
        return len(value)
    for element in _elements(value):
        examples = _count(element)
        if examples:
            return examples
    return 0


def picked(batch: Any, indices: Sequence[int], examples: int) -> Any:
    """The examples of these indices, of a batch of that many, in the batch's own form.

    Tensors whose first dimension is the number of examples are cut, and lists within the batch of
    that length; all else stays whole. PrunedgeError where a list may be either the examples or what
    all of them have.
    """
    return _picked(batch, list(indices), examples, is_outermost=True)


def _picked(value: Any, indices: list[int], examples: int, is_outermost: bool = False) -> Any:
    if isinstance(value, torch.Tensor):
        if not value.dim() or value.shape[0] != examples:
            return value
        return value[torch.tensor(indices, device=value.device)]
    if isinstance(value, list) and not is_outermost and len(value) == examples:
        if all(_holds_examples(element, examples) for element in value):
            what = (
                f"a list of {examples} tensors whose first dimension is {examples}, too, may "
                "be the examples or their parts"
            )
            raise PrunedgeError(what, remedy=_REMEDY)
        return [value[index] for index in indices]
    return _rebuilt(value, lambda element: _picked(element, indices, examples))


def _holds_examples(value: Any, examples: int) -> bool:
    """Whether it is a tensor whose first dimension may count the examples."""
    return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == examples


def moved(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The batch with the function's result in place of each of its tensors."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    return _rebuilt(batch, lambda element: moved(element, function))


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a batch, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inside = []
    for element in _elements(value):
        inside += tensors(element)
    return inside


def described(value: Any) -> tuple[Any, ...]:
    """What of a call's arguments may decide which way through its code a model takes.

    Words, whole numbers, and which arguments there are.
    """
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.dim())
    if isinstance(value, Mapping):
        return tuple((key, described(element)) for key, element in value.items())
    if value is None or isinstance(value, (bool, int, str)):
        return (value,)
    return (type(value).__name__, *map(described, _elements(value)))


def as_pair(batch: Any) -> tuple[Any, Any]:
    """The model's inputs and the labels of a batch; None for labels where there are none.

    A tuple or list of two is (inputs, labels), of a single element (inputs,); a tensor or a dict
    alone is inputs. Inputs are a tensor, or a tuple or dict of the model's arguments. PrunedgeError
    for more than two.
    """
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) > 2 or not batch:
        raise PrunedgeError(
            f"a batch of {len(batch)} things is not (inputs, labels)",
            remedy="give loss=fn with fn(model, batch), or yield ((inputs, ...), labels)",
        )
    return batch[0], batch[1] if len(batch) == 2 else None


def _elements(value: Any) -> Iterable[Any]:
    """The values of a mapping, the elements of a sequence, the fields of a dataclass."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (tuple, list)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


def _rebuilt(value: Any, function: Callable[[Any], Any]) -> Any:
    """A container of the same kind with the function's results in place of its elements.

    Anything else as it is.
    """
    if isinstance(value, tuple):
        elements = [function(element) for element in value]
        is_named = hasattr(value, "_fields")
        return type(value)(*elements) if is_named else tuple(elements)
    if isinstance(value, list):
        return [function(element) for element in value]
    if isinstance(value, Mapping):
        mapping: Any = copy.copy(value) if hasattr(value, "__setitem__") else dict(value)
        for key, element in value.items():
            mapping[key] = function(element)
        return mapping
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        copied = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(copied, field.name, function(getattr(value, field.name)))
        return copied
    return value
