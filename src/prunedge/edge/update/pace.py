"""How fast a bundle must come: Python's own timeouts begin anew with every byte, and a server that
sends one now and then never ends.
"""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any

from prunedge.errors import AgentError
from prunedge.utils.machine import require_memory

DEADLINE_S = 3600.0  # for a whole bundle
LEAST = 1024  # bytes a second, on average over WINDOW_S; the slowest mobile networks give more
WINDOW_S = 30.0
TICK_S = 0.2


class Unreachable(AgentError):
    """The bundle can't be had now; later it may."""


class Pace:
    """Watches a fetch from a thread of its own, and closes the connection when it takes too long,
    is too slow, or `stop` is set.

    As a context it begins and ends. `check` raises Unreachable once something was wrong.
    """

    def __init__(self, seconds: float, stop: Event) -> None:
        self._seconds, self._stop = seconds, stop
        self._until = monotonic() + seconds
        self._problem: Unreachable | None = None
        self._socket: socket.socket | None = None
        self._since, self._bytes = (
            monotonic(),
            0,
        )  # the beginning of the window, and what came in it
        self._end = Event()
        self._thread = Thread(target=self._run, name="pace", daemon=True)

    def __enter__(self) -> Pace:
        require_memory(1)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def watch(self, connection: socket.socket | None) -> None:
        """From now on this connection is waited for; None: none is."""
        self._since, self._bytes = monotonic(), 0
        self._socket = connection

    def came(self, count: int) -> None:
        """So many bytes came."""
        self._bytes += count
        self.check()

    def check(self) -> None:
        """Raise what is wrong, if something is."""
        self._problem = self._problem or self._judge()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        while not self._end.wait(TICK_S):
            self._problem = self._problem or self._judge()
            if self._problem is not None and self._socket is not None:
                with suppress(OSError):
                    # Not the TLS layer's own, which would wait for an answer.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                return

    def _judge(self) -> Unreachable | None:
        if self._stop.is_set():
            return Unreachable(
                "stopped while a bundle was being fetched", remedy="it is tried again"
            )
        now = monotonic()
        if now > self._until:
            remedy = "allow more by --model-minutes, or use a faster server"
            return Unreachable(
                f"the bundle did not come in {self._seconds / 60:g} minutes", remedy=remedy
            )
        if self._socket is None or now - self._since < WINDOW_S:
            return None
        rate = self._bytes / (now - self._since)
        if rate < LEAST:
            what = f"the server sends {rate:,.0f} bytes a second, {LEAST:,} are the least"
            return Unreachable(what, remedy="it is tried again; use a faster server")
        self._since, self._bytes = now, 0
        return None


def watched(kind: type[http.client.HTTPConnection], pace: Pace) -> type[http.client.HTTPConnection]:
    """A kind of connection whose sockets are watched from the moment that they are there."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        """One whose headers, too, must come in time."""

        def __setattr__(self, name: str, value: Any) -> None:
            # `urllib` takes the socket away when the answer has begun; the answer itself goes on
            # reading from it.
            if name == "sock" and value is not None:
                pace.watch(value)
            super().__setattr__(name, value)

    return Watched
