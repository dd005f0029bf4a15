"""Images that can't be worked off now, and images that the agent dies over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from prunedge.edge.agent.watch import Arrival
from prunedge.errors import AgentError, DataError
from prunedge.utils.backoff import Backoff
from prunedge.utils.files import read_text

DEATHS = 3  # of the agent over one image, until the image is given up
LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True)
class _Trouble:
    arrival: Arrival
    tries: int
    until: float


class RetryQueue:
    """Images that failed for a reason that is not theirs: each is tried again, after longer and
    longer pauses.
    """

    def __init__(self, first_pause: float) -> None:
        self._pauses = Backoff(first_pause, LONGEST_PAUSE_S)
        self._known: dict[str, _Trouble] = {}

    def __len__(self) -> int:
        return len(self._known)

    def is_due(self, arrival: Arrival) -> bool:
        """Whether an image may be tried: it never failed, has changed since, or its pause is
        over.
        """
        known = self._known.get(arrival.stamp.name)
        return known is None or known.arrival != arrival or monotonic() >= known.until

    def add(self, arrival: Arrival) -> int:
        """It failed; returns how often by now."""
        known = self._known.get(arrival.stamp.name)
        tries = known.tries + 1 if known is not None and known.arrival == arrival else 1
        pause = self._pauses.pause(tries)
        self._known[arrival.stamp.name] = _Trouble(arrival, tries, monotonic() + pause)
        return tries

    def forget(self, name: str) -> None:
        """It went well, or is to be tried at once."""
        self._known.pop(name, None)


class CrashGuard:
    """A note on the disk of the image that is being inspected: who finds it at the start knows
    what the agent died over.

    A kill or a power cut is no fault of the image's, so it takes DEATHS of them in a row to give
    it up.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        # Of the one that the last process died over.
        self._name = ""
        self._sha256 = ""
        self._deaths = 0
        self._accused = ("", "")
        try:
            note = json.loads(read_text(file, AgentError))
            name = str(note["name"])
            sha256 = str(note["sha256"])
            deaths = int(note["deaths"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return  # none, or one that the death itself cut short
        self._name = name
        self._sha256 = sha256
        self._deaths = deaths

    def accuse(self, name: str, sha256: str) -> None:
        """An image is about to be inspected; DataError when the agent died too often over it."""
        self._accused = (name, sha256)
        deaths = self._deaths if self._accused == (self._name, self._sha256) else 0
        if deaths >= DEATHS:
            raise DataError(
                f"the agent died {deaths} times in a row over this image",
                where=name,
                remedy="send it to the makers of prunedge",
            )
        self._file.write_text(
            json.dumps({"name": name, "sha256": sha256, "deaths": deaths + 1}), encoding="utf-8"
        )

    def acquit(self) -> None:
        """The image was inspected, and the agent lives."""
        self._file.unlink(missing_ok=True)
        if self._accused == (self._name, self._sha256):
            self._deaths = 0

    def forget(self) -> None:
        """It was not the image."""
        self._file.unlink(missing_ok=True)
        self._deaths = 0
