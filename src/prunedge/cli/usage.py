"""What is wrong with a command line, in the user's words and not in those of the parser."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnusedCliTokensError,
)

from prunedge.utils.wording import first_of

KINDS = {
    bool: "nothing, it stands alone",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "a text",
}


def usage_text(error: CycloptsError) -> str:
    """A mistake in a line, without the remedy."""
    if isinstance(error, UnusedCliTokensError):
        names = [repr(token) for token in error.unused_tokens or ()]
        return f"nothing more is expected than what stands before {first_of(names)}"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice"
    if isinstance(error, MissingArgumentError) and error.keyword:
        return f"{error.keyword} needs a value"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{_as_in_help(error.argument)} is missing"
    if isinstance(error, CoercionError) and error.msg is None and error.token is not None:
        name = error.token.keyword or "an argument"
        return f"{name} {error.token.value}: give {kind_text(error.target_type)}"
    return " ".join(str(error).split()).rstrip(".")


def _as_in_help(argument: Argument) -> str:
    """What the help calls it: `--out`, or `PHOTOS` where it needs no name."""
    if argument.field_info.is_positional:
        return argument.name.lstrip("-").replace("-", "_").upper()
    return argument.name


def kind_text(kind: Any) -> str:
    """What is taken: `a whole number, or all`."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is Annotated:
        return kind_text(parts[0])
    if get_origin(kind) is Literal:
        *others, last = map(str, parts)
        return f"{', '.join(others)} or {last}" if others else last
    if get_origin(kind) in (list, tuple):
        return f"{kind_text(parts[0])}, or several with commas between them"
    if parts:
        return " or ".join(kind_text(part) for part in parts)
    return KINDS.get(kind, str(getattr(kind, "__name__", kind)))
