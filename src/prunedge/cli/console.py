"""What the verbs print with: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args, get_origin

from cyclopts import CoercionError, Token
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from prunedge.utils.distributed import get_rank
from prunedge.utils.sanitize import shown

UNCUT = 10_000  # columns, where there is no terminal
Advance = Callable[[int, int, str], None]


class Plain(Console):
    """A console whose texts are printed as they are: brackets are no markup, and what a terminal
    obeys is made visible.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)
        if "width" not in settings:
            # COLUMNS, which programs hand on to those that they start, is a terminal's.
            self._width = None

    @property
    def size(self) -> ConsoleDimensions:
        """A terminal's; where a file or another program reads, tables cut no names."""
        if self.is_terminal or self._width is not None:
            return super().size
        return ConsoleDimensions(UNCUT, super().size.height)

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        Console.size.fset(self, new)  # type: ignore[attr-defined]

    def render_str(self, text: str, **how: Any) -> Text:
        """Every text passes here, those in tables too."""
        return super().render_str(shown(text, keep="\n\t"), **how)

    def on_broken_pipe(self) -> None:
        """Lets the caller know when nobody reads it any more, as `print` does; rich would end the
        process with an error's exit code.
        """
        raise BrokenPipeError


out = Plain(soft_wrap=True)
err = Plain(stderr=True, soft_wrap=True, quiet=get_rank() > 0)


def print_json(value: Any) -> None:
    """One JSON document on stdout, for machines."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def tell(text: object = "") -> None:
    """A line of the result, on stdout."""
    sys.stdout.write(shown(text, keep="\n\t") + "\n")


def say(text: str) -> None:
    """A line about what is going on, on stderr."""
    err.print(text)


def split(kind: Any, tokens: Sequence[Token]) -> list[Any]:
    """`1,2,5` and repeated options are the same list."""
    for choice in get_args(kind):  # of list[int] | None
        if get_origin(choice) is list:
            kind = choice
    (item,) = get_args(kind)
    # Of several types (int | str) the text is kept: the config reads it.
    read = item if callable(item) else str
    values = []
    for token in tokens:
        try:
            values += [read(part.strip()) for part in token.value.split(",") if part.strip()]
        except ValueError:
            raise CoercionError(token=token, target_type=kind) from None
    return values


@contextmanager
def progress(title: str, quiet: bool = False) -> Iterator[Advance]:
    """A bar with the time left, on stderr; nothing when `quiet` or when stderr is no terminal.

    Yields `advance(done, total, what)`; a new `what` starts a new bar.
    """
    if quiet or err.quiet or not err.is_terminal:
        yield lambda done, total, what: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task(title, total=None)
        last: tuple[str, int] = ("", 0)

        def advance(done: int, total: int, what: str) -> None:
            nonlocal last
            if what != last[0] or done < last[1]:
                bars.reset(task, total=total, description=escape(shown(what or title)))
            bars.update(task, completed=done, total=total)
            last = (what, done)

        yield advance
