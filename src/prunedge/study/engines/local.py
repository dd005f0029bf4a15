"""The local engine: each trial in a process of its own, the cores divided among them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import IO

from prunedge.errors import PrunedgeError
from prunedge.study.__main__ import BUSY, FAILED
from prunedge.study.grid import Start, Trial
from prunedge.study.store import StudyStore
from prunedge.utils.machine import require_memory
from prunedge.utils.sanitize import kinds, shown

RETRIES = 2  # of a trial whose process died: it goes on from its last step
_LOOK = 0.2  # seconds between looks at the processes

NOT_NOTED = "the study's folder can't be written: see whether the disk is full"

Told = Callable[[str], None]


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    work: Start | Trial
    tries: int
    said: _LastLine


class _LastLine:
    """The last line that a process writes to a stream: why it ended, where it could not note
    that.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._stream = stream
        require_memory(1)
        self._thread = Thread(target=self._read, name="prunedge-trial", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                self.text = line.strip() or self.text

    def whole(self) -> str:
        """The line, once the process has ended."""
        self._thread.join(_LOOK)  # what it started may still hold the stream
        return shown(self.text)


def run_local(study: StudyStore, *, workers: int, threads: int, told: Told) -> None:
    """Do all that is left of the study, `workers` trials at a time with `threads` each; `told`
    hears how each ends.

    A start is trained once, and the trials that wait for it follow. What fails is noted and the
    rest goes on; a process that dies is tried again from its last step. Ctrl-C stops all of them
    and is raised again.
    """
    done = {one.name for one in study.work if study.is_done(one)}
    waiting: list[tuple[Start | Trial, int]] = [
        (one, 0) for one in study.work if one.name not in done
    ]
    running: list[_Running] = []
    lost: set[str] = set()
    said = Failures()
    try:
        while waiting or running:
            for entry in list(waiting):
                work, tries = entry
                if isinstance(work, Trial) and work.start.name in lost:
                    waiting.remove(entry)
                    lost.add(work.name)
                    study.fail(work, f"its starting model {work.start.name} failed")
                elif len(running) < workers and (
                    isinstance(work, Start) or work.start.name in done
                ):
                    waiting.remove(entry)
                    running.append(_begin(study, work, threads, tries))
            time.sleep(_LOOK)
            for one in list(running):
                if (code := one.process.poll()) is None:
                    continue
                running.remove(one)
                again = _ended(study, one, code, told, said)
                if again is not None:
                    waiting.insert(0, again)
                else:
                    (done if study.is_done(one.work) else lost).add(one.work.name)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()


def _begin(study: StudyStore, work: Start | Trial, threads: int, tries: int) -> _Running:
    process = subprocess.Popen(
        [sys.executable, "-m", "prunedge.study", study.address, work.name],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stderr is not None
    return _Running(process, work, tries, _LastLine(process.stderr))


def _ended(
    study: StudyStore, one: _Running, code: int, told: Told, said: Failures
) -> tuple[Start | Trial, int] | None:
    """What to do again, and how often it was tried; None when it is over."""
    name = one.work.name
    if code == 0:
        told(f"{name}: done")
        return None
    if code == BUSY:
        time.sleep(1.0)
        return one.work, one.tries
    if code != FAILED and one.tries < RETRIES:
        told(f"{name}: its process died (exit code {code}), tried again from its last step")
        return one.work, one.tries + 1
    last = one.said.whole()
    if code != FAILED:
        study.fail(
            one.work,
            f"its process died {RETRIES + 1} times, the last time with exit code {code}"
            + (f": {last}" if last else ""),
        )
    elif study.failure(one.work) is None:
        study.fail(one.work, last or NOT_NOTED)
    told(said.of(name, study.failure(one.work) or NOT_NOTED))
    return None


class Failures:
    """What is said of trials that fail: each kind of reason whole at first, and then how many had
    it.
    """

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def of(self, name: str, why: str) -> str:
        """The line for a trial that failed for this reason."""
        self._seen[name] = why
        mine = next(names for names in kinds(self._seen) if name in names)
        return (
            f"{name}: failed: {why}"
            if mine[0] == name
            else f"{name}: failed for the same reason as {mine[0]} ({len(mine)} so far)"
        )


def divided(workers: int | None, threads: int | None) -> tuple[int, int]:
    """Workers and threads for each, from what is given and the cores that this process may use;
    PrunedgeError below 1.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if workers is None:
        workers = max(1, cores // (threads or 1))
    if workers < 1 or (threads is not None and threads < 1):
        raise PrunedgeError(
            f"{workers} workers with {threads} threads", remedy="give 1 or more of each"
        )
    return workers, threads or max(1, cores // workers)
