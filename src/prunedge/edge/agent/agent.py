"""The loop: what arrives is inspected, while an outbox delivers and an updater tries new
bundles.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Event
from time import monotonic

from prunedge import __version__
from prunedge.edge.agent.connection import require_paho
from prunedge.edge.agent.database import Store
from prunedge.edge.agent.frames import Frames, is_camera
from prunedge.edge.agent.inspector import Inspector, Listener
from prunedge.edge.agent.messages import Topics, status
from prunedge.edge.agent.outbox import Outbox
from prunedge.edge.agent.reports import Reports
from prunedge.edge.agent.settings import AgentSettings
from prunedge.edge.agent.systemd import notify
from prunedge.edge.agent.watch import Arrival, Folder
from prunedge.edge.inspect.sources import VIDEO_SUFFIXES
from prunedge.edge.logs import log
from prunedge.edge.update.announcement import load_key
from prunedge.edge.update.slots import BundleSlots
from prunedge.edge.update.updater import AGAIN_S, Updater
from prunedge.errors import AgentError, PrunedgeError
from prunedge.utils.wording import counted

FLUSH_S = 5.0  # for what still waits when the agent is told to end
ONCE_S = 30.0  # without progress, until `once` gives up on the broker
TICK_S = 0.5


class Agent:
    """Inspects what arrives and publishes it, until `stop` is set; with `once` until all that is
    there is done and delivered.

    Made, it holds its state folder, has a bundle loaded and has read every setting: PrunedgeErrors
    come from here. `run` goes on through bad images, a full disk, a lost broker and refused
    bundles.
    """

    def __init__(self, settings: AgentSettings, stop: Event | None = None) -> None:
        require_paho()
        self.settings = settings
        self.stop = stop or Event()
        self.topics = Topics(settings.topic)
        settings.broker.context()
        # Without a password.
        self._watching = settings.watch
        if "://" in settings.watch:
            self._watching = settings.watch.rpartition("@")[2]

        self._store = Store(settings.state)
        self._reports = Reports(
            self._store,
            self.topics,
            settings.device,
            settings.update.topic,
            lambda: self.outbox.wake(),
        )
        try:
            self._source = self._watched()
            self._slots = BundleSlots(
                settings.state / "bundles",
                self._store,
                settings.bundle,
                settings.threads,
                settings.runtime,
            )
            listener = Listener(
                enqueued=lambda: self.outbox.wake(),
                bundle_changed=lambda: self.outbox.status_changed(),
            )
            self._inspector = Inspector(
                settings, self._source, self._store, self._slots, self._reports, listener
            )
            self._updater = self._make_updater() if settings.update.topic else None
        except BaseException:
            self._store.close()
            raise
        self.outbox = self._make_outbox()

    def run(self) -> None:
        """Work until told to stop. AgentError at the end of `once` when something could not be
        inspected or delivered.
        """
        self._tell_beginning()
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
            waiting = "all messages are delivered"
            if left:
                waiting = f"{counted(left, 'message waits', 'messages wait')} for the next start"
            log.info("ended; %s", waiting)
        if self.settings.once and not self.stop.is_set():
            self._judge(left)

    def status(self) -> str:
        """What the agent tells of itself, as the payload of a status message."""
        used = self._inspector.in_use
        counts = self._store.counts()
        return status(
            self.settings.device,
            "online",
            watching=self._watching,
            version=__version__,
            bundle={
                "sha256": used.sha256,
                "model": used.bundle.manifest.model,
                "classes": list(used.bundle.manifest.task.classes),
            },
            **{name: counts.get(name, 0) for name in ("images", "damaged", "failed")},
            queue=self._store.waiting(),
            last_error=self._reports.last,
        )

    def _tell_beginning(self) -> None:
        """What is watched with which bundle, and what to mind of it."""
        used = self._inspector.in_use
        manifest = used.bundle.manifest
        log.info(
            "bundle %s (%s; %s), watching %s",
            used.sha256[:12],
            manifest.model,
            ", ".join(manifest.task.classes),
            self._watching,
        )
        if warning := used.session.warning():
            log.warning("%s", warning)
        if self.settings.broker.tells_password():
            log.warning(
                "the password goes to %s in clear, for everybody on the way to read: write "
                "mqtts://",
                self.settings.broker,
            )
        log.info("it is shown %s", self.settings.inspection.fitted(manifest).looked(manifest))

    def _work(self) -> None:
        while not self.stop.is_set():
            arrivals, coming = self._look()
            for arrival in arrivals:
                if not self._goes_on() or self._is_full():
                    break
                # On a full disk the next image would fare no better: wait, instead of going
                # through all of them again and again.
                if not self._inspector.work_off(arrival) and not self.settings.once:
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
                self._inspector.use(new)
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
                f"the queue is full ({counted(self.settings.queue_limit, 'message')})",
                remedy="images wait until the broker is back",
            )
        )
        return True

    def _deliver(self) -> None:
        """Wait until the queue is empty, or nothing has left it for a while."""
        left = self._store.waiting()
        since = monotonic()
        while left and monotonic() - since < ONCE_S and self._goes_on():
            self.stop.wait(0.05)
            less = self._store.waiting()
            if less < left:
                left = less
                since = monotonic()

    def _judge(self, left: int) -> None:
        """AgentError at the end of `once` where a message or an image is left."""
        if left:
            why = f" ({self.outbox.problem.what})" if self.outbox.problem else ""
            raise AgentError(
                f"{counted(left, 'message')} could not be delivered{why}",
                where=self._store.file,
                remedy="they stay for the next start",
            )
        if self._inspector.failed:
            raise AgentError(
                f"{counted(self._inspector.failed, 'image')} could not be inspected",
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
            current=lambda: self._inspector.in_use,
            images=lambda: list(self._inspector.recent),
            is_refused=self._store.is_refused,
            refuse=self._refuse,
            again=AGAIN_S,
        )

    def _make_outbox(self) -> Outbox:
        settings = self.settings
        # Two agents on one machine, with one device id and two topics, must not throw each other
        # out.
        topic_digest = hashlib.sha256(settings.topic.encode()).hexdigest()[:8]
        return Outbox(
            self._store,
            settings.broker,
            f"prunedge-{settings.device}-{topic_digest}",
            settings.device,
            self.topics.status,
            self.status,
            settings.update.topic,
            self._updater.announce if self._updater else lambda payload, is_retained: None,
            settings.backoff,
        )
