"""Arguments of another kind than a function takes: one TypeError at its door, which names them."""

from __future__ import annotations

import os


def require(name: str, value: object, kinds: type | tuple[type, ...], hint: str) -> None:
    """TypeError where something else was given; `hint` says what the argument is."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {hint}, not {type(value).__name__}")


def require_path(name: str, value: object) -> None:
    """The same for a file or folder."""
    require(name, value, (str, os.PathLike), "the path of a file or folder")
