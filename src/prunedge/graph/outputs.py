"""Every tensor in a model's answer, wherever its author put it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Set
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.errors import GraphError

# No tensor of an answer is in these, and some lead to half of the program.
_NOT_ENTERED: tuple[type, ...] = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    np.generic,
    np.ndarray,
    torch.dtype,
    torch.device,
    type,
    ModuleType,
    FunctionType,
    MethodType,
    nn.Module,
)


def tensors_in(value: Any) -> dict[str, torch.Tensor]:
    """Every tensor in a model's answer by the way to it (`.logits`, `[0]['boxes']`).

    In a fixed order. A numpy array counts as a tensor. Looks into tuples and lists, mappings,
    dataclasses, the attributes of any other object (`__slots__` as well) and whatever can be
    iterated over (a generator is used up). Each object is entered once, so that objects that refer
    to each other end. Models, functions and classes are not entered.
    """
    tensors: dict[str, torch.Tensor] = {}
    # Holds on to what was entered: Python uses the ids of the dead again.
    entered: dict[int, Any] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, torch.Tensor):
            tensors[path] = item
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biufc":
            tensors[path] = torch.from_numpy(np.ascontiguousarray(item))
        elif item is not None and not isinstance(item, _NOT_ENTERED) and id(item) not in entered:
            entered[id(item)] = item
            inside = [(path + step, element) for step, element in _elements(item)]
            waiting.extend(reversed(inside))
    return tensors


def seen_in(output: Any, model: nn.Module) -> dict[str, torch.Tensor]:
    """`tensors_in` the model's answer.

    GraphError where there is none, since nothing could be compared.
    """
    tensors = tensors_in(output)
    if not tensors:
        raise GraphError(
            f"the model's answer ({type(output).__name__}) shows no tensor, so that nothing "
            "could be compared",
            where=type(model).__name__,
            remedy="wrap it in a module whose forward returns the tensors: alone, in a tuple, a "
            "dict, a dataclass or as attributes",
        )
    return tensors


def _elements(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, each with the step that leads there."""
    is_dataclass = hasattr(type(value), "__dataclass_fields__")
    is_iterable = hasattr(type(value), "__iter__") and not is_dataclass
    if isinstance(value, Mapping):
        for key, element in list(value.items()):
            yield f"[{key!r}]", element
    elif isinstance(value, Set):
        # Sets have no order of their own, and that of their tensors differs from run to run.
        for index, element in enumerate(sorted(value, key=repr)):
            yield f"{{{index}}}", element
    elif is_iterable or isinstance(value, (list, tuple)):
        for index, element in enumerate(value):
            yield f"[{index}]", element

    # A dict or a list may carry attributes beside its elements, too.
    for name in _attributes(value):
        if not name.startswith("__") and hasattr(value, name):
            yield f".{name}", getattr(value, name)


def _attributes(value: Any) -> dict[str, None]:
    """The names of an object's fields, attributes and slots, in order and each once."""
    names: dict[str, None] = {}
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            names[field.name] = None
    names.update(dict.fromkeys(getattr(value, "__dict__", ())))

    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        if isinstance(slots, str):
            slots = (slots,)
        for name in slots:
            # Python spells a private slot's name with that of its class before it.
            is_private = name.startswith("__") and not name.endswith("__")
            spelled = f"_{kind.__name__.lstrip('_')}{name}" if is_private else name
            names[spelled] = None
    return names
