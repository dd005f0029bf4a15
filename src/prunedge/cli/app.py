"""The command `prunedge`: runs a verb, and answers what goes wrong in a line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from prunedge.cli.failures import fail, fail_of_machine, is_raised_in, one_line
from prunedge.cli.going_on import how_to_go_on, once_mended
from prunedge.cli.parser import make_app, refuse_what_no_verb_takes, with_negative_values
from prunedge.cli.streams import let_go_of_streams, open_streams
from prunedge.cli.verbs import EXTRAS, TRAINING
from prunedge.errors import ExtraMissing, MachineError, PrunedgeError
from prunedge.utils import distributed
from prunedge.utils.advice import speaking
from prunedge.utils.machine import is_scarce
from prunedge.utils.sanitize import Lines


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
    refuse_what_no_verb_takes(tokens)
    tokens = with_negative_values(tokens)
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
        from prunedge.cli.usage import usage_text

        help_of = f"see prunedge {tokens[0]} --help" if tokens else "prunedge --help"
        fail(usage_text(error), help_of)
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
    if is_first:
        # How masks are read is a guess, which the user has to see.
        for name in ("mask_listing", "mask_drawn"):
            logging.getLogger(f"prunedge.data.{name}").setLevel(logging.INFO)
    else:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
