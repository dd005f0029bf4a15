"""A camera, or a video, as a folder of images: each frame is a file first, so that a kill or a
power cut loses none that was taken.
"""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from PIL import Image

from prunedge.edge.agent.watch import Arrival, Folder
from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.sources import open_source
from prunedge.edge.logs import log, one_line
from prunedge.errors import DataError, PrunedgeError
from prunedge.utils.files import clear_leftovers, make_folder, written
from prunedge.utils.machine import machine_error, require_memory

KEPT = 4  # frames that were worked off and stay, for the self-test of a new bundle
MOST = 200  # frames that wait to be inspected
AGAIN_S = 10.0  # until a camera that failed is opened again


class Frames:
    """Takes a frame every `every` seconds into a folder of its own, in a thread; a frame leaves it
    some frames after it was worked off.

    When MOST frames wait, a video waits too; a camera's next frames are left out, which is told.
    `once`: one frame of a camera.
    """

    def __init__(self, source: str, folder: Path, every: float, once: bool) -> None:
        self._source, self._folder, self._every, self._once = source, folder, every, once
        make_folder(folder)
        clear_leftovers(folder)
        self._frames = Folder(folder, settle=0.0)
        self._worked_off: list[Path] = []
        self._problem: PrunedgeError | None = None
        self._stop = Event()
        self._thread = Thread(target=self._run, name="frames", daemon=True)

    def start(self) -> None:
        """Begin to take frames."""
        require_memory(1)
        self._thread.start()

    def stop(self) -> None:
        """Take no more frames."""
        self._stop.set()

    def arrivals(self) -> tuple[list[Arrival], int]:
        """The frames that wait, oldest first, and whether more will come. Raises what went wrong
        with the camera, once.
        """
        is_running = self._thread.is_alive()
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        return self._frames.arrivals()[0], int(is_running)

    def done(self, arrival: Arrival) -> None:
        """The frame was worked off."""
        self._frames.done(arrival)
        self._worked_off.append(arrival.path)
        while len(self._worked_off) > KEPT:
            self._worked_off.pop(0).unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                source = open_source(
                    self._source,
                    every=self._every,
                    frames=1 if self._once and is_camera(self._source) else None,
                )
                for item in source.items:
                    self._keep(item, source.is_live)
                    if self._stop.is_set():
                        return
                for name, reason in source.problems:
                    log.warning("%s: %s", one_line(name), one_line(reason))
                if self._once or not source.is_live:
                    return
            except PrunedgeError as error:
                self._problem = error
            except (
                Exception
            ) as error:  # of a full disk, or of OpenCV, which raises kinds of its own
                self._problem = machine_error(error, where=self._folder) or DataError(
                    f"the camera's frame can't be taken ({type(error).__name__}: {error})",
                    remedy="is the camera sound?",
                )
            if self._once:
                return
            self._stop.wait(AGAIN_S)

    def _keep(self, item: Item, is_live: bool) -> None:
        while sum(1 for _ in self._folder.glob("[!.]*.png")) >= MOST + KEPT:
            if is_live:
                log.warning(
                    "the camera is faster than the inspection, frames are left out: raise --every"
                )
                return
            if self._stop.wait(0.2):
                return
        assert isinstance(item.image, Image.Image)
        with written(self._folder / f"{item.name}.png") as writing:
            item.image.save(writing, "PNG", compress_level=1)


def is_camera(text: str) -> bool:
    """Whether this names a camera, by its number, device or address."""
    return text.startswith(("camera:", "/dev/video")) or "://" in text
