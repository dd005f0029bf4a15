"""The thread that takes announcements: fetches, verifies and tries bundles, while the one in use
goes on working.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import monotonic

from prunedge.edge.agent.broker import trusted
from prunedge.edge.agent.settings import AgentSettings
from prunedge.edge.inspect import Settings
from prunedge.edge.inspect.grid import Grid
from prunedge.edge.logs import log, one_line
from prunedge.edge.manifest import Manifest
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.update.announcement import (
    Announcement,
    check_manifest,
    parse_announcement,
    stated,
)
from prunedge.edge.update.fetch import fetch
from prunedge.edge.update.pace import Unreachable
from prunedge.edge.update.selftest import selftest
from prunedge.edge.update.slots import BundleSlots, LoadedBundle, load
from prunedge.edge.update.statement import Recipient, Statement, judge
from prunedge.errors import AgentError, MachineError, PrunedgeError
from prunedge.utils.machine import machine_error, require_memory

PHOTOGRAPH = (4000, 3000)  # pixels, for comparing how long bundles take
WAITING = 16  # announcements
AGAIN_S = (60.0, 300.0, 1800.0, 7200.0)  # until a bundle that can't be had is asked for again


class Updater:
    """Judges announcements one after another. A bundle that passed lies in `incoming`, loaded,
    until `taken` is called.

    `current` gives the bundle in use, `images` the last ones that were inspected, `is_refused`
    whether an announcement was refused before; `refuse(kind, key, error, is_final)` tells why one
    is.
    """

    def __init__(
        self,
        slots: BundleSlots,
        settings: AgentSettings,
        is_signed: Callable[[bytes, bytes], bool] | None,
        *,
        current: Callable[[], LoadedBundle],
        images: Callable[[], list[Path]],
        is_refused: Callable[[str], bool],
        refuse: Callable[[str, str, PrunedgeError, bool], None],
        again: tuple[float, ...] = AGAIN_S,
    ) -> None:
        self._slots, self._incoming = slots, slots.incoming
        self._settings, self._is_signed, self._again = settings, is_signed, again
        self._current, self._images, self._is_refused, self._refuse = (
            current,
            images,
            is_refused,
            refuse,
        )
        self._context = trusted(None, also=settings.broker.ca)
        self._inbox: Queue[tuple[bytes, bool]] = Queue(WAITING)
        self._ready: LoadedBundle | None = None
        self._retry: tuple[bytes, float, int] | None = None  # payload, when, how often it was tried
        self._stop = Event()
        self._taken = Event()
        self._thread = Thread(target=self._run, name="updater", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        require_memory(1)
        self._thread.start()

    def stop(self) -> None:
        """End soon; what was being fetched is fetched again at the next start."""
        self._stop.set()
        self._taken.set()

    def announce(self, payload: bytes, is_retained: bool) -> None:
        """A message came on the model topic. Never waits."""
        try:
            self._inbox.put_nowait((payload, is_retained))
        except Full:
            log.warning(
                "too many messages on the model topic, some are left out: who publishes there?"
            )

    def ready(self) -> LoadedBundle | None:
        """A new bundle to swap in, or None; call `taken` when that is done."""
        return self._ready

    def taken(self) -> None:
        """The new bundle was swapped in, or given up."""
        self._ready = None
        self._taken.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                payload, is_retained = self._inbox.get(timeout=0.5)
            except Empty:
                if self._retry is not None and monotonic() >= self._retry[1]:
                    self._consider(self._retry[0], is_retained=False)
                continue
            if is_retained and self._retry is not None and payload == self._retry[0]:
                continue  # the same one, told again on reconnecting
            if payload:  # an empty one only clears the retained announcement
                self._consider(payload, is_retained)

    def _consider(self, payload: bytes, is_retained: bool) -> None:
        key = hashlib.sha256(payload).hexdigest()
        if is_retained and self._is_refused(key):
            return
        try:
            announcement = parse_announcement(payload)
        except PrunedgeError as error:
            self._refuse("message", key, error, True)
            return
        if is_retained and self._is_refused(announcement.sha256):
            return
        tries = self._retry[2] if self._retry is not None and self._retry[0] == payload else 0
        self._retry = None
        if announcement.sha256 == self._current().sha256:
            self._note_again(announcement)
            return
        try:
            self._offer(self._prepare(announcement))
        except Exception as error:  # whatever a stranger's bundle does, the agent goes on
            why = _known_error(error)
            is_final = not isinstance(why, Unreachable | MachineError)
            if not is_final and self._stop.is_set():
                return
            if not is_final and tries < len(self._again):
                self._retry = (payload, monotonic() + self._again[tries], tries + 1)
            self._refuse("bundle", key, why, is_final)
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _prepare(self, announcement: Announcement) -> LoadedBundle:
        settings, short = self._settings, announcement.sha256[:12]
        statement = self._judged(announcement)
        place = settings.update.origins.place(announcement.bundle)
        log.info("fetching the announced bundle %s", short)
        manifest = fetch(
            place,
            self._incoming,
            lambda text: check_manifest(announcement, text),
            largest=settings.update.largest_bytes,
            context=self._context,
            stop=self._stop,
            seconds=settings.update.fetch_seconds,
        )
        at_work = self._current().bundle.manifest.task
        check_task(manifest.task, announcement, statement, at_work)
        settings.inspection.fitted(manifest)  # do its classes tell what damage is?
        milliseconds = selftest(self._incoming, self._images(), settings.runtime)
        self._refuse_slow(manifest, milliseconds)
        log.info(
            "the announced bundle %s passed its self-test, %.1f ms a patch", short, milliseconds
        )
        loaded = load(self._incoming, settings.threads, settings.runtime)
        # Without a key anybody may have written the statement: it must not lock later ones out.
        return (
            loaded
            if statement is None or self._is_signed is None
            else replace(loaded, release=statement.release)
        )

    def _judged(self, announcement: Announcement) -> Statement | None:
        statement = stated(announcement, self._is_signed)
        if statement is not None:
            settings = self._settings
            update = settings.update
            asked = Recipient(settings.device, update.topic or "", update.purpose)
            judge(
                statement,
                asked,
                self._slots.taken() if self._is_signed else None,
                datetime.now(UTC),
            )
        return statement

    def _note_again(self, announcement: Announcement) -> None:
        """The bundle at work is announced: its version may have risen. That it can't be taken anew
        is no news.
        """
        with suppress(PrunedgeError):
            statement = self._judged(announcement)
            if statement is not None and self._is_signed is not None:
                self._slots.note(statement.release, statement.sha256)

    def _refuse_slow(self, manifest: Manifest, milliseconds: float) -> None:
        """AgentError when a photograph would take many times longer than now: the device would
        never be done with what arrives.
        """
        old, images = self._current().bundle, self._images()
        mine, its = (_patches(side, self._settings.inspection) for side in (old.manifest, manifest))
        ratio = float("inf")
        for is_last in (
            False,
            True,
        ):  # what looks too slow is measured once more: another program may have been at work
            try:
                before = selftest(old.path, images, self._settings.runtime)
            except AgentError as error:
                log.warning("the announced bundle's speed can't be compared: %s", one_line(error))
                return
            ratio = min(ratio, milliseconds * its / max(before * mine, 1e-9))
            if ratio <= self._settings.update.slower:
                return
            if not is_last:
                milliseconds = min(
                    milliseconds, selftest(self._incoming, images, self._settings.runtime)
                )
        raise AgentError(
            (
                f"a photograph would take {ratio:,.0f} times as long as with the bundle at "
                f"work, {self._settings.update.slower:g} are allowed"
            ),
            remedy="raise --model-slower if that is meant",
        )

    def _offer(self, loaded: LoadedBundle) -> None:
        self._taken.clear()
        self._ready = loaded
        while not self._taken.wait(0.5) and not self._stop.is_set():
            pass


def _known_error(error: Exception) -> PrunedgeError:
    """Why a bundle can't be taken: MachineError, or another kind of the agent's where nothing is
    wrong with the machine.
    """
    if isinstance(error, PrunedgeError):
        return error
    return machine_error(error) or AgentError(
        f"{type(error).__name__}: {one_line(error)}", remedy="export the bundle again"
    )


def _patches(manifest: Manifest, inspection: Settings) -> int:
    """How many patches a bundle is shown of a photograph of twelve megapixels."""
    view, (width, height) = inspection.fitted(manifest).view, PHOTOGRAPH
    assert view is not None
    if view.kind == "whole":
        return 1
    across, down = (
        max(1, round(side * (1 - inspection.overlap))) for side in (view.width, view.height)
    )
    return Grid(width, height, (view.width, view.height), (across, down)).patches


def check_task(
    task: TaskSpec, announcement: Announcement, statement: Statement | None, at_work: TaskSpec
) -> None:
    """AgentError when a bundle predicts something else than is wanted, or tells other classes
    apart: those who read the findings rely on both.
    """
    if statement is not None:
        _check_stated(task, statement, at_work)
        return
    wanted = announcement.classes or list(at_work.classes)
    classes = list(task.classes)
    remedy = "announce its classes in 'classes' if that is meant"
    if classes != wanted:
        raise AgentError(
            f"the bundle's classes are {', '.join(classes)}, wanted are {', '.join(wanted)}",
            remedy=remedy,
        )
    if announcement.classes is None:
        _refuse_other_task(task, at_work, remedy)


def _check_stated(task: TaskSpec, statement: Statement, at_work: TaskSpec) -> None:
    classes = list(task.classes)
    stated_classes = statement.release.classes
    if classes != stated_classes:
        what = (
            f"the bundle's classes are {', '.join(classes)}, the signed statement's "
            f"{', '.join(stated_classes)}"
        )
        raise AgentError(what, remedy="don't trust this bundle")
    if statement.release.new_classes:
        return
    remedy = "sign it with --new-classes if that is meant"
    if classes != list(at_work.classes):
        raise AgentError(
            f"the bundle's classes are {', '.join(classes)}, "
            f"wanted are {', '.join(at_work.classes)}",
            remedy=remedy,
        )
    _refuse_other_task(task, at_work, remedy)


def _refuse_other_task(task: TaskSpec, at_work: TaskSpec, remedy: str) -> None:
    """Classes of the same names mean something else to another task; size, resizing and thresholds
    are a model's own.
    """
    if task.name != at_work.name:
        raise AgentError(
            f"the bundle's task is {task.name}, wanted is {at_work.name}", remedy=remedy
        )
