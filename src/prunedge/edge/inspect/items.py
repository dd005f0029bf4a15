"""What is inspected, one after the other: images with names that can be printed, and the source
that they come from.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

# bytes of a path below a folder; systems allow 4,096, with the folder of the results before it
LONGEST_PATH = 2000
LONGEST_NAME = 200  # bytes; file systems allow 255, and the results' names are longer


@dataclass(frozen=True)
class Item:
    """One image to inspect. `name` is unique and printable; `stamp` changes when the image
    does; `about` is noted with its results.
    """

    name: str
    image: Path | Image.Image
    stamp: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Images to inspect, one after the other.

    `total` is how many, as far as that is known; `problems` are names and reasons of what can't be
    inspected, and grow while the items come; `is_live`: it only ends when it is interrupted.
    `place` is the photograph, or the folder of them; None where nothing is left to look at again.
    """

    title: str
    items: Iterable[Item]
    total: int | None
    problems: list[tuple[str, str]] = field(default_factory=list)
    is_live: bool = False
    place: Path | None = None


def printable(name: str) -> str:
    """A name that can be printed, written into any file and used for one: no line breaks, no bytes
    that are no text, not too long.

    Two different names never give the same, nor two that look the same: what can't be printed is
    written as Python writes it (`\\x1b`), a backslash twice, and a name that Unicode's composition
    (NFC) would change, as the ü of some systems (u and two dots), without letters beyond ASCII.
    """
    is_composed = unicodedata.is_normalized("NFC", name)
    shown = "".join(
        c if c != "\\" and c.isprintable() and (is_composed or c.isascii()) else _escaped(c)
        for c in name
    )
    return _shortened(shown, LONGEST_NAME, name)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _shortened(shown: str, longest: int, name: str) -> str:
    """At most so many bytes, with a digest of the whole name for what is cut off. No whole name
    ends so: a backslash is never alone.
    """
    if len(shown.encode()) <= longest:
        return shown
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f"{shown.encode()[: longest - 18].decode(errors='ignore')}\\~{digest}"


def shown_path(path: str) -> str:
    """A path below a folder, each of its names `printable`."""
    shown = "/".join(printable(part) for part in path.replace(os.sep, "/").split("/"))
    return _shortened(shown, LONGEST_PATH, path)


def file_stamp(path: Path) -> str:
    """What tells one state of a file from another, without reading it: who copies may set the
    second time, but nobody the third.
    """
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
