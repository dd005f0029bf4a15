"""What the modules of a folder define, so that a new module needs no entry in a list."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def definitions_in(package: str, path: Iterable[str]) -> dict[str, Any]:
    """The `DEFINITION` of each module of a package that has one, by the definition's `name`; `path`
    is the package's `__path__`.
    """
    definitions = {}
    for module in iter_modules(path):
        definition = getattr(import_module(f"{package}.{module.name}"), "DEFINITION", None)
        if definition is not None:
            definitions[definition.name] = definition
    return definitions
