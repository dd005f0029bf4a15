"""The study's folder: its grid, the runs of starts and trials, what failed. Every run is an
ordinary run folder.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout

from prunedge.config import RunConfig
from prunedge.errors import PrunedgeError, RunError
from prunedge.pruning.steps import Step
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import time_bundles
from prunedge.runs.new import write_config
from prunedge.runs.run import open_run
from prunedge.study.grid import Grid, Start, Trial, trials
from prunedge.study.mirror import Remote
from prunedge.study.progress import StudyProgress, progress_of
from prunedge.utils import checksums, trust
from prunedge.utils.advice import command, speaking
from prunedge.utils.files import InUse, make_folder, real_path, write_text
from prunedge.utils.machine import machine_error
from prunedge.utils.records import Record, require


class FailureRecord(Record):
    """Why a trial failed."""

    error: str


class TimeRecord(Record):
    """How long a trial took."""

    seconds: float


class Busy(RunError):
    """Another process is at work on this trial."""


@dataclass(frozen=True)
class StudyStore:
    """A study's folder; where it lies elsewhere (`remote`), `path` is this machine's mirror of
    it.
    """

    path: Path
    grid: Grid
    remote: Remote | None = None

    @property
    def address(self) -> str:
        """What `open_study` finds it by."""
        return self.remote.url if self.remote else str(real_path(self.path))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All that the grid asks for."""
        return trials(self.grid)

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """The starting models that the trials share."""
        return tuple({trial.start.name: trial.start for trial in self.trials}.values())

    @cached_property
    def work(self) -> tuple[Start | Trial, ...]:
        """All of them, starts first."""
        return (*self.starts, *self.trials)

    def folder(self, work: Start | Trial) -> Path:
        """The run folder."""
        return self.path / self._relative_folder(work)

    def find(self, name: str) -> Start | Trial:
        """The start or trial of that name; RunError when the grid has none."""
        for work in self.work:
            if work.name == name:
                return work
        raise RunError(
            f"no trial is called '{name}'",
            where=self.path,
            remedy=command("study", "status", self.path),
        )

    def is_done(self, work: Start | Trial) -> bool:
        """Whether its run has ended."""
        folder = self.folder(work)
        if isinstance(work, Start):
            return (folder / "history.jsonl").exists()
        if not (folder / "test.json").exists():
            return False
        return not self.grid.is_timed(work) or (folder / "bench.json").exists()

    def is_running(self, work: Start | Trial) -> bool:
        """Whether some process, here or on another machine that shares the folder, is at work on
        it.
        """
        file = self._lock(work)
        if not file.exists():
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except Timeout:
            return True

    def failure(self, work: Start | Trial) -> str | None:
        """Why it failed the last time, if it did."""
        error = self._record(self._failure_file(work), "error")
        return None if error is None else str(error)

    def fail(self, work: Start | Trial, error: str) -> None:
        """Note that it failed."""
        file = self._failure_file(work)
        file.parent.mkdir(exist_ok=True)
        self._write(file, {"error": error})
        self._push("failures")

    def seconds(self, work: Start | Trial) -> float | None:
        """How long the process that ended it was at work; None before its end."""
        seconds = self._record(self.folder(work) / "study.json", "seconds")
        return None if seconds is None else float(seconds)

    def counts(self, workers: int | None = 1) -> StudyProgress:
        """How far the study is, and the seconds that `workers` at a time (None: as many as run now)
        would still need, from those done.
        """
        if self.remote:
            self.remote.pull_records()
        return progress_of(self, workers)

    @speaking("study")  # what is kept says the same wherever the work was done
    def perform(self, work: Start | Trial, callbacks: Callbacks | None = None) -> None:
        """Do it, or what is left of it. Nothing when it is done already.

        A start is trained; a trial is pruned from its start, and goes on from its last step when it
        was cut off. Busy when another process has it. What PrunedgeError says is noted as its
        failure, and raised.
        """
        # The grid names them, which the user gave; on another machine that isn't remembered.
        trust.give(work.config.model.name)
        trust.give(work.config.prune.criterion)
        make_folder(self._lock(work).parent)
        try:
            with FileLock(self._lock(work), timeout=0):
                self._perform_alone(work, callbacks)
        except Timeout:
            raise Busy(f"another process is at work on {work.name}", where=self.path) from None
        except InUse as error:
            raise Busy(error.what, where=error.where) from None
        except Exception as error:
            failure: PrunedgeError | None
            if isinstance(error, PrunedgeError):
                failure = error
            else:
                failure = machine_error(error, where=self.folder(work))
            if failure is None:
                raise
            # On a full disk nothing can be noted: it is said, and the rest is done another time.
            with suppress(OSError):
                self.fail(work, str(failure))
            if failure is error:
                raise
            raise failure from None

    def _perform_alone(self, work: Start | Trial, callbacks: Callbacks | None) -> None:
        """The same, while no other process is at work on it."""
        if self.remote:
            self.remote.pull_run(self._relative_folder(work))
            if isinstance(work, Trial):
                self.remote.pull_run(self._relative_folder(work.start))
        if self.is_done(work):
            return
        self._failure_file(work).unlink(missing_ok=True)
        begun = perf_counter()
        callbacks = self._pushing(work, callbacks)
        if isinstance(work, Start):
            self._train(work, callbacks)
        else:
            self._prune(work, callbacks)
        self._write(self.folder(work) / "study.json", {"seconds": perf_counter() - begun})
        self._push(self._relative_folder(work))

    def _train(self, start: Start, callbacks: Callbacks | None) -> None:
        folder = self.folder(start)
        if (folder / "config.toml").exists():
            execute.resume_training(folder, callbacks)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            execute.train(start.config, folder, callbacks)

    def _prune(self, trial: Trial, callbacks: Callbacks | None) -> None:
        folder = self.folder(trial)
        source = str(real_path(self.folder(trial.start)))
        if (folder / "config.toml").exists():
            config = RunConfig.from_toml(folder / "config.toml")
            if config.model.start != source:
                # The study was moved, or began on another machine.
                write_config(open_run(folder), config.with_values(start=source))
            run = execute.resume(folder, callbacks)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            config = trial.config.with_values(
                start=source, train_epochs=0, schedule_epochs=trial.config.train.epochs
            )
            run = execute.prune(config, folder, callbacks)
        if self.grid.is_timed(trial):
            time_bundles(run, self.grid.bench, None if callbacks is None else callbacks.progress)

    def _pushing(self, work: Start | Trial, callbacks: Callbacks | None) -> Callbacks | None:
        """The same callbacks, which also send each step away as it is kept."""
        if self.remote is None:
            return callbacks
        callbacks = callbacks or Callbacks()

        def on_step(step: Step) -> None:
            self._push(self._relative_folder(work))
            if callbacks.on_step is not None:
                callbacks.on_step(step)

        return replace(callbacks, on_step=on_step)

    def _record(self, file: Path, key: str) -> Any:
        """What a small record of the study's says; None where there is none, RunError where it is
        damaged.
        """
        try:
            record = checksums.read(file, file.name)
            require({"error": FailureRecord, "seconds": TimeRecord}[key], record)
            return record[key]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            remedy = "delete it: it only says how long this took, or why it failed"
            raise RunError(f"damaged: {error}", where=file, remedy=remedy) from None

    def _write(self, file: Path, value: dict[str, Any]) -> None:
        write_text(file, json.dumps(checksums.sealed(value, file.name)))

    def _push(self, relative: str) -> None:
        """Send a file or folder of the mirror away, where the study lies elsewhere."""
        if self.remote:
            self.remote.push(relative)

    def _relative_folder(self, work: Start | Trial) -> str:
        return f"{'starts' if isinstance(work, Start) else 'trials'}/{work.name}"

    def _lock(self, work: Start | Trial) -> Path:
        return self.path / "locks" / f"{work.name}.lock"

    def _failure_file(self, work: Start | Trial) -> Path:
        return self.path / "failures" / f"{work.name}.json"
