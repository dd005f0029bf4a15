"""Lines that people read: one per event, no control characters, and the same one not again and
again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

from prunedge.utils.wording import counted

log = logging.getLogger("prunedge.agent")

QUIET_S = 60.0
MOST = 30  # warnings in so long; a disk that is full has one for every image
LONGEST = 400  # characters
KEPT = 1000  # different lines that are remembered


def one_line(value: object) -> str:
    """A value as one printable line. File names and payloads come from strangers; a terminal obeys
    control characters.
    """
    flat = " ".join(str(value).split())
    line = "".join(c if c.isprintable() else "?" for c in flat)
    return line if len(line) <= LONGEST else line[: LONGEST - 4] + " ..."


class Repeats(logging.Filter):
    """Lets a warning through once a minute, then says how often it came in between, and no more
    than MOST warnings a minute.

    Other lines always pass: there is one for each image that was inspected.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}
        self._passed: deque[float] = deque(maxlen=MOST)  # when the last warnings passed
        self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is told now."""
        if record.levelno < logging.WARNING:
            return True
        line, now = record.getMessage(), self._clock()
        last_told, left_out = self._told.get(line, (-QUIET_S, 0))
        if now - last_told < QUIET_S:
            self._told[line] = (last_told, left_out + 1)
            return False
        if len(self._passed) == MOST and now - self._passed[0] < QUIET_S:
            self._held_back += 1
            return False
        self._passed.append(now)
        if len(self._told) >= KEPT:
            self._told.clear()
        self._told[line] = (now, 0)
        if left_out:
            line += f" (and {counted(left_out, 'time')} more since it was last said)"
        if self._held_back:
            held_back = counted(self._held_back, "other warning")
            line += f" (and {held_back}, more than {MOST} in a minute)"
            self._held_back = 0
        record.msg, record.args = line, ()
        return True
