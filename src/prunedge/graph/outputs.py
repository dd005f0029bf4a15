"""What a model hands back: every tensor in it, wherever its author put it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Set
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.errors import GraphError

# Nothing that a model says is in these, and some lead to half of the program.
_CLOSED: tuple[type, ...] = (
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
)
_CLOSED += (type, ModuleType, FunctionType, MethodType, nn.Module)


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
        path, part = waiting.pop()
        if isinstance(part, torch.Tensor):
            tensors[path] = part
        elif isinstance(part, np.ndarray) and part.dtype.kind in "biufc":
            tensors[path] = torch.from_numpy(np.ascontiguousarray(part))
        elif part is not None and not isinstance(part, _CLOSED) and id(part) not in entered:
            entered[id(part)] = part
            inside = [(path + step, below) for step, below in _parts(part)]
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


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, each with the step that leads there."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif isinstance(value, Set):
        # Sets have no order of their own, and that of their tensors differs from run to run.
        yield from ((f"{{{place}}}", part) for place, part in enumerate(sorted(value, key=repr)))
    elif not hasattr(type(value), "__dataclass_fields__") and hasattr(type(value), "__iter__"):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    # A dict or a list may carry attributes beside its elements, too.
    yield from ((f".{name}", part) for name, part in _attributes(value))


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    names: dict[str, None] = {}
    if dataclasses.is_dataclass(value):
        names.update(dict.fromkeys(field.name for field in dataclasses.fields(value)))
    names.update(dict.fromkeys(getattr(value, "__dict__", ())))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            # Python spells a private slot's name with that of its class before it.
            private = name.startswith("__") and not name.endswith("__")
            names[f"_{kind.__name__.lstrip('_')}{name}" if private else name] = None
    for name in names:
        if not name.startswith("__") and hasattr(value, name):
            yield name, getattr(value, name)
