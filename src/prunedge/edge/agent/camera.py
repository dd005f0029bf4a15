"""A camera as a folder of pictures: each frame is a file first, so that a kill or a power cut between frame and message loses nothing."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image

from prunedge.edge.agent.watch import Arrival, Folder
from prunedge.errors import DataError, ExtraMissing

KEPT = 4  # frames that were worked off and stay, for the self-test of a new bundle


class Camera:
    """Takes a frame every `every` seconds into a folder of its own; a frame leaves it some frames after it was worked off.

    `source` is a camera's number, a device, a file or an address that OpenCV opens.
    """

    def __init__(self, source: str, folder: Path, every: float) -> None:
        self._source, self._folder, self._every = source, folder, every
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.png"):
            left.unlink()
        self._frames, self._worked_off = Folder(folder, settle=0.0), []  # type: tuple[Folder, list[Path]]
        self._camera: Any = None
        self._due = 0.0

    def arrivals(self) -> tuple[list[Arrival], int]:
        """The frames that are there, with a new one when its time has come. DataError when the camera gives none."""
        waiting, _ = self._frames.arrivals()
        if waiting or monotonic() < self._due:
            return waiting, 0
        self._due = monotonic() + self._every
        self._take()
        return self._frames.arrivals()

    def done(self, arrival: Arrival) -> None:
        """The frame was worked off."""
        self._frames.done(arrival)
        self._worked_off.append(arrival.path)
        while len(self._worked_off) > KEPT:
            self._worked_off.pop(0).unlink(missing_ok=True)

    def _take(self) -> None:
        if self._camera is None:
            self._camera = _open(self._source)
        is_good, frame = self._camera.read()
        if not is_good:
            self._camera.release()
            self._camera = None
            raise DataError("the camera gives no picture", where=f"camera:{self._source}", remedy="is it connected? It is tried again")
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ.png")
        writing = self._folder / f".{name}"
        with writing.open("wb") as opened:
            Image.fromarray(frame[..., ::-1].copy()).save(opened, "PNG", compress_level=1)
            opened.flush()
            os.fsync(opened.fileno())
        writing.rename(self._folder / name)


def _open(source: str) -> Any:
    try:
        import cv2
    except ModuleNotFoundError:
        raise ExtraMissing("a camera needs OpenCV, which is not installed", remedy="pip install 'prunedge[camera]'") from None
    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not camera.isOpened():
        raise DataError("the camera can't be opened", where=f"camera:{source}", remedy="is it there, and may the agent use it?")
    return camera
