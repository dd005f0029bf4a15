"""Digests of functions and models, kept on disk to tell later whether they are still the same."""

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
    """A digest of all parameters and buffers of a model: their names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def tensors_digest(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    """The SHA-256 of named tensors, whichever their order, and of the text `about` them."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def function_digest(function: Any) -> str | None:
    """A digest of what a function does: its code, and what that refers to; None where unknown.

    A function is known by its code, its defaults, its enclosed variables and the globals that it
    names, those in turn by the same; what comes from an installed package, by its name and the
    package's version. Objects of other kinds are unknown: two that look alike may still do
    different things.
    """
    walk = _Digester()
    try:
        walk.add(function)
    except _Unknown:
        return None
    return walk.digest.hexdigest()[:32]


class _Unknown(Exception):
    """The function refers to an object that can't be digested."""


class _Digester:
    """Walks through a function and all that it refers to, each object once, and digests it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        # By id: the number of each object met, and the object, so that no other takes its id.
        self._met: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> None:
        """Digest a value and what it consists of."""
        self._write(type(value).__name__)
        if isinstance(value, PLAIN):
            self._write(repr(value))
            return
        if id(value) in self._met:  # functions may call each other, and themselves
            number, _ = self._met[id(value)]
            self._write(f"number {number}")
            return

        self._met[id(value)] = (len(self._met), value)
        if isinstance(value, torch.Tensor):
            self._write(f"{value.dtype} {tuple(value.shape)}")
            self.digest.update(_bytes(value))
        elif isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, CellType):
            self._add_cell(value)
        elif isinstance(value, set | frozenset):
            self._add_set(value)
        else:
            elements = _elements(value)
            if elements is not None:
                self._add_all(elements)
            else:
                self._write(_installed_name(value))

    def _write(self, text: str) -> None:
        # The length first: no two different series of texts are the same bytes.
        self.digest.update(f"{len(text)} {text}".encode(errors="surrogateescape"))

    def _add_all(self, values: list[Any]) -> None:
        self._write(str(len(values)))
        for value in values:
            self.add(value)

    def _add_code(self, code: CodeType) -> None:
        """The instructions and all that they name; not the file and line where they stand."""
        counts = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
        )
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._write(code.co_code.hex())
        self._write(repr(counts))
        self._write(repr(names))
        self._add_all(list(code.co_consts))

    def _add_function(self, function: FunctionType) -> None:
        self._add_all(
            [
                function.__code__,
                function.__defaults__,
                function.__kwdefaults__,
                function.__closure__,
            ]
        )
        if _is_installed(function.__module__):
            self._write(_installed_name(function))
        else:
            self._add_named(function.__globals__, _names(function.__code__))

    def _add_named(self, known: Mapping[str, Any], names: set[str]) -> None:
        """Those of these globals that are named, also in the user's own modules among them."""
        for name in sorted(names & known.keys()):
            value = known[name]
            self._write(name)
            if not isinstance(value, ModuleType) or _is_installed(value.__name__):
                self.add(value)
            elif id(value) not in self._met:
                self._met[id(value)] = (len(self._met), value)
                self._write(value.__name__)
                self._add_named(vars(value), names)

    def _add_cell(self, cell: CellType) -> None:
        try:
            content = cell.cell_contents
        except ValueError:  # a variable that has not been set
            return
        self.add(content)

    def _add_set(self, value: set[Any] | frozenset[Any]) -> None:
        """Sets have no order of their own: their elements are sorted by what they print."""
        if not all(isinstance(element, PLAIN) for element in value):
            raise _Unknown
        self._write(repr(sorted(map(repr, value))))


def _elements(value: Any) -> list[Any] | None:
    """What a container or a bound function consists of; None of other values."""
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, dict):
        elements = []
        for key, element in value.items():
            elements += [key, element]
        return elements
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    return None


def _names(code: CodeType) -> set[str]:
    """The globals and attributes that the code, or code within it, names."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _installed_name(value: Any) -> str:
    """The name of an installed package's object, with the package's version; _Unknown of others."""
    if isinstance(value, ModuleType):
        module = value.__name__
        name = ""
    else:
        module = getattr(value, "__module__", None) or ""
        name = getattr(value, "__qualname__", "")
        if not name:
            raise _Unknown
    if not _is_installed(module):
        raise _Unknown
    package = sys.modules.get(module.partition(".")[0])
    return f"{module} {name} {getattr(package, '__version__', '')}"


def _is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python, to this package or to another installed one.

    The user's own don't.
    """
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        return False
    return not {"site-packages", "dist-packages"}.isdisjoint(PurePath(file).parts)


def _bytes(tensor: torch.Tensor) -> Any:
    """The tensor's memory as `hashlib` reads it."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
