"""A model that is run and afterwards is as it was: its modes, its buffers, what its modules keep.

Modules remember things at their first forward (anchors, tables of positions, the last image's
size), count calls, or replace a buffer by another tensor.
"""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.errors import SurgeryError
from prunedge.utils.machine import pass_on

# What holds no state of a model's own.
_LEAVES = (
    str,
    bytes,
    int,
    float,
    complex,
    type,
    ModuleType,
    FunctionType,
    MethodType,
    BuiltinFunctionType,
    np.ndarray,
    torch.dtype,
)
# Loggers, locks, threads: objects of Python's own that others share; and pins, which note what they
# meet.
_STRANGERS = (sys.stdlib_module_names | {"prunedge"}) - {"types", "collections"}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model may be run and change itself.

    Afterwards all is as before, and so are the random generators.

    Attributes of its modules, buffers and tensors, dicts, lists and plain objects that they hold
    are put back; its parameters' values are not looked after.
    """
    state = _State(model)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    python, numpy = random.getstate(), np.random.get_state()
    devices = {x.device.index for x in model.parameters() if x.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=sorted(devices)):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(python)
        np.random.set_state(numpy)
        state.restore()


def refresh(model: nn.Module) -> None:
    """Let modules make anew what they keep of their weights in evaluation mode (tables of biases).

    Their modes stay what they are. Such modules forget it when they are put into training mode, and
    make it when they are put back or at the next forward.
    """
    modes = [(module, module.training) for module in model.modules()]
    training = model.training
    model.train(True)
    model.train(training)
    for module, mode in modes:
        module.training = mode


def copied(model: nn.Module, swapped: Mapping[int, torch.Tensor] | None = None) -> nn.Module:
    """A deep copy in which some tensors (by id) are replaced by others.

    Sharing between modules is kept. Results that modules keep from a forward with gradients, which
    torch refuses to copy, are copied without these. SurgeryError where something in the model
    can't be copied.
    """
    memo: dict[int, Any] = dict(swapped or {})
    for held in held_tensors(model):
        if not held.is_leaf:
            memo.setdefault(id(held), held.detach().clone())
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever is in the user's modules
        pass_on(error)
        raise SurgeryError(
            f"the model can't be copied ({type(error).__name__}: {str(error)[:160]})",
            where=type(model).__name__,
            remedy="does copy.deepcopy(model) work? Take out of it what holds files, locks, "
            "sparse weights or results of computations",
        ) from error


def held_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors that its modules hold beside parameters and buffers.

    As plain attributes, or in dicts, lists and objects.
    """
    known = {id(x) for x in (*model.parameters(), *model.buffers())}
    return (x for x in _State(model, values=False).tensors if id(x) not in known)


class _State:
    """What can change in a model: containers and their contents, tensors and their values."""

    def __init__(self, model: nn.Module, values: bool = True) -> None:
        self._restore: list[Callable[[], None]] = []
        self.tensors: list[torch.Tensor] = []
        self._values = values
        seen: dict[int, Any] = {}
        waiting: list[Any] = [model]
        while waiting:
            held = waiting.pop()
            if id(held) in seen or held is None or isinstance(held, _LEAVES):
                continue
            seen[id(held)] = held  # kept alive, so that no other object gets its id
            waiting += self._look(held)

    def restore(self) -> None:
        """Put everything back that has changed."""
        for put_back in self._restore:
            put_back()

    def _look(self, held: Any) -> list[Any]:
        """Remember what this holds; gives what to look into next."""
        if isinstance(held, torch.Tensor):
            if not isinstance(held, nn.Parameter):
                self.tensors.append(held)
                if self._values:
                    self._restore.append(_tensor(held))
            return []
        if isinstance(held, dict):
            self._restore.append(_dict(held))
            return list(held.values())
        if isinstance(held, (list, deque)):
            self._restore.append(_list(held))
            return list(held)
        if isinstance(held, set):
            self._restore.append(_set(held))
            return []
        if isinstance(held, tuple):
            return list(held)
        if type(held).__module__.partition(".")[0] in _STRANGERS:
            return []
        attributes = getattr(held, "__dict__", None)
        return [attributes] if isinstance(attributes, dict) else []


def _tensor(tensor: torch.Tensor) -> Callable[[], None]:
    if tensor.device.type == "meta":
        return lambda: None
    before = tensor.detach().clone()

    def put_back() -> None:
        # Batch norm writes its statistics without counting them as a change.
        if tensor.shape != before.shape:
            tensor.data = before
        elif not torch.equal(tensor.detach(), before):
            with torch.no_grad():
                tensor.copy_(before)

    return put_back


def _dict(held: dict[Any, Any]) -> Callable[[], None]:
    before = list(held.items())

    def put_back() -> None:
        now = list(held.items())
        if len(now) != len(before) or not all(map(_is_same_item, now, before)):
            held.clear()
            held.update(before)

    return put_back


def _is_same_item(now: tuple[Any, Any], before: tuple[Any, Any]) -> bool:
    return now[0] is before[0] and now[1] is before[1]


def _list(held: list[Any] | deque[Any]) -> Callable[[], None]:
    before = list(held)

    def put_back() -> None:
        if len(held) != len(before) or any(a is not b for a, b in zip(held, before, strict=True)):
            held.clear()
            held.extend(before)

    return put_back


def _set(held: set[Any]) -> Callable[[], None]:
    before = set(held)

    def put_back() -> None:
        if held != before:
            held.clear()
            held.update(before)

    return put_back
