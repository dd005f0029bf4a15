"""How a command ends that can't go on: one line on stderr, and the exit code 2."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from prunedge.cli.going_on import once_mended
from prunedge.cli.streams import let_go_of_streams
from prunedge.utils import distributed
from prunedge.utils.machine import machine_error
from prunedge.utils.sanitize import shown

REPORT_AFTER_S = 3.0


def fail(what: str, remedy: str | None = None) -> NoReturn:
    """End with a line that says what is wrong, and the remedy."""
    process = ""
    if distributed.get_rank():
        # Nearly always the first process fails in the same way, says so, and torchrun ends this one
        # while it waits.
        time.sleep(REPORT_AFTER_S)
        process = f"process {distributed.get_rank()}: "
    line = f"error: {process}{what}" + (f": {remedy}" if remedy else "")
    with suppress(OSError):  # nobody listens
        sys.stderr.write(shown(line) + "\n")
        sys.stderr.flush()
    sys.exit(2)


def fail_of_machine(error: Exception, tokens: Sequence[str]) -> None:
    """End with a line where an error is the machine's trouble."""
    is_of_output = isinstance(error, OSError) and _is_of_output(error)
    trouble = machine_error(error, where="the output" if is_of_output else None)
    if trouble is not None:
        fail(one_line(trouble) + once_mended(tokens))


def one_line(error: Exception) -> str:
    """What an error says, in a line; spaces stay as they are, since a path or a command to copy may
    hold several.
    """
    return re.sub(r"\s*[\n\r\v\f]\s*", " ", str(error)).strip()


def is_raised_in(error: BaseException, modules: tuple[str, ...]) -> bool:
    """Whether it was raised in a module whose name begins so."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__")).startswith(modules)


def _is_of_output(error: BaseException) -> bool:
    """Whether what was printed can't be written: files are never written where it is raised
    then.
    """
    is_printed = is_raised_in(error, ("prunedge.cli", "rich."))
    if is_printed:
        let_go_of_streams((sys.stdout,))
    return is_printed
