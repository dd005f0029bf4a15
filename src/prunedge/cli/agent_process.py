"""The agent as a process: its signals, its lines on stderr, and what its environment says."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event


def end_on_signals(stop: Event) -> list[int]:
    """Let SIGTERM and Ctrl-C end the agent in order; a second one ends it at once. The list is
    filled when Ctrl-C came.
    """
    interrupted: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            interrupted.append(number)
        stop.set()
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return interrupted


@contextmanager
def lines_on_stderr() -> Iterator[None]:
    """Show what the agent tells, with the time; the journal notes that itself."""
    from prunedge.edge.logs import Repeats, log
    from prunedge.utils.sanitize import Lines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        Lines("%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(message)s")
    )
    handler.addFilter(Repeats())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True


def read_password(file: Path | None) -> str | None:
    """The password in a file, else that of the variable; AgentError when the file can't be read."""
    from prunedge.errors import AgentError
    from prunedge.utils.files import read_secret

    if file is None:
        return os.environ.get("PRUNEDGE_MQTT_PASSWORD")
    try:
        return read_secret(file).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(
            f"the password can't be read ({error})",
            where=file,
            remedy="name a text file that the agent may read",
        ) from None


def device_name() -> str:
    """The machine's name, as topics and messages may hold it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "device"


def state_folder() -> Path:
    """systemd's folder for the service, or one below the user's home."""
    own = os.environ.get("STATE_DIRECTORY")
    if own:
        return Path(own.split(":")[0])
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        / "prunedge-agent"
    )
