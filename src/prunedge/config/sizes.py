"""Sizes of images as a user writes them: in Python, on the command line, in a file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from prunedge.edge.image.size import Size, parse_size
from prunedge.errors import DataError

AnySize = Size | int | str | tuple[int, int]


def as_size(size: AnySize) -> Size:
    """`224`, `"128x384"` (height x width), `(128, 384)` or a Size as a Size; DataError where it is
    none.
    """
    if isinstance(size, tuple | list) and len(size) == 2:
        return parse_size("x".join(str(side) for side in size))
    return parse_size(size)


def plain_size(size: Size) -> int | str:
    """A size as files have it: `224`, or `"128x384"` (height x width)."""
    return size.height if size.height == size.width else str(size)


def _checked_size(size: Any) -> Size:
    try:
        return as_size(size)
    except DataError as error:
        raise ValueError(f"{error.what}: {error.remedy}") from None


# In a config a Size, in a file and on the command line `224` or `"128x384"`.
ImageSize = Annotated[Size, BeforeValidator(_checked_size), PlainSerializer(plain_size)]
