"""Do all that is left of a study on an engine, and write its table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from prunedge.errors import PrunedgeError
from prunedge.study.engines.local import divided, run_local
from prunedge.study.progress import StudyProgress
from prunedge.study.results import Row, collect, write_table
from prunedge.study.store import StudyStore
from prunedge.utils.files import clear_below, held
from prunedge.utils.machine import require_memory

LOOK = 2.0  # seconds between looks at the folder
LOOK_FAR = 30.0  # at a store that answers slowly


@dataclass(frozen=True)
class StudyEngine:
    """Where trials run: `local` processes, or a `ray` cluster at `address` (None: one on this
    machine).

    `workers` trials at a time (local), `threads` for each, and with Ray a fraction of a GPU for
    each.
    """

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("threads", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise PrunedgeError(
                    f"{name} of {value}", where=f"--{name}", remedy=f"give at least {least}"
                )


@dataclass(frozen=True)
class StudyCallbacks:
    """What is called while a study goes on: `on_line` with a line as each trial ends, `on_counts`
    with how far it is, every few seconds.
    """

    on_line: Callable[[str], None]
    on_counts: Callable[[StudyProgress], None] | None = None


def run(
    study: StudyStore, engine: StudyEngine, callbacks: StudyCallbacks
) -> tuple[StudyProgress, list[Row]]:
    """Do what is left; gives how it stands in the end, and the table, which is written also when it
    is cut off.
    """
    with held(study.path, "study"):
        clear_below(study.path)
        return _run(study, engine, callbacks)


def _run(
    study: StudyStore, engine: StudyEngine, callbacks: StudyCallbacks
) -> tuple[StudyProgress, list[Row]]:
    workers, threads = divided(engine.workers, engine.threads)
    # A cluster's workers are counted as they run.
    at_a_time = workers if engine.name == "local" else None
    require_memory(1)
    try:
        with _watched(study, at_a_time, callbacks):
            if engine.name == "local":
                run_local(study, workers=workers, threads=threads, on_line=callbacks.on_line)
            else:
                from prunedge.study.engines.ray import run_ray

                run_ray(
                    study,
                    address=engine.address,
                    # A running cluster has its own number of workers.
                    workers=engine.workers if engine.address else workers,
                    threads=threads,
                    gpus=engine.gpus,
                    on_line=callbacks.on_line,
                )
    finally:
        if study.remote:
            study.remote.pull_records()
        rows = collect(study)
        for file in write_table(study, rows):
            if study.remote:
                study.remote.push(file.name)
    return study.counts(at_a_time), rows


@contextmanager
def _watched(study: StudyStore, workers: int | None, callbacks: StudyCallbacks) -> Iterator[None]:
    """Look how far the study is every few seconds, on a thread of its own, until the block ends."""
    stop = threading.Event()
    seconds = LOOK if study.remote is None else LOOK_FAR

    def look() -> None:
        while not stop.wait(seconds):
            # What can't be read now is looked at again, and told in the end.
            with suppress(PrunedgeError, OSError):
                if callbacks.on_counts is not None:
                    callbacks.on_counts(study.counts(workers))

    thread = threading.Thread(target=look, daemon=True, name="prunedge-study")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
