"""What can be inspected: a photograph, a folder of them, a video, a camera."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from prunedge.edge.inspect.photo import PHOTO_SUFFIXES
from prunedge.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})
MARK = "inspection.json"  # a folder that holds it is what an inspection left behind
LONGEST_NAME = 200  # bytes; file systems allow 255, and the results' names are longer


@dataclass(frozen=True)
class Item:
    """One picture to inspect. `name` is unique and printable; `stamp` changes when the picture does; `about` is noted with its results."""

    name: str
    picture: Path | Image.Image
    stamp: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Pictures to inspect, one after the other.

    `total` is how many, as far as that is known; `problems` are names and reasons of what can't be inspected, and grow while the items
    come; `is_live`: it only ends when it is interrupted.
    """

    title: str
    items: Iterable[Item]
    total: int | None
    problems: list[tuple[str, str]] = field(default_factory=list)
    is_live: bool = False


def open_source(text: str, *, out: Path | None = None, every: float | None = None, frames: int | None = None) -> Source:
    """The source that a user named. `every` (seconds) and `frames` (at most so many) are for videos and cameras.

    Results that lie inside the folder are no pictures to inspect. Raises DataError when there is nothing, ExtraMissing without OpenCV.
    """
    if (camera := _camera(text)) is not None or Path(text).suffix.lower() in VIDEO_SUFFIXES:
        from prunedge.edge.inspect.video import open_camera, open_video

        seconds = 1.0 if every is None else every
        if not 0 <= seconds < float("inf") or (frames is not None and frames < 1):
            raise DataError("--every must be at least 0 seconds, --frames at least 1", remedy="mend these values")
        return open_camera(*camera, seconds, frames) if camera is not None else open_video(Path(text), seconds, frames)
    if every is not None or frames is not None:
        raise DataError("--every and --frames are for videos and cameras", where=text, remedy="leave them out")
    path = Path(text)
    if not path.exists():
        raise DataError("no such picture, folder, video or camera", where=text, remedy="check the name; a camera is camera:0")
    return _folder(path, out) if path.is_dir() else Source(printable(path.name), [_item(path, path.name)], 1)


def printable(name: str) -> str:
    """A name that can be printed, written into any file and used for one: no line breaks, no bytes that are no text, not too long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    if len(shown.encode()) <= LONGEST_NAME:
        return shown
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{shown.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}~{digest}"


def file_stamp(path: Path) -> str:
    """What tells one state of a file from another, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _camera(text: str) -> tuple[int | str, str, str] | None:
    """What OpenCV opens, a title without passwords and a name for files; None when the text names no camera."""
    if match := re.fullmatch(r"camera:(\d+)|/dev/video(\d+)", text):
        number = int(match[1] or match[2])
        return number, f"camera {number}", f"camera-{number}"
    if re.match(r"(rtsps?|https?)://", text):
        parts = urlsplit(text)
        place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        return text, printable(f"{parts.scheme}://{place}"), printable(re.sub(r"[^\w.]+", "-", place).strip("-"))
    return None


def _folder(folder: Path, out: Path | None) -> Source:
    items, problems, videos = [], [], 0

    def failed(error: OSError) -> None:
        problems.append((printable(Path(str(error.filename)).name), f"can't be opened: {error.strerror}"))

    for place, folders, files in os.walk(folder, onerror=failed):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_result(here / name, out))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            videos += suffix in VIDEO_SUFFIXES
            if suffix in PHOTO_SUFFIXES and not name.startswith("."):
                items.append(_item(here / name, (here / name).relative_to(folder).as_posix()))
    if videos:
        problems.append((f"{videos} video(s)", "a folder is searched for photographs only; name a video itself"))
    if not items:
        raise DataError("no pictures to inspect", where=folder, remedy=f"name a folder with pictures ({', '.join(sorted(PHOTO_SUFFIXES))})")
    return Source(printable(folder.resolve().name), items, len(items), problems)


def _is_result(folder: Path, out: Path | None) -> bool:
    return (folder / MARK).exists() or (out is not None and folder.resolve() == out.resolve())


def _item(path: Path, name: str) -> Item:
    return Item("/".join(printable(part) for part in name.split("/")), path, file_stamp(path))
