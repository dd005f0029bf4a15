"""The command `prunedge`: verbs by import path, so that `--help` loads none of them but the one
that is asked for.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from prunedge import __version__
from prunedge.cli.failures import fail, fail_of_machine, is_raised_in, one_line
from prunedge.cli.going_on import DIVIDED, how_to_go_on, once_mended
from prunedge.cli.streams import let_go_of_streams, open_streams
from prunedge.cli.verbs import EXTRAS, HIDDEN, STUDIES, TRAINING, VERBS
from prunedge.errors import ExtraMissing, MachineError, PrunedgeError
from prunedge.utils import distributed
from prunedge.utils.advice import speaking
from prunedge.utils.machine import is_scarce
from prunedge.utils.sanitize import Lines

if TYPE_CHECKING:
    # Imported below where Ctrl-C is answered already: the `prunedge` of an installation imports
    # this module before it calls `main`.
    from cyclopts import App, Token


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
        app.command(
            f"prunedge.cli.{name}:{name}",
            name=name,
            sort_key=number,
            show=name not in HIDDEN,
            **line,
        )
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a verb; exit with 0, with 2 and one line on stderr for what the user can mend, or with
    130 when interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    open_streams()
    with speaking("command", tokens[0] if tokens else None):
        _answered(tokens)
    sys.exit(0)


def _answered(tokens: list[str]) -> None:
    """Run the verb, and end with a line and the exit code where it was interrupted or the machine
    is in trouble.
    """
    try:
        _obey(tokens)
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted{how_to_go_on(tokens)}\n")
        sys.exit(130)
    except BrokenPipeError:
        let_go_of_streams()
        sys.exit(141)
    except Exception as error:
        fail_of_machine(error, tokens)
        raise


def _obey(tokens: list[str]) -> None:
    """Run the verb that the command line names, and end with a line for what the user can mend."""
    from cyclopts import CycloptsError

    _log_to_stderr()
    _refuse_what_no_verb_takes(tokens)
    try:
        make_app(tokens[0] if tokens else None)(
            tokens, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()  # a full disk may show itself only now
    except SystemExit as error:
        if is_raised_in(error, ("rich.",)):
            raise BrokenPipeError from None  # rich ends the process where nobody reads the help
        if not is_raised_in(error, ("prunedge.", "cyclopts")):
            fail(
                f"code that this command ran ended it with sys.exit({error.code!r})",
                "let it raise an exception, or return",
            )
        raise
    except CycloptsError as error:
        what = " ".join(str(error).split()).rstrip(".")
        fail(what, f"see prunedge {tokens[0]} --help" if tokens else "prunedge --help")
    except MachineError as error:
        fail(one_line(error) + once_mended(tokens))
    except PrunedgeError as error:
        if isinstance(error, ExtraMissing) and is_scarce():
            fail_of_machine(MemoryError(), tokens)
        fail(one_line(error))
    except ModuleNotFoundError as error:
        if is_scarce():
            fail_of_machine(error, tokens)
        missing = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(missing) or ("prune" if missing in TRAINING else None)
        if extra is None:
            raise
        fail(
            f"'{tokens[0] if tokens else 'this'}' needs {missing}, which is not installed",
            f"pip install 'prunedge[{extra}]'",
        )


def _log_to_stderr() -> None:
    """Show warnings of the library; of several processes the first alone prints."""
    is_first = distributed.get_rank() == 0
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING if is_first else logging.ERROR, handlers=[handler])
    if not is_first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends


def _refuse_what_no_verb_takes(tokens: Sequence[str]) -> None:
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
