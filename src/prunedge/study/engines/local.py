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

# OpenMP's threads otherwise wait for each other by spinning, and keep the cores from the very
# threads that they wait for where anything else runs: two threads beside two busy processes took
# more than three times as long.
WAITS_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}

NOT_NOTED = "the study's folder can't be written: see whether the disk is full"

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    work: Start | Trial
    tries: int
    last_line: _LastLine


# What waits for a process, and how often it was tried.
_Waiting = tuple[Start | Trial, int]


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


def run_local(study: StudyStore, *, workers: int, threads: int, on_line: OnLine) -> None:
    """Do all that is left of the study, `workers` trials at a time with `threads` each; `on_line`
    is given a line as each ends.

    A start is trained once, and the trials that wait for it follow. What fails is noted and the
    rest goes on; a process that dies is tried again from its last step. Ctrl-C stops all of them
    and is raised again.
    """
    done = {work.name for work in study.work if study.is_done(work)}
    lost: set[str] = set()
    waiting: list[_Waiting] = [(work, 0) for work in study.work if work.name not in done]
    running: list[_Running] = []
    failures = Failures()
    try:
        while waiting or running:
            for entry in list(waiting):
                work, tries = entry
                is_ready = isinstance(work, Start) or work.start.name in done
                if isinstance(work, Trial) and work.start.name in lost:
                    waiting.remove(entry)
                    lost.add(work.name)
                    study.fail(work, f"its starting model {work.start.name} failed")
                elif len(running) < workers and is_ready:
                    waiting.remove(entry)
                    running.append(_begin(study, work, threads, tries))

            time.sleep(_LOOK)
            for trial in list(running):
                code = trial.process.poll()
                if code is None:
                    continue
                running.remove(trial)
                again = _ended(study, trial, code, on_line, failures)
                if again is not None:
                    waiting.insert(0, again)
                elif study.is_done(trial.work):
                    done.add(trial.work.name)
                else:
                    lost.add(trial.work.name)
    finally:
        for trial in running:
            trial.process.terminate()
        for trial in running:
            trial.process.wait()


def _begin(study: StudyStore, work: Start | Trial, threads: int, tries: int) -> _Running:
    process = subprocess.Popen(
        [sys.executable, "-m", "prunedge.study", study.address, work.name],
        env={**WAITS_ASLEEP, **os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stderr is not None
    return _Running(process, work, tries, _LastLine(process.stderr))


def _ended(
    study: StudyStore, trial: _Running, code: int, on_line: OnLine, failures: Failures
) -> _Waiting | None:
    """What to do again, and how often it was tried; None when it is over."""
    work = trial.work
    if code == 0:
        on_line(f"{work.name}: done")
        return None
    if code == BUSY:
        time.sleep(1.0)
        return work, trial.tries
    if code != FAILED and trial.tries < RETRIES:
        on_line(f"{work.name}: its process died (exit code {code}), tried again from its last step")
        return work, trial.tries + 1

    last = trial.last_line.whole()
    if code != FAILED:
        error = f"its process died {RETRIES + 1} times, the last time with exit code {code}" + (
            f": {last}" if last else ""
        )
        study.fail(work, error)
    elif study.failure(work) is None:
        study.fail(work, last or NOT_NOTED)
    on_line(failures.line(work.name, study.failure(work) or NOT_NOTED))
    return None


class Failures:
    """What is said of trials that fail: each kind of reason whole at first, and then how many had
    it.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def line(self, name: str, reason: str) -> str:
        """The line for a trial that failed for this reason."""
        self._reasons[name] = reason
        alike = next(names for names in kinds(self._reasons) if name in names)
        if alike[0] == name:
            return f"{name}: failed: {reason}"
        return f"{name}: failed for the same reason as {alike[0]} ({len(alike)} so far)"


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
