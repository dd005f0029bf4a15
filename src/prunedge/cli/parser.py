"""The verbs as cyclopts reads them: by import path, so that `--help` loads none of them but the one
that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from prunedge import __version__
from prunedge.cli.failures import fail
from prunedge.cli.going_on import DIVIDED
from prunedge.cli.verbs import HIDDEN, STUDIES, VERBS
from prunedge.utils import distributed

if TYPE_CHECKING:
    # Imported below where Ctrl-C is answered already: the `prunedge` of an installation imports
    # this module before it calls `main`.
    from cyclopts import App, Token


_NEGATIVE = re.compile(r"-\.?\d")


def _converted(kind: Any, tokens: Sequence[Token]) -> Any:
    """What the text of an option stands for. Where a whole number is wanted 1.5 is none; cyclopts
    would round it without a word.

    An empty path is none either: it would stand for the folder where the command is given.
    """
    from cyclopts import CoercionError, convert

    if int in (kind, *get_args(kind)):
        for token in tokens:
            if "." in token.value:
                raise CoercionError(token=token, target_type=int)
    if Path in (kind, *get_args(kind)):
        for token in tokens:
            if not token.value:
                raise CoercionError("an empty path names nothing", token=token, target_type=Path)
    return convert(kind, tokens)


def with_negative_values(tokens: Sequence[str]) -> list[str]:
    """The command line with what begins as a negative number joined to the option before it:
    cyclopts takes `--budget -5min` for an option without a value, and `-5min` for another option.
    """
    joined: list[str] = []
    for token in tokens:
        takes_value = bool(joined) and joined[-1].startswith("--") and "=" not in joined[-1]
        if takes_value and _NEGATIVE.match(token):
            joined[-1] = f"{joined[-1]}={token}"
        else:
            joined.append(token)
    return joined


def make_app(verb: str | None) -> App:
    """The command. Without a verb its help tells what each does, in the lines above; with one the
    verb explains itself.
    """
    from cyclopts import App, Parameter

    app = App(
        name="prunedge",
        help="From images of damage to a small model, proven on the device that will run it.",
        version=__version__,
        help_format="markdown",
        # An option that takes several values has no `--empty-` twin: leaving it out says the same.
        default_parameter=Parameter(converter=_converted, negative_iterable=()),
        version_format="plaintext",  # Markdown takes a quarter of the time to load
        suppress_keyboard_interrupt=False,  # `main` says how to go on
    )
    names = (*VERBS, *HIDDEN)
    for number, name in enumerate(names):
        line = {} if verb in names or name in HIDDEN else {"help": VERBS[name]}
        function = name.replace("-", "_")
        app.command(
            f"prunedge.cli.{function}:{function}",
            name=name,
            sort_key=number,
            show=name not in HIDDEN,
            **line,
        )
    return app


def refuse_what_no_verb_takes(tokens: Sequence[str]) -> None:
    """End where no verb, or not this one so, takes what the command line says."""
    verb = tokens[0] if tokens else ""
    if distributed.world_size() > 1 and verb in VERBS and verb not in DIVIDED:
        fail(f"'{verb}' is not divided among processes", "start it without torchrun")
    if verb and not verb.startswith("-") and verb not in (*VERBS, *HIDDEN):
        near = get_close_matches(verb, VERBS, n=1)
        guess = f"did you mean prunedge {near[0]}?" if near else "prunedge --help lists them"
        fail(f"'{verb}' is no verb", guess)
    if verb == "study" and len(tokens) > 1:
        _refuse_no_study(tokens[1])
    for token in tokens:
        if "\0" in token:
            fail(f"an argument holds a NUL character, which no name may: {token}", "leave it out")


def _refuse_no_study(name: str) -> None:
    """End where this is neither a study nor a file, and nearly the name of a study."""
    near = get_close_matches(name, STUDIES, n=1)
    if name in STUDIES or not near or "\0" in name or Path(name).exists():
        return
    fail(f"'{name}' is no study and no file", f"did you mean prunedge study {near[0]}?")
