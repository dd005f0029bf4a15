"""What can be inspected: a photograph, a folder of them, a video, a camera."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from prunedge.edge.folders import DEEPEST, walk
from prunedge.edge.image.photograph import PHOTO_SUFFIXES
from prunedge.edge.inspect.items import Item, Source, file_stamp, printable, shown_path
from prunedge.edge.inspect.video import open_camera, open_video
from prunedge.errors import DataError, MachineError
from prunedge.utils.files import real_path
from prunedge.utils.wording import counted

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv"})
MARK = "inspection.json"  # a folder that holds it is what an inspection left behind
COMPARISON = "comparison.json"  # and it, what comparing two of them did


def open_source(
    text: str, *, out: Path | None = None, every: float | None = None, frames: int | None = None
) -> Source:
    """The source that a user named. `every` (seconds) and `frames` (at most so many) are for videos
    and cameras.

    Results that lie inside the folder are no images to inspect. Raises DataError when there is
    nothing, ExtraMissing without OpenCV.
    """
    if (camera := _camera(text)) is not None or Path(text).suffix.lower() in VIDEO_SUFFIXES:
        seconds = 1.0 if every is None else every
        if not 0 <= seconds < float("inf") or (frames is not None and frames < 1):
            raise DataError(
                "--every must be at least 0 seconds, --frames at least 1",
                remedy="mend these values",
            )
        return (
            open_camera(*camera, seconds, frames)
            if camera is not None
            else open_video(Path(text), seconds, frames)
        )
    if every is not None or frames is not None:
        raise DataError(
            "--every and --frames are for videos and cameras", where=text, remedy="leave them out"
        )
    path = Path(text)
    if not path.exists():
        raise DataError(
            "no such image, folder, video or camera",
            where=text,
            remedy="check the name; a camera is camera:0",
        )
    return (
        _folder(path, out)
        if path.is_dir()
        else Source(printable(path.name), [_item(path, path.name)], 1, place=path)
    )


def are_files(text: str) -> bool:
    """Whether a source's images are files, and not a video's or a camera's frames."""
    if _camera(text) is not None:
        return False
    return Path(text).suffix.lower() not in VIDEO_SUFFIXES


def _camera(text: str) -> tuple[int | str, str, str] | None:
    """What OpenCV opens, a title without passwords and a name for files; None when the text names
    no camera.
    """
    if match := re.fullmatch(r"camera:(\d+)|/dev/video(\d+)", text):
        number = int(match[1] or match[2])
        return number, f"camera {number}", f"camera-{number}"
    if re.match(r"(rtsps?|https?)://", text):
        parts = urlsplit(text)
        place = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        return (
            text,
            printable(f"{parts.scheme}://{place}"),
            printable(re.sub(r"[^\w.]+", "-", place).strip("-")),
        )
    return None


def _folder(folder: Path, out: Path | None) -> Source:
    items, problems, videos = [], [], 0
    deep: list[str] = []

    def failed(path: str, error: OSError) -> None:
        problems.append(
            (shown_path(os.path.relpath(path, folder)), f"can't be opened: {error.strerror}")
        )

    def too_deep(path: str) -> None:
        deep.append(path)

    try:
        for level in walk(
            folder,
            enters=lambda path: not _is_result(Path(path), out),
            failed=failed,
            too_deep=too_deep,
        ):
            for name in level.files:
                suffix = Path(name).suffix.lower()
                videos += suffix in VIDEO_SUFFIXES
                if suffix in PHOTO_SUFFIXES and not name.startswith("."):
                    items.append(_item(Path(level.path, name), level.prefix + name))
    except OSError as error:
        raise MachineError(
            f"the folder can't be read ({error.strerror})", where=folder, remedy="mend that"
        ) from None
    if deep:
        problems.append(
            (
                shown_path(os.path.relpath(deep[0], folder)),
                f"folders more than {DEEPEST} levels down are left out",
            )
        )
    if videos:
        problems.append(
            (
                counted(videos, "video"),
                "a folder is searched for photographs only; name a video itself",
            )
        )
    if not items:
        raise DataError(
            "no images to inspect",
            where=folder,
            remedy=f"name a folder with images ({', '.join(sorted(PHOTO_SUFFIXES))})",
        )
    title = printable(real_path(folder).name)
    return Source(title, items, len(items), problems, place=folder)


def _is_result(folder: Path, out: Path | None) -> bool:
    # Not pathlib's `exists`, which raises an error where a path is too long.
    has_mark = os.path.exists(folder / MARK) or os.path.exists(folder / COMPARISON)
    return has_mark or (out is not None and real_path(folder) == real_path(out))


def _item(path: Path, name: str) -> Item:
    return Item(shown_path(name), path, file_stamp(path))
