"""Files that are read: regular ones alone, and files of a key or a password."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from prunedge.errors import PrunedgeError

LARGEST_SECRET = 65_536  # bytes

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def irregular_kind(file: Path | str) -> str | None:
    """What lies at a path that is no regular file: `a named pipe`.

    None for a regular file, and where nothing lies there.
    """
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        return None  # opening it raises the same, and its caller reports that
    if stat.S_ISREG(mode):
        return None
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def require_regular(file: Path | str, kind: type[PrunedgeError] = PrunedgeError) -> None:
    """Raise an error of this kind where a path that is to be read is no regular file.

    A pipe would be waited for without end, and a device may never end. What is missing, or can't be
    looked at, passes: opening it raises.
    """
    irregular = irregular_kind(file)
    if irregular is not None:
        raise kind(
            f"this is {irregular}, not a file",
            where=file,
            remedy="put a regular file in its place, or name another",
        )


def read_bytes(file: Path, kind: type[PrunedgeError] = PrunedgeError) -> bytes:
    """What a regular file holds.

    An error of this kind for anything else that lies there, OSError where it can't be read.
    """
    require_regular(file, kind)
    return file.read_bytes()


def read_text(file: Path, kind: type[PrunedgeError] = PrunedgeError) -> str:
    """The same of a text in UTF-8."""
    require_regular(file, kind)
    return file.read_text(encoding="utf-8")


def read_secret(file: Path) -> bytes:
    """What a file of a key or a password holds.

    It may be a pipe: `<(pass show broker)`. PrunedgeError where it is longer than any such file.
    """
    with file.open("rb") as opened:
        content = opened.read(LARGEST_SECRET + 1)
    if len(content) > LARGEST_SECRET:
        raise PrunedgeError(
            f"more than {LARGEST_SECRET:,} bytes are no key and no password",
            where=file,
            remedy="name the file that holds it",
        )
    return content
