"""Frames of a video or a camera, through OpenCV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image

from prunedge.edge.inspect.items import Item, Source, file_stamp, printable
from prunedge.errors import DataError, ExtraMissing
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on

PATIENCE_MS = 10_000  # for a network camera to answer


def open_video(path: Path, every: float, most: int | None) -> Source:
    """A frame of a video every so many seconds. Raises DataError when it can't be read."""
    require_regular(path, DataError)
    if not path.is_file():
        raise DataError("no such video", where=path, remedy="check the name")
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise DataError(
            "can't be read as a video",
            where=path,
            remedy="replace it, or convert it to H.264 in MP4",
        )
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    wanted = (
        int(count if every == 0 or rate <= 0 else (count - 1) / rate / every + 1)
        if count > 0
        else None
    )
    problems: list[tuple[str, str]] = []
    items = _video_frames(cv2, capture, path, every, problems)
    return Source(
        printable(path.name),
        _first(items, most),
        min(wanted, most) if wanted and most else wanted or most,
        problems,
    )


def open_camera(camera: int | str, title: str, name: str, every: float, most: int | None) -> Source:
    """A frame of a camera (its number or address) every so many seconds, until `most`. Raises
    DataError when it doesn't open.
    """
    cv2 = _opencv()
    if isinstance(camera, int):
        capture = cv2.VideoCapture(camera)
    else:
        capture = cv2.VideoCapture(
            camera,
            cv2.CAP_FFMPEG,
            [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                PATIENCE_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                PATIENCE_MS,
            ],
        )
    if not capture.isOpened():
        raise DataError(
            "the camera can't be opened",
            where=title,
            remedy="is it plugged in, switched on and not in use by another program?",
        )
    problems: list[tuple[str, str]] = []
    return Source(
        title,
        _first(_camera_frames(capture, title, name, every, problems), most),
        most,
        problems,
        is_live=True,
    )


def _opencv() -> Any:
    # Read when OpenCV is loaded: what it writes to stderr would stand between our lines.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "videos and cameras need OpenCV, which is not installed",
            remedy="pip install 'prunedge[video]'",
        ) from None
    return cv2


def _first(items: Iterator[Item], most: int | None) -> Iterator[Item]:
    # Not itertools.islice: it would leave the camera open.
    for number, item in enumerate(items, 1):
        yield item
        if number == most:
            items.close()  # type: ignore[attr-defined]
            return


def _video_frames(
    cv2: Any, capture: Any, path: Path, every: float, problems: list[tuple[str, str]]
) -> Iterator[Item]:
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    name, stamp, number, turn = printable(path.name), file_stamp(path), 0, 0
    try:
        while capture.grab():
            position = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            seconds = position if position > 0 or rate <= 0 else number / rate
            number += 1
            if seconds + 1e-6 < turn * every:
                continue
            has_frame, pixels = capture.retrieve()
            if not has_frame:
                problems.append((f"{name}@{_clock(seconds)}", "the frame can't be decoded"))
                continue
            turn = int((seconds + 1e-6) / every) + 1 if every else 0
            yield Item(
                f"{name}@{_clock(seconds)}", _image(pixels), stamp, {"time_s": round(seconds, 3)}
            )
    finally:
        capture.release()
    if number < 0.9 * count:
        problems.append((name, f"ends after {number} of {count:.0f} frames: it seems cut off"))


def _camera_frames(
    capture: Any, title: str, name: str, every: float, problems: list[tuple[str, str]]
) -> Iterator[Item]:
    due = monotonic()
    try:
        # Every frame is taken from the camera, so that the one that is looked at is never an old
        # one from its buffer.
        while capture.grab():
            if monotonic() < due:
                continue
            due = max(due + every, monotonic())
            has_frame, pixels = capture.retrieve()
            if not has_frame:
                continue
            taken = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            yield Item(
                f"{name}@{re.sub('[:T]', '-', taken)}", _image(pixels), taken, {"taken": taken}
            )
    finally:
        capture.release()
    problems.append((title, "the camera stopped sending images"))


def _image(pixels: Any) -> Image.Image:
    return Image.fromarray(pixels if pixels.ndim == 2 else pixels[..., ::-1].copy())


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1e3)
    seconds = milliseconds // 1000
    hours = seconds // 3600
    minutes = seconds // 60 % 60
    return f"{hours:02d}-{minutes:02d}-{seconds % 60:02d}.{milliseconds % 1000:03d}"
