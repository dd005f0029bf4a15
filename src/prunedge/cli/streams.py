"""The standard streams of a command: closed ones, and those that nobody reads any more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from prunedge.errors import MachineError


def open_streams() -> None:
    """Put something in the place of standard streams that were closed: the first file to be opened
    would else take their number.

    Errors lead nowhere then; results can't be written (`ClosedOutput`).
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


class ClosedOutput(io.TextIOBase):
    """A standard output that was closed: nobody would see the result, which is said instead of
    passed over.
    """

    def write(self, text: str) -> int:
        """Raise MachineError."""
        raise MachineError(
            "standard output is closed",
            remedy="open it, or send the result to a file or to /dev/null",
        )


def let_go_of_streams(streams: Sequence[TextIO] | None = None) -> None:
    """Let what still waits to be printed lead nowhere: Python would try again at its end, and
    complain.
    """
    for stream in streams or (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
