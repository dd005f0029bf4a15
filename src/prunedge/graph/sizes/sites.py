"""The site of a call in a module's code, read off the stack."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import nn

_OWN = os.path.dirname(__file__) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep
_COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>"}
# By the id of a code object, which is kept alive for that, and the instruction's offset.
_POSITIONS: dict[tuple[int, int], tuple[CodeType, tuple[int, ...]]] = {}
# The ids of the codes in which a module's own code is entered.
_BOUNDARIES = {id(nn.Module._call_impl.__code__)}

Function = TypeVar("Function", bound=Callable[..., Any])


class _Thread(threading.local):
    """What is running in this thread.

    `uncounted` blocks, and the methods of pinned modules (by the modules' ids).
    """

    def __init__(self) -> None:
        self.uncounted = 0
        self.pinned: Counter[int] = Counter()


THREAD = _Thread()


@contextmanager
def uncounted() -> Iterator[None]:
    """Code of our own that stands in for code whose calls tracing does not see."""
    THREAD.uncounted += 1
    try:
        yield
    finally:
        THREAD.uncounted -= 1


def boundary(function: Function) -> Function:
    """What this function runs is a module's own code, as what `Module.__call__` runs is."""
    _BOUNDARIES.add(id(function.__code__))
    return function


@boundary
def run_forward_method(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a method of a module as though it were its forward: sites begin with it."""
    return function(*args, **kwargs)


def site_of(frame: FrameType | None) -> tuple[str, FrameType | None]:
    """The site in the running module's code, and the frame in which that code was entered.

    torch's own functions on the way are left out, and comprehensions belong to the function around
    them, as later Pythons compile them.
    """
    steps: list[str] = []
    inner: tuple[int, ...] | None = None
    while frame is not None:
        code = frame.f_code
        if id(code) in _BOUNDARIES:
            break
        if not code.co_filename.startswith((_TORCH, _OWN)):
            position = inner or _position(code, frame.f_lasti)
            if code.co_name in _COMPREHENSIONS:
                inner = position
            else:
                inner = None
                steps.append(_step(code, position))
        frame = frame.f_back
    return ">".join(reversed(steps)), frame


def _step(code: CodeType, position: tuple[int, ...]) -> str:
    """A function and where in it the call stands: `Attention.forward:7.8-7.51`."""
    line, column, last_line, last_column = position
    first = code.co_firstlineno
    return f"{code.co_qualname}:{line - first}.{column}-{last_line - first}.{last_column}"


def _position(code: CodeType, instruction: int) -> tuple[int, ...]:
    """First line, column, last line, column of an instruction's source text."""
    key = (id(code), instruction)
    if key not in _POSITIONS:
        positions = itertools.islice(code.co_positions(), instruction // 2, None)
        line, last_line, column, last_column = next(positions)
        position = (line or 0, column or 0, last_line or 0, last_column or 0)
        _POSITIONS[key] = (code, position)
    return _POSITIONS[key][1]


def is_torchs(frame: FrameType) -> bool:
    """Whether this is torch's own code."""
    return frame.f_code.co_filename.startswith(_TORCH)


def beyond(frame: FrameType | None) -> str:
    """Why a call under way can't be pinned: it is not made by the code of a module's own method.

    Empty where it is.
    """
    running: list[CodeType] = []
    functions = set()
    for kind in _subclasses(torch.autograd.Function):
        functions.add(id(getattr(kind.forward, "__code__", None)))
    while frame is not None and id(frame.f_code) not in _BOUNDARIES:
        code = frame.f_code
        if id(code) in functions and not is_torchs(frame):
            return "by the code of an autograd function, whose backward knows its numbers"
        running.append(code)
        frame = frame.f_back
    if frame is None or frame.f_code is not nn.Module._call_impl.__code__:
        return ""

    forward = frame.f_locals["self"].forward
    codes = []
    while isinstance(forward, (FunctionType, MethodType)):
        codes.append(forward.__code__)
        forward = getattr(forward, "__wrapped__", None)
    is_in_hook = codes and not any(code in running for code in codes)
    return "in a hook" if is_in_hook else ""


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)
