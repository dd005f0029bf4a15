"""The loop: what arrives is inspected, marked and enqueued in one step, while an outbox delivers
and an updater tries new bundles.
"""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from prunedge import __version__
from prunedge.edge.agent.connection import require_paho
from prunedge.edge.agent.database import Store
from prunedge.edge.agent.frames import Frames, is_camera
from prunedge.edge.agent.messages import Message, Topics, failure, finding, status
from prunedge.edge.agent.outbox import Outbox
from prunedge.edge.agent.reports import Reports
from prunedge.edge.agent.retry import CrashGuard, RetryQueue
from prunedge.edge.agent.settings import AgentSettings
from prunedge.edge.agent.systemd import notify
from prunedge.edge.agent.watch import Arrival, Folder, stamp_of
from prunedge.edge.bundle import sha256
from prunedge.edge.inspect import inspect_image
from prunedge.edge.inspect.sources import VIDEO_SUFFIXES
from prunedge.edge.logs import log, one_line
from prunedge.edge.update.announcement import load_key
from prunedge.edge.update.slots import BundleSlots
from prunedge.edge.update.updater import AGAIN_S, Updater
from prunedge.errors import AgentError, DataError, MachineError, PrunedgeError
from prunedge.utils.machine import machine_trouble

FLUSH_S = 5.0  # for what still waits when the agent is told to end
ONCE_S = 30.0  # without progress, until `once` gives up on the broker
TICK_S = 0.5
TRIES = 3  # at an image, until the trouble is published
RECENT = 4  # images that a new bundle is tried on


class Agent:
    """Inspects what arrives and publishes it, until `stop` is set; with `once` until all that is
    there is done and delivered.

    Made, it holds its state folder, has a bundle loaded and has read every setting: PrunedgeErrors
    come from here. `run` goes on through bad images, a full disk, a lost broker and refused
    bundles.
    """

    def __init__(self, settings: AgentSettings, stop: Event | None = None) -> None:
        require_paho()
        self.settings, self.stop, self.topics = settings, stop or Event(), Topics(settings.topic)
        settings.broker.context()
        self._store = Store(settings.state)
        try:
            self._source = self._watched()
            self._slots = BundleSlots(
                settings.state / "bundles",
                self._store,
                settings.bundle,
                settings.threads,
                settings.runtime,
            )
            self._use = self._slots.start()
            settings.inspection.fitted(self._use.bundle.manifest)
            self._updater = self._make_updater() if settings.update.topic else None
        except BaseException:
            self._store.close()
            raise
        self._watching = (
            settings.watch.rpartition("@")[2] if "://" in settings.watch else settings.watch
        )  # without a password
        self._crash_guard = CrashGuard(settings.state / "inspecting.json")
        if self._slots.passed_over:
            self._crash_guard.forget()  # it was the bundle
        self._recent: deque[Path] = deque(maxlen=RECENT)
        self._retry_queue = RetryQueue(max(1.0, settings.every))
        self._reports = Reports(
            self._store,
            self.topics,
            settings.device,
            settings.update.topic,
            lambda: self.outbox.wake(),
        )
        # Two agents on one machine, with one device id and two topics, must not throw each other
        # out.
        client_id = (
            f"prunedge-{settings.device}-{hashlib.sha256(settings.topic.encode()).hexdigest()[:8]}"
        )
        self.outbox = Outbox(
            self._store,
            settings.broker,
            client_id,
            settings.device,
            self.topics.status,
            self.status,
            settings.update.topic,
            self._updater.announce if self._updater else lambda payload, is_retained: None,
            settings.backoff,
        )

    def run(self) -> None:
        """Work until told to stop. AgentError at the end of `once` when something could not be
        inspected or delivered.
        """
        use = self._use.bundle.manifest
        log.info(
            "bundle %s (%s; %s), watching %s",
            self._use.sha256[:12],
            use.model,
            ", ".join(use.task.classes),
            self._watching,
        )
        if warning := self._use.session.warning():
            log.warning("%s", warning)
        if self.settings.broker.tells_password():
            log.warning(
                (
                    "the password goes to %s in clear, for everybody on the way to read: write "
                    "mqtts://"
                ),
                self.settings.broker,
            )
        log.info("it is shown %s", self.settings.inspection.fitted(use).looked(use))
        for why in self._slots.passed_over:
            self._reports.publish("bundle", "an accepted bundle", why, key=why)
        if isinstance(self._source, Frames):
            self._source.start()
        self.outbox.start()
        if self._updater:
            self._updater.start()
        notify("READY=1")
        try:
            self._work()
        finally:
            notify("STOPPING=1")
            if isinstance(self._source, Frames):
                self._source.stop()
            if self._updater:
                self._updater.stop()
            self.outbox.stop(FLUSH_S)
            left = self._store.waiting()
            self._store.close()
            log.info(
                "ended; %s",
                f"{left} messages wait for the next start"
                if left
                else "all messages are delivered",
            )
        if self.settings.once and not self.stop.is_set():
            self._judge(left)

    def status(self) -> str:
        """What the agent tells of itself, as the payload of a status message."""
        use, counts = self._use, self._store.counts()
        return status(
            self.settings.device,
            "online",
            watching=self._watching,
            version=__version__,
            bundle={
                "sha256": use.sha256,
                "model": use.bundle.manifest.model,
                "classes": list(use.bundle.manifest.task.classes),
            },
            **{name: counts.get(name, 0) for name in ("images", "damaged", "failed")},
            queue=self._store.waiting(),
            last_error=self._reports.last,
        )

    def _work(self) -> None:
        while not self.stop.is_set():
            arrivals, coming = self._look()
            for arrival in arrivals:
                if not self._goes_on() or self._is_full():
                    break
                # On a full disk the next image would fare no better: wait, instead of going
                # through all of them again and again.
                if not self._work_off(arrival) and not self.settings.once:
                    break
            else:
                if self.settings.once and not coming:
                    self._deliver()
                    return
            self._pause(
                min(self.settings.every, TICK_S) if self.settings.once else self.settings.every
            )

    def _goes_on(self) -> bool:
        """Between two images: swap bundles, tell the watchdog; whether to go on."""
        notify("WATCHDOG=1")
        if not self.outbox.is_alive():
            raise AgentError(
                "the thread that talks to the broker died", remedy="start the agent again"
            )
        new = self._updater.ready() if self._updater else None
        if self._updater and new is not None:
            try:
                self._use = self._slots.accept(new)
                log.info(
                    "bundle %s (%s) is in use from now on",
                    new.sha256[:12],
                    new.bundle.manifest.model,
                )
            except (PrunedgeError, OSError) as error:
                self._reports.warn(error)
            self._updater.taken()
            self.outbox.status_changed()
        return not self.stop.is_set()

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while self._goes_on() and (left := until - monotonic()) > 0:
            self.stop.wait(min(left, TICK_S))

    def _look(self) -> tuple[list[Arrival], int]:
        try:
            return self._source.arrivals()
        except (PrunedgeError, OSError) as error:
            if self.settings.once:
                raise
            self._reports.warn(error)
            return [], 0

    def _is_full(self) -> bool:
        if self._store.waiting() < self.settings.queue_limit:
            return False
        self._reports.warn(
            AgentError(
                f"the queue is full ({self.settings.queue_limit:,} messages)",
                remedy="images wait until the broker is back",
            )
        )
        return True

    def _work_off(self, arrival: Arrival) -> bool:
        """Inspect one image, unless it was before; mark it and enqueue what was found. After
        trouble it is tried again later.

        False after trouble that the next image would meet as well: with the state folder, the
        queue.
        """
        if not self._retry_queue.is_due(arrival):
            return True
        try:
            if not self._store.knows(arrival.stamp):
                digest = _digest(arrival.path)
                if not self._store.knows_content(arrival.stamp, digest):
                    message, counted = self._inspect(arrival, digest)
                    if stamp_of(arrival.path, arrival.stamp.name) not in (arrival.stamp, None):
                        # written to while we looked: what was found may be of neither version
                        return True
                    self._store.record(arrival.stamp, digest, message, counted)
                    self.outbox.wake()
        except FileNotFoundError:
            return True  # moved away before it was looked at
        except Exception as error:  # of the disk, the network or a bug: never the end of the agent
            self._postpone(arrival, error)
            return not isinstance(error, AgentError | OSError)
        self._retry_queue.forget(arrival.stamp.name)
        self._source.done(arrival)
        return True

    def _inspect(self, arrival: Arrival, digest: str) -> tuple[Message, list[str]]:
        """The message about an image, and what it counts as."""
        name, use, device = arrival.stamp.name, self._use, self.settings.device
        try:
            self._crash_guard.accuse(name, digest)
            self._slots.begin()
            inspection = inspect_image(
                arrival.path, use.session, self.settings.inspection, name=name, progress=_beat
            )
        except DataError as error:
            # FileNotFoundError when it was moved away meanwhile, which is no fault of the image
            arrival.path.stat()
            self._reports.warn(error)
            return failure(self.topics, device, "image", name, error.what, f"{name}\0{digest}"), [
                "images",
                "failed",
            ]
        finally:
            self._crash_guard.acquit()
        self._slots.proved()
        self._recent.append(arrival.path)
        log.info(
            "%s: %d damaged regions, %.2f",
            one_line(name),
            len(inspection.regions),
            inspection.probability,
        )
        message = finding(self.topics, device, name, digest, use.sha256, inspection.to_json())
        return message, ["images", "damaged"] if inspection.regions else ["images"]

    def _postpone(self, arrival: Arrival, error: Exception) -> None:
        name = arrival.stamp.name
        trouble = (
            error
            if isinstance(error, PrunedgeError)
            else AgentError(
                f"{type(error).__name__}: {one_line(error)}",
                remedy="send this line to the makers of prunedge",
            )
        )
        self._reports.warn(
            AgentError(
                f"{trouble.what}, it is tried again", where=one_line(name), remedy=trouble.remedy
            )
        )
        if self._retry_queue.add(arrival) == TRIES:
            self._reports.publish("agent", name, trouble, key=f"{name} {arrival.stamp}")
        is_ours = isinstance(error, AgentError | MachineError | OSError)
        before = None if is_ours else self._slots.roll_back()
        if before is not None:
            log.warning("the new bundle fails on its first image, the one before it is used again")
            self._reports.publish("bundle", self._use.sha256, trouble, key=self._use.sha256)
            self._use = before
            self._retry_queue.forget(name)
            self.outbox.status_changed()

    def _deliver(self) -> None:
        """Wait until the queue is empty, or nothing has left it for a while."""
        left, since = self._store.waiting(), monotonic()
        while left and monotonic() - since < ONCE_S and self._goes_on():
            self.stop.wait(0.05)
            if (less := self._store.waiting()) < left:
                left, since = less, monotonic()

    def _judge(self, left: int) -> None:
        if left:
            why = f" ({self.outbox.problem.what})" if self.outbox.problem else ""
            raise AgentError(
                f"{left} messages could not be delivered{why}",
                where=self._store.file,
                remedy="they stay for the next start",
            )
        if self._retry_queue:
            raise AgentError(
                f"{len(self._retry_queue)} images could not be inspected",
                remedy="see above; the next start tries them again",
            )

    def _refuse(self, kind: str, key: str, error: PrunedgeError, is_final: bool) -> None:
        """Called by the updater's thread."""
        self._reports.refuse(kind, key, error, is_final)
        self.outbox.status_changed()

    def _watched(self) -> Folder | Frames:
        settings = self.settings
        if is_camera(settings.watch) or Path(settings.watch).suffix.lower() in VIDEO_SUFFIXES:
            return Frames(settings.watch, settings.state / "frames", settings.every, settings.once)
        return Folder(Path(settings.watch), settings.settle)

    def _make_updater(self) -> Updater:
        key = self.settings.update.key
        return Updater(
            self._slots,
            self.settings,
            load_key(key) if key else None,
            current=lambda: self._use,
            images=lambda: list(self._recent),
            is_refused=self._store.is_refused,
            refuse=self._refuse,
            again=AGAIN_S,
        )


def _digest(image: Path) -> str:
    """The SHA-256 of a file; MachineError when it can't be read now, FileNotFoundError when it is
    gone.
    """
    try:
        return sha256(image)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise machine_trouble(error, image.name) or error from None


def _beat(*_: Any) -> None:
    """A large photograph takes a small device longer than the watchdog waits."""
    notify("WATCHDOG=1")
