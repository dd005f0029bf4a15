"""Images that arrive in a folder: taken up when nobody writes to them any more."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time

from prunedge.edge.agent.database import Stamp
from prunedge.edge.folders import DEEPEST, walk
from prunedge.edge.image.photograph import PHOTO_SUFFIXES
from prunedge.edge.inspect.items import shown_path
from prunedge.edge.logs import log, one_line
from prunedge.errors import DataError


@dataclass(frozen=True)
class Arrival:
    """An image that is there: where it lies, and what tells it from others. Its name is its path
    below the folder.
    """

    path: Path
    stamp: Stamp


class Folder:
    """A folder, with all folders below it. Hidden files and what is no regular file are left alone;
    nothing is ever written there.

    Folders too deep to be meant (`prunedge.edge.folders`) are told once.

    A file is ready when it holds something and has not changed for `settle` seconds.
    """

    def __init__(self, root: Path, settle: float) -> None:
        self.root, self.settle = root, settle
        self._done: dict[str, Stamp] = {}
        self._noticed: dict[str, tuple[Stamp, float]] = {}
        self._is_told = False  # that folders are too deep
        if not root.is_dir():
            raise DataError(
                "there is no folder to watch",
                where=root,
                remedy="make it, or name another by --watch",
            )

    def arrivals(self) -> tuple[list[Arrival], int]:
        """The images that are ready, oldest first, and how many will be ready soon (an empty file
        never is).

        Raises DataError when the folder is gone.
        """
        try:
            arrivals = {arrival.stamp.name: arrival for arrival in self._images()}
        except OSError as error:
            raise DataError(
                f"the watched folder can't be read ({error.strerror})",
                where=self.root,
                remedy="is it mounted?",
            ) from None
        self._done = {name: stamp for name, stamp in self._done.items() if name in arrivals}
        new = [
            arrival for name, arrival in arrivals.items() if self._done.get(name) != arrival.stamp
        ]
        self._noticed = {arrival.stamp.name: self._when(arrival.stamp) for arrival in new}
        settled = [arrival for arrival in new if self._is_settled(arrival.stamp)]
        ready = [arrival for arrival in settled if arrival.stamp.size > 0]
        return sorted(ready, key=lambda arrival: (arrival.stamp.mtime_ns, arrival.stamp.name)), len(
            new
        ) - len(settled)

    def done(self, arrival: Arrival) -> None:
        """The image was worked off, and is not offered again until it changes."""
        self._done[arrival.stamp.name] = arrival.stamp

    def _images(self) -> Iterator[Arrival]:
        for level in walk(self.root, failed=self._unreadable, too_deep=self._too_deep):
            for name in filter(_is_image, level.files):
                path = Path(level.path, name)
                stamp = stamp_of(path, shown_path(level.prefix + name))
                if stamp is not None:
                    yield Arrival(path, stamp)

    def _unreadable(self, path: str, error: OSError) -> None:
        log.warning(
            "a folder can't be read (%s): %s",
            error.strerror,
            one_line(os.path.relpath(path, self.root)),
        )

    def _too_deep(self, path: str) -> None:
        if not self._is_told:
            log.warning(
                "folders more than %d levels down are left alone: %s",
                DEEPEST,
                one_line(os.path.relpath(path, self.root)),
            )
        self._is_told = True

    def _when(self, stamp: Stamp) -> tuple[Stamp, float]:
        known = self._noticed.get(stamp.name)
        return known if known is not None and known[0] == stamp else (stamp, monotonic())

    def _is_settled(self, stamp: Stamp) -> bool:
        # Both clocks: what was there long before the agent started need not be waited for, and a
        # file's own time may lie ahead of ours.
        age = time() - stamp.mtime_ns / 1e9
        return age >= self.settle or monotonic() - self._noticed[stamp.name][1] >= self.settle


def stamp_of(path: Path, name: str) -> Stamp | None:
    """The stamp of a file, None when it is gone or no regular file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (
        Stamp(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if stat.S_ISREG(status.st_mode)
        else None
    )


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in PHOTO_SUFFIXES
