"""Arguments of another kind than a function takes: one TypeError at its door, which names them."""

from __future__ import annotations

import os
from numbers import Integral, Real


def require(name: str, value: object, kinds: type | tuple[type, ...], hint: str) -> None:
    """TypeError where something else was given; `hint` says what the argument is."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {hint}, not {type(value).__name__}")


def is_number(value: object, *, whole: bool = False) -> bool:
    """Whether it is a number, also one of NumPy's; True and False are none."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def require_path(name: str, value: object) -> None:
    """The same for a file or folder."""
    require(name, value, (str, os.PathLike), "the path of a file or folder")
