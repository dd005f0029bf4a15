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

from prunedge.config import RunConfig, read_toml
from prunedge.data.paths import is_url
from prunedge.errors import PrunedgeError, RunError
from prunedge.pruning.steps import Step
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import time_bundles
from prunedge.runs.new import write_config
from prunedge.runs.run import open_run
from prunedge.study.grid import Grid, Start, Trial, trials
from prunedge.study.mirror import Remote
from prunedge.utils import checksums, trust
from prunedge.utils.advice import command, speaking
from prunedge.utils.files import InUse, held, is_ours, make_folder, real_path, write_text
from prunedge.utils.filetypes import instead
from prunedge.utils.formats import FORMAT, KEY, refuse_other
from prunedge.utils.machine import machine_error, unwritable
from prunedge.utils.records import Record, require


class FailureRecord(Record):
    """Why a trial failed."""

    error: str


class TimeRecord(Record):
    """How long a trial took."""

    seconds: float


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is: names of the trials (and of the starting models that they wait for) in
    each state.
    """

    done: tuple[str, ...]
    running: tuple[str, ...]
    failed: dict[str, str]
    left: tuple[str, ...]
    seconds_left: float | None


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

    def folder(self, one: Start | Trial) -> Path:
        """The run folder."""
        return self.path / self._part(one)

    def find(self, name: str) -> Start | Trial:
        """The start or trial of that name; RunError when the grid has none."""
        for one in self.work:
            if one.name == name:
                return one
        raise RunError(
            f"no trial is called '{name}'",
            where=self.path,
            remedy=command("study", "status", self.path),
        )

    def is_done(self, one: Start | Trial) -> bool:
        """Whether its run has ended."""
        folder = self.folder(one)
        if isinstance(one, Start):
            return (folder / "history.jsonl").exists()
        return (folder / "test.json").exists() and (
            not self.grid.is_timed(one) or (folder / "bench.json").exists()
        )

    def is_running(self, one: Start | Trial) -> bool:
        """Whether some process, here or on another machine that shares the folder, is at work on
        it.
        """
        file = self._lock(one)
        if not file.exists():
            return False
        try:
            with FileLock(file, timeout=0):
                return False
        except Timeout:
            return True

    def failure(self, one: Start | Trial) -> str | None:
        """Why it failed the last time, if it did."""
        found = self._record(self._failure(one), "error")
        return None if found is None else str(found)

    def fail(self, one: Start | Trial, error: str) -> None:
        """Note that it failed."""
        self._failure(one).parent.mkdir(exist_ok=True)
        self._write(self._failure(one), {"error": error})
        self._push("failures")

    def seconds(self, one: Start | Trial) -> float | None:
        """How long the process that ended it was at work; None before its end."""
        found = self._record(self.folder(one) / "study.json", "seconds")
        return None if found is None else float(found)

    @speaking("study")  # what is kept says the same wherever the work was done
    def perform(self, one: Start | Trial, callbacks: Callbacks | None = None) -> None:
        """Do it, or what is left of it. Nothing when it is done already.

        A start is trained; a trial is pruned from its start, and goes on from its last step when it
        was cut off. Busy when another process has it. What PrunedgeError says is noted as its
        failure, and raised.
        """
        # The grid names them, which the user gave; on another machine that isn't remembered.
        trust.give(one.config.model.name)
        trust.give(one.config.prune.criterion)
        make_folder(self._lock(one).parent)
        try:
            with FileLock(self._lock(one), timeout=0):
                if self.remote:
                    self.remote.pull_run(self._part(one))
                    if isinstance(one, Trial):
                        self.remote.pull_run(self._part(one.start))
                if not self.is_done(one):
                    self._failure(one).unlink(missing_ok=True)
                    begun = perf_counter()
                    told = self._pushing(one, callbacks)
                    self._start(one, told) if isinstance(one, Start) else self._trial(one, told)
                    self._write(
                        self.folder(one) / "study.json", {"seconds": perf_counter() - begun}
                    )
                    self._push(self._part(one))
        except Timeout:
            raise Busy(f"another process is at work on {one.name}", where=self.path) from None
        except InUse as error:
            raise Busy(error.what, where=error.where) from None
        except Exception as error:
            failure = (
                error
                if isinstance(error, PrunedgeError)
                else machine_error(error, where=self.folder(one))
            )
            if failure is None:
                raise
            # On a full disk nothing can be noted: it is said, and the rest is done another time.
            with suppress(OSError):
                self.fail(one, str(failure))
            if failure is error:
                raise
            raise failure from None

    def _record(self, file: Path, key: str) -> Any:
        """What a small record of the study's says; None where there is none, RunError where it is
        damaged.
        """
        try:
            found = checksums.read(file, file.name)
            require({"error": FailureRecord, "seconds": TimeRecord}[key], found)
            return found[key]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            remedy = "delete it: it only says how long this took, or why it failed"
            raise RunError(f"damaged: {error}", where=file, remedy=remedy) from None

    def _write(self, file: Path, value: dict[str, Any]) -> None:
        write_text(file, json.dumps(checksums.sealed(value, file.name)))

    def counts(self, workers: int | None = 1) -> StudyProgress:
        """How far the study is, and the seconds that `workers` at a time (None: as many as run now)
        would still need, from those done.
        """
        if self.remote:
            self.remote.pull_records()
        done: list[Start | Trial] = []
        running: list[Start | Trial] = []
        left: list[Start | Trial] = []
        failed: dict[str, str] = {}
        for one in self.work:
            if self.is_done(one):
                done.append(one)
            elif self.is_running(one):
                running.append(one)
            elif why := self.failure(one):
                failed[one.name] = why
            else:
                left.append(one)
        names = [tuple(one.name for one in several) for several in (done, running, left)]
        return StudyProgress(
            names[0],
            names[1],
            failed,
            names[2],
            self._left(done, [*running, *left], workers or len(running)),
        )

    def _left(
        self, done: list[Start | Trial], left: list[Start | Trial], workers: int
    ) -> float | None:
        if not left:
            return 0.0
        total = 0.0
        for kind in (Start, Trial):
            known = [
                s for one in done if isinstance(one, kind) and (s := self.seconds(one)) is not None
            ]
            waiting = sum(isinstance(one, kind) for one in left)
            if waiting and not known:
                return None
            total += waiting * (sum(known) / len(known) if known else 0.0)
        return total / max(1, workers)

    def _start(self, start: Start, callbacks: Callbacks | None) -> None:
        folder = self.folder(start)
        if (folder / "config.toml").exists():
            execute.resume_training(folder, callbacks)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            execute.train(start.config, folder, callbacks)

    def _trial(self, trial: Trial, callbacks: Callbacks | None) -> None:
        folder, source = self.folder(trial), self.folder(trial.start)
        if (folder / "config.toml").exists():
            begun = RunConfig.from_toml(folder / "config.toml")
            if begun.model.start != str(
                real_path(source)
            ):  # the study was moved, or began on another machine
                write_config(open_run(folder), begun.with_values(start=str(real_path(source))))
            run = execute.resume(folder, callbacks)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            ours = {
                "start": str(real_path(source)),
                "train_epochs": 0,
                "schedule_epochs": trial.config.train.epochs,
            }
            run = execute.prune(
                RunConfig.make(trial.name, **{**trial.values, **ours}), folder, callbacks
            )
        if self.grid.is_timed(trial):
            time_bundles(run, self.grid.bench, None if callbacks is None else callbacks.progress)

    def _pushing(self, one: Start | Trial, callbacks: Callbacks | None) -> Callbacks | None:
        """The same callbacks, which also send each step away as it is kept."""
        if self.remote is None:
            return callbacks
        callbacks = callbacks or Callbacks()

        def on_step(step: Step) -> None:
            self._push(self._part(one))
            if callbacks.on_step is not None:
                callbacks.on_step(step)

        return replace(callbacks, on_step=on_step)

    def _push(self, part: str) -> None:
        if self.remote:
            self.remote.push(part)

    def _part(self, one: Start | Trial) -> str:
        return f"{'starts' if isinstance(one, Start) else 'trials'}/{one.name}"

    def _lock(self, one: Start | Trial) -> Path:
        return self.path / "locks" / f"{one.name}.lock"

    def _failure(self, one: Start | Trial) -> Path:
        return self.path / "failures" / f"{one.name}.json"


class Busy(RunError):
    """Another process is at work on this trial."""


def create(path: Path | str, grid: Grid) -> StudyStore:
    """A study's folder, new or with a changed grid: trials that are done stay done.

    RunError when it holds anything else, or a study of another format.
    """
    trials(grid)  # what can't be run is said before it is written
    remote, folder = _place(path)
    if folder.exists() and not (
        folder.is_dir() and (_is_new(folder) or (folder / "study.toml").exists())
    ):
        raise RunError(
            "the folder holds something else", where=folder, remedy="choose another --out"
        )
    if (folder / "study.toml").exists():
        _refuse_other_format(folder, path)
    try:
        make_folder(folder)
        with held(folder, "study"):
            write_text(folder / "study.toml", grid.to_toml())
    except OSError as error:
        raise unwritable(error, folder) from None
    if remote:
        remote.push("study.toml")
    return StudyStore(folder, grid, remote)


def open_study(path: Path | str) -> StudyStore:
    """The study in a folder; RunError when there is none, or one of another format."""
    remote, folder = _place(path)
    if not (folder / "study.toml").is_file():
        why, remedy = instead(folder, "study.toml", "name the folder that --out made")
        raise RunError(f"not a study's folder ({why})", where=path, remedy=remedy)
    _refuse_other_format(folder, path)
    return StudyStore(folder, Grid.from_toml(folder / "study.toml"), remote)


def _refuse_other_format(folder: Path, where: Path | str) -> None:
    """RunError where another version of prunedge has begun the study in a folder."""
    # Where nothing has been run, the file may be one that somebody wrote, who need not name a
    # format.
    has_begun = (folder / "starts").exists() or (folder / "trials").exists()
    found = read_toml(folder / "study.toml", "study").get(KEY, None if has_begun else FORMAT)
    refuse_other(found, "study", where, "run its grid again in a new folder")


def _is_new(folder: Path) -> bool:
    """Whether a folder is empty, but for what a killed process that began a study there has
    left.
    """
    return all(is_ours(one.name) for one in folder.iterdir())


def _place(path: Path | str) -> tuple[Remote | None, Path]:
    """Where a study lies, if that is elsewhere, and its folder here, with what its table needs."""
    if not is_url(path):
        return None, Path(path)
    remote = Remote.at(str(path))
    remote.pull_records()
    return remote, remote.mirror
