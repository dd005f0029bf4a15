"""Images one after the other: inspected with the bundle in use, marked and enqueued in one step,
and after trouble tried again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunedge.edge.agent.database import Store
from prunedge.edge.agent.frames import Frames
from prunedge.edge.agent.messages import Inspected, Message, Topics, failure, finding
from prunedge.edge.agent.reports import Reports
from prunedge.edge.agent.retry import CrashGuard, RetryQueue
from prunedge.edge.agent.settings import AgentSettings
from prunedge.edge.agent.systemd import notify
from prunedge.edge.agent.watch import Arrival, Folder, stamp_of
from prunedge.edge.bundle import sha256
from prunedge.edge.inspect import inspect_image
from prunedge.edge.logs import log, one_line
from prunedge.edge.update.slots import BundleSlots, LoadedBundle
from prunedge.errors import AgentError, DataError, MachineError, PrunedgeError
from prunedge.utils.machine import machine_trouble
from prunedge.utils.wording import counted

TRIES = 3  # at an image, until the trouble is published
RECENT = 4  # images that a new bundle is tried on


@dataclass(frozen=True)
class Listener:
    """Who hears of what changed: `enqueued` of a message, `bundle_changed` of another bundle in
    use.
    """

    enqueued: Callable[[], None]
    bundle_changed: Callable[[], None]


class Inspector:
    """Works off images with the bundle `in_use`. `recent` are the last ones that went well.

    Made, it has loaded a bundle whose classes tell what damage is: PrunedgeErrors come from here.
    """

    def __init__(
        self,
        settings: AgentSettings,
        source: Folder | Frames,
        store: Store,
        slots: BundleSlots,
        reports: Reports,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._topics = Topics(settings.topic)
        self._source = source
        self._store = store
        self._slots = slots
        self._reports = reports
        self._listener = listener

        self.in_use = slots.start()
        settings.inspection.fitted(self.in_use.bundle.manifest)
        self.recent: deque[Path] = deque(maxlen=RECENT)
        self._retry_queue = RetryQueue(max(1.0, settings.every))
        self._crash_guard = CrashGuard(settings.state / "inspecting.json")
        if slots.passed_over:
            self._crash_guard.forget()  # it was the bundle

    @property
    def failed(self) -> int:
        """How many images could not be inspected so far, and wait to be tried again."""
        return len(self._retry_queue)

    def use(self, new: LoadedBundle) -> None:
        """Inspect with another bundle from now on; PrunedgeError or OSError where it can't be
        kept.
        """
        self.in_use = self._slots.accept(new)
        model = new.bundle.manifest.model
        log.info("bundle %s (%s) is in use from now on", new.sha256[:12], model)

    def work_off(self, arrival: Arrival) -> bool:
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
                    self._listener.enqueued()
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
        name = arrival.stamp.name
        used = self.in_use
        device = self._settings.device
        try:
            self._crash_guard.accuse(name, digest)
            self._slots.begin()
            inspection = inspect_image(
                arrival.path, used.session, self._settings.inspection, name=name, progress=_beat
            )
        except DataError as error:
            # FileNotFoundError when it was moved away meanwhile, which is no fault of the image
            arrival.path.stat()
            self._reports.warn(error)
            key = f"{name}\0{digest}"
            message = failure(self._topics, device, "image", name, error.what, key)
            return message, ["images", "failed"]
        finally:
            self._crash_guard.acquit()
        self._slots.proved()
        self.recent.append(arrival.path)
        log.info(
            "%s: %s, %.2f",
            one_line(name),
            counted(len(inspection.regions), "damaged region"),
            inspection.probability,
        )
        inspected = Inspected(arrival, digest, used, inspection)
        message = finding(self._topics, device, inspected)
        return message, ["images", "damaged"] if inspection.regions else ["images"]

    def _postpone(self, arrival: Arrival, error: Exception) -> None:
        """Try an image again later. A bundle on trial that fails gives way to the one before it."""
        name = arrival.stamp.name
        trouble = _trouble(error)
        self._reports.warn(
            AgentError(
                f"{trouble.what}, it is tried again", where=one_line(name), remedy=trouble.remedy
            )
        )
        if self._retry_queue.add(arrival) == TRIES:
            self._reports.publish("agent", name, trouble, key=f"{name} {arrival.stamp}")

        is_the_agents = isinstance(error, AgentError | MachineError | OSError)
        before = None if is_the_agents else self._slots.roll_back()
        if before is None:
            return
        log.warning("the new bundle fails on its first image, the one before it is used again")
        self._reports.publish("bundle", self.in_use.sha256, trouble, key=self.in_use.sha256)
        self.in_use = before
        self._retry_queue.forget(name)
        self._listener.bundle_changed()


def _trouble(error: Exception) -> PrunedgeError:
    """An error of any kind as one that can be told."""
    if isinstance(error, PrunedgeError):
        return error
    return AgentError(
        f"{type(error).__name__}: {one_line(error)}",
        remedy="send this line to the makers of prunedge",
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
