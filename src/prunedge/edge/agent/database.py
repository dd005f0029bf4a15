"""What the agent must not forget, in one SQLite file: images it has worked off, messages that
wait, small notes.

An image is marked as worked off and its message put into the outbox in one transaction, and the
file is synchronised with the disk before the transaction ends: after a kill or a power cut both are
there, or neither. A message leaves the outbox when the broker has acknowledged it. So each image
has one message, and a message that is sent again after a crash is the same, with the same id.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from prunedge.edge.agent.messages import Message
from prunedge.errors import AgentError
from prunedge.utils.files import make_folder, require_regular
from prunedge.utils.sanitize import shown
from prunedge.utils.systems import lock

FILE = "agent.sqlite"
VERSION = 2
# What an agent keeps in its folder, and what the system may have put there.
OWN = {FILE, "lock", "bundles", "frames", "inspecting.json", "lost+found"}
SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    name TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, PRIMARY KEY (name, sha256)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, topic TEXT NOT NULL,
    payload TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refused (key TEXT PRIMARY KEY);
"""


@dataclass(frozen=True)
class Stamp:
    """What tells a file from another without reading it: its name, its size in bytes, when it was
    last written, and when it was changed.

    Who copies a file may set the time of its writing; the time of its change is the system's own.
    """

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int = 0


@dataclass(frozen=True)
class Waiting:
    """A message in the outbox, and its place in the order."""

    place: int
    message: Message


class Store:
    """The agent's memory in a folder that one agent at a time may use. Safe to use from several
    threads.

    Every method raises AgentError when the disk is full or the file can't be read or written;
    nothing is half done then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / FILE
        _refuse_foreign(folder)
        self._lock = RLock()
        try:
            make_folder(folder)
            for file in (folder / "lock", self.file):
                require_regular(file, AgentError)
            self._owner = (folder / "lock").open("w")
            lock(self._owner)
        except BlockingIOError:
            raise AgentError(
                "another agent uses this folder",
                where=folder,
                remedy="give each a folder of its own by --state",
            ) from None
        except OSError as error:
            raise AgentError(
                f"can't be used for the queue ({error.strerror})",
                where=folder,
                remedy="name another --state",
            ) from None
        with self._told():
            self._base = sqlite3.connect(
                self.file, isolation_level=None, check_same_thread=False, timeout=30
            )
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                what = f"the queue is of format {version}; this prunedge reads format {VERSION}"
                raise AgentError(
                    what,
                    where=self.file,
                    remedy="run the agent of the version that wrote it, or name another --state",
                )
            self._base.executescript(SCHEMA)
            self._base.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Give the folder back."""
        with self._lock:
            self._base.close()
            self._owner.close()

    def knows(self, stamp: Stamp) -> bool:
        """Whether this very file was worked off."""
        query = "SELECT 1 FROM seen WHERE name = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ?"
        return bool(self._rows(query, stamp.name, stamp.size, stamp.mtime_ns, stamp.ctime_ns))

    def knows_content(self, stamp: Stamp, sha256: str) -> bool:
        """Whether an image of this name and content was worked off; its new stamp is noted
        then.
        """
        if not self._rows("SELECT 1 FROM seen WHERE name = ? AND sha256 = ?", stamp.name, sha256):
            return False
        with self._transaction() as base:
            base.execute(
                (
                    "UPDATE seen SET size = ?, mtime_ns = ?, ctime_ns = ? WHERE name = ? AND "
                    "sha256 = ?"
                ),
                (stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.name, sha256),
            )
        return True

    def record(self, stamp: Stamp, sha256: str, message: Message, counted: Iterable[str]) -> None:
        """Mark an image as worked off, enqueue its message and raise the counts by one each: all
        of it, or nothing.
        """
        with self._transaction() as base:
            row = (stamp.name, sha256, stamp.size, stamp.mtime_ns, stamp.ctime_ns)
            base.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", row)
            self._put(base, message)
            for name in counted:
                base.execute(
                    "INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET value = value + 1",
                    (name,),
                )

    def enqueue(self, message: Message) -> None:
        """Put a message into the outbox, unless it waits there already."""
        with self._transaction() as base:
            self._put(base, message)

    def oldest(self, count: int, without: Iterable[int] = ()) -> list[Waiting]:
        """Up to `count` messages that wait, oldest first, without those at the places named."""
        left_out = set(without)
        rows = self._rows(
            "SELECT place, id, topic, payload FROM outbox ORDER BY place LIMIT ?",
            count + len(left_out),
        )
        return [
            Waiting(place, Message(*message)) for place, *message in rows if place not in left_out
        ][:count]

    def delivered(self, places: Iterable[int]) -> None:
        """Forget messages that the broker has."""
        with self._transaction() as base:
            base.executemany("DELETE FROM outbox WHERE place = ?", [(place,) for place in places])

    def waiting(self) -> int:
        """How many messages wait."""
        return self._rows("SELECT count(*) FROM outbox")[0][0]

    def counts(self) -> dict[str, int]:
        """All counts since the folder was made."""
        return dict(self._rows("SELECT name, value FROM counts"))

    def note(self, key: str) -> str | None:
        """A note, or None."""
        rows = self._rows("SELECT value FROM notes WHERE key = ?", key)
        return rows[0][0] if rows else None

    def write_notes(self, **notes: str | None) -> None:
        """Write notes, all of them or none; None takes one away."""
        with self._transaction() as base:
            for key, value in notes.items():
                if value is None:
                    base.execute("DELETE FROM notes WHERE key = ?", (key,))
                else:
                    base.execute(
                        (
                            "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET value = "
                            "excluded.value"
                        ),
                        (key, value),
                    )

    def refuse(self, key: str, message: Message | None = None) -> None:
        """Remember for good that an announcement or a bundle, by its SHA-256, was refused;
        `message` says why.
        """
        with self._transaction() as base:
            base.execute("INSERT OR IGNORE INTO refused VALUES (?)", (key,))
            if message is not None:
                self._put(base, message)

    def is_refused(self, key: str) -> bool:
        """Whether an announcement or a bundle was refused before."""
        return bool(self._rows("SELECT 1 FROM refused WHERE key = ?", key))

    @staticmethod
    def _put(base: sqlite3.Connection, message: Message) -> None:
        base.execute(
            "INSERT OR IGNORE INTO outbox (id, topic, payload) VALUES (?, ?, ?)",
            (message.id, message.topic, message.payload),
        )

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._told():
            return self._base.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield self._base
                self._base.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back when the disk is full.
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = (
                "make room on the disk"
                if "full" in str(error)
                else "is the disk sound and may the agent write there?"
            )
            raise AgentError(
                f"the queue can't be used ({error})", where=self.file, remedy=remedy
            ) from None


def _refuse_foreign(folder: Path) -> None:
    """AgentError for a folder that no agent has used yet and that holds something else: a run, a
    bundle, images.
    """
    if (folder / FILE).exists():
        return
    names: list[str] = []
    with suppress(OSError):  # it is not there yet, or whoever makes it says what is wrong
        names = sorted(
            name for name in os.listdir(folder) if name not in OWN and not name.startswith(".")
        )
    if names:
        what = f"the folder holds something that is not the agent's own ({shown(names[0])})"
        remedy = "name a folder by --state that is empty or not there yet"
        raise AgentError(what, where=folder, remedy=remedy)
