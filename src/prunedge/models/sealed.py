"""Stand-ins for what a file of weights wants made or run, so that nothing of its choosing is.

torch's restricted reader takes them in the place of classes and functions.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

SEALED = "prunedge sealed"


class _Sealing(type):
    """Makes calling a `Sealed` class give one of its objects, whatever its `__new__` gives."""

    def __call__(cls, *args: Any) -> Any:
        return object.__new__(cls)  # type: ignore[arg-type]  # `cls` is such a class


class Sealed(metaclass=_Sealing):
    """Stands where a file wants an object, or a function's result, that torch calls harmful.

    torch's restricted reader takes it in the place of what was asked for, so nothing of the file's
    choosing is imported or run. What was to be called gives a sealed object; what was to be made
    and then filled gives a dict that knows what was asked for, since it may be a kind of dict.
    """

    path = "an object"

    def __new__(cls, *args: Any) -> Any:
        """Give what the reader lets items and attributes be set on."""
        made: OrderedDict[Any, Any] = OrderedDict()
        made.__dict__[SEALED] = cls.path
        return made

    def __setstate__(self, state: Any) -> None:
        """Take no notice."""


def sealed(value: object) -> str | None:
    """What was asked for, if `value` is a sealed object.

    None for all else, and for dicts of whichever class.
    """
    if isinstance(value, Sealed):
        return value.path
    if isinstance(value, OrderedDict) and not value:
        return vars(value).get(SEALED)
    return None


def sealing(name: str) -> type[Sealed]:
    """A class of sealed objects that stands for the class or function of that name."""
    return type("Sealed", (Sealed,), {"path": name})
