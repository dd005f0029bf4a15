"""The Ray engine: each trial is a task with its resources, on this machine or on a cluster whose
nodes share the study's folder.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from prunedge.errors import ExtraMissing, PrunedgeError
from prunedge.study.engines.local import WAITS_ASLEEP, Failures, OnLine
from prunedge.study.folder import open_study
from prunedge.study.grid import Start, Trial
from prunedge.study.store import Busy, StudyStore
from prunedge.utils.machine import pass_on

# Of a task whose worker is lost: it goes on from its last step, on another node if need be.
RETRIES = 3
_PATIENCE = 30.0  # seconds that a lost worker's lock may outlive it on a shared disk


def run_ray(
    study: StudyStore,
    *,
    address: str | None,
    workers: int | None,
    threads: int,
    gpus: float,
    on_line: OnLine,
) -> None:
    """Do all that is left of the study on Ray; `on_line` is given a line as each
    trial ends.

    `address` is that of a running cluster (`auto` finds it), None starts one on this machine for
    `workers` trials at a time (a running cluster has its own number: PrunedgeError). A trial's task
    takes its start's task as its argument: Ray runs it when, and not before, the starting model
    is there. Each asks for `threads` CPUs and `gpus` of a GPU.
    """
    if address is not None and workers is not None:
        raise PrunedgeError(
            "--workers and --address exclude each other",
            remedy="a running cluster runs what its own resources allow",
        )
    try:
        import ray
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "the Ray engine needs ray", remedy="pip install 'prunedge[ray]'"
        ) from None
    # Ray's workers import prunedge from where this process did.
    path = os.pathsep.join(filter(None, (_home(), os.environ.get("PYTHONPATH"))))
    openmp = {**WAITS_ASLEEP, "OMP_NUM_THREADS": str(threads)}
    environment = {"env_vars": {"PYTHONPATH": path, **openmp}}
    is_started_here = not ray.is_initialized()
    if is_started_here:
        try:
            _knock(address)
            ray.init(
                address=address,
                num_cpus=workers * threads if workers is not None else None,
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
            )
        except (OSError, ValueError) as error:
            raise PrunedgeError(
                f"no Ray cluster at {address}: {error}", remedy="start one with `ray start --head`"
            ) from None
    try:
        task: Any = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(_perform)
        starts = {
            start.name: task.remote(study.address, start.name, threads) for start in study.starts
        }
        names: dict[Any, str] = {reference: name for name, reference in starts.items()}
        for trial in study.trials:
            if not study.is_done(trial):
                start = starts[trial.start.name]
                names[task.remote(study.address, trial.name, threads, start)] = trial.name

        waiting = list(names)
        failures = Failures()
        while waiting:
            (ended,), waiting = ray.wait(waiting, num_returns=1)
            line = _result_line(study, names[ended], ended, failures)
            if line is not None:
                on_line(line)
    finally:
        if is_started_here:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Ray waits for minutes for a cluster that nobody answers for; OSError when that is so."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _result_line(study: StudyStore, name: str, reference: Any, failures: Failures) -> str | None:
    """What is to be said of a task that has ended; None of a starting model that is there."""
    import ray

    try:
        error = ray.get(reference)
    except ray.exceptions.RayError as lost:
        error = f"its worker was lost {RETRIES + 1} times: {type(lost).__name__}"
        study.fail(study.find(name), error)
    if error:
        return failures.line(name, error)
    return f"{name}: done" if isinstance(study.find(name), Trial) else None


def _perform(address: str, name: str, threads: int, start: str | None = None) -> str | None:
    """In a worker: do the work; None when it is done, or what is wrong. `start` is what the
    starting model's task gave.
    """
    import torch

    torch.set_num_threads(threads)
    study = open_study(address)
    work: Start | Trial = study.find(name)
    if start is not None:
        error = f"its starting model failed: {start}"
        study.fail(work, error)
        return error
    begun = time.monotonic()
    while True:
        try:
            study.perform(work)
            return None
        except Busy as busy:
            if time.monotonic() - begun > _PATIENCE:
                return str(busy)
            time.sleep(1.0)
        except PrunedgeError as problem:
            return str(problem)


def _home() -> str:
    import prunedge

    return str(Path(prunedge.__file__).parents[1])
