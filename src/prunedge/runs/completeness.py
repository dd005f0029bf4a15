"""Which files a run must have by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunedge.runs.chain import RECORD
from prunedge.runs.history import NAME as HISTORY

if TYPE_CHECKING:
    from prunedge.runs.run import Run

# What is written once the engine is known, beside the history.
BEGUN = ("lr.json", "training.safetensors", RECORD)


def refuse_incomplete(run: Run) -> None:
    """RunError where a file is missing that the run must have by now: what it holds would be
    guessed, or written anew.
    """
    has_steps = (run.path / HISTORY).exists()
    signs_of_work = [*BEGUN, "checkpoints/step-000"]
    has_begun = has_steps or any((run.path / name).exists() for name in signs_of_work)
    needed = []
    if has_begun:
        needed += ["environment.json", "engine.json"]
    if has_steps and not run.config.has_own_trainer:
        needed += ["lr.json"]
    if has_steps and run.config.device.address is not None:
        needed += ["latency.json"]
    if has_steps and run.config.model.start is not None:
        needed += [RECORD]

    for name in needed:
        if not (run.path / name).exists():
            raise run.missing(name)

    chain = run.chain() if has_steps else None
    if chain is not None and chain.first is not None and not run.first_file().is_file():
        raise run.missing(str(run.first_file().relative_to(run.path)))
