"""Whether two functions, or two models, are the same: digests that can be kept on disk and
compared later.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping
from pathlib import PurePath
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

PLAIN = (type(None), type(Ellipsis), bool, int, float, complex, str, bytes, torch.dtype)


def weights_digest(model: nn.Module) -> str:
    """Stands for all parameters and buffers of a model: their names, shapes, dtypes and
    values.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def tensors_digest(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    """The SHA-256 of named tensors, whichever their order, and of what is told about them."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def function_digest(function: Any) -> str | None:
    """Stands for what a function does: its code, and what that refers to; None where it can't be
    told.

    A function is told by its code, its defaults, its enclosed variables and the globals that it
    names, those in turn by the same; what comes from an installed package, by its name and the
    package's version. Objects of other kinds can't be told: two that look alike may still do
    different things.
    """
    teller = _Teller()
    try:
        teller.tell(function)
    except _Untold:
        return None
    return teller.digest.hexdigest()[:32]


class _Untold(Exception):
    """There is a part of which nobody can say what it is."""


class _Teller:
    """Walks through a function and all that it refers to, each part once, and digests what it meets
    on the way.
    """

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._met: dict[
            int, tuple[int, Any]
        ] = {}  # the value beside its number, so that no other takes its id

    def tell(self, value: Any) -> None:
        """Digest a value and its parts."""
        self._say(type(value).__name__)
        if isinstance(value, PLAIN):
            self._say(repr(value))
            return
        if id(value) in self._met:  # functions may call each other, and themselves
            self._say(f"number {self._met[id(value)][0]}")
            return
        self._met[id(value)] = (len(self._met), value)
        if isinstance(value, torch.Tensor):
            self._say(f"{value.dtype} {tuple(value.shape)}")
            self.digest.update(_bytes(value))
        elif isinstance(value, CodeType):
            self._tell_code(value)
        elif isinstance(value, FunctionType):
            self._tell_function(value)
        elif isinstance(value, CellType):
            self._tell_cell(value)
        elif isinstance(value, set | frozenset):
            self._tell_set(value)
        elif (parts := _parts(value)) is not None:
            self._tell_all(parts)
        else:
            self._say(_installed_name(value))

    def _say(self, text: str) -> None:
        # The length first: no two different series of texts are the same bytes.
        self.digest.update(f"{len(text)} {text}".encode(errors="surrogateescape"))

    def _tell_all(self, parts: list[Any]) -> None:
        self._say(str(len(parts)))
        for part in parts:
            self.tell(part)

    def _tell_code(self, code: CodeType) -> None:
        """The instructions and all that they name; not the file and the line where they were
        written.
        """
        self._say(code.co_code.hex())
        self._say(
            repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags))
        )
        self._say(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)))
        self._tell_all(list(code.co_consts))

    def _tell_function(self, function: FunctionType) -> None:
        self._tell_all(
            [
                function.__code__,
                function.__defaults__,
                function.__kwdefaults__,
                function.__closure__,
            ]
        )
        if _is_installed(function.__module__):
            self._say(_installed_name(function))
        else:
            self._tell_named(function.__globals__, _names(function.__code__))

    def _tell_named(self, known: Mapping[str, Any], names: set[str]) -> None:
        """Those of these globals that are named, also in the user's own modules among them."""
        for name in sorted(names & known.keys()):
            value = known[name]
            self._say(name)
            if not isinstance(value, ModuleType) or _is_installed(value.__name__):
                self.tell(value)
            elif id(value) not in self._met:
                self._met[id(value)] = (len(self._met), value)
                self._say(value.__name__)
                self._tell_named(vars(value), names)

    def _tell_cell(self, cell: CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # a variable that has not been set
            return
        self.tell(content)

    def _tell_set(self, value: set[Any] | frozenset[Any]) -> None:
        """Sets have no order of their own: their elements are sorted by what they print."""
        if not all(isinstance(one, PLAIN) for one in value):
            raise _Untold
        self._say(repr(sorted(map(repr, value))))


def _parts(value: Any) -> list[Any] | None:
    """What a value consists of; None where it is told otherwise."""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, dict):
        return [part for entry in value.items() for part in entry]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    return None


def _names(code: CodeType) -> set[str]:
    """The globals and attributes that the code, or code within it, names."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _installed_name(value: Any) -> str:
    """What an installed package calls so, with the package's version; _Untold for all else."""
    if isinstance(value, ModuleType):
        home, name = value.__name__, ""
    else:
        home, name = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    if not _is_installed(home) or not (name or isinstance(value, ModuleType)):
        raise _Untold
    package = sys.modules.get(home.partition(".")[0])
    return f"{home} {name} {getattr(package, '__version__', '')}"


def _is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python, to this package or to another installed one, and isn't
    the user's own.
    """
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(
        PurePath(file).parts
    )


def _bytes(tensor: torch.Tensor) -> Any:
    """The tensor's memory as `hashlib` reads it."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
