"""What a run takes over from the one that it goes on from, so that it needs that one no more once it has begun."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from prunedge.utils.advice import command
from prunedge.runs.chain import Chain, Cut, Link
from prunedge.errors import RunError
from prunedge.utils.files import written
from prunedge.utils.distributed import by_first
from prunedge.runs.run import Run, open_run


def open_start(run: Run) -> Run:
    """The run that this one goes on from; RunError when it is gone before this one has begun."""
    start = Path(run.recipe["start"])
    if not (start / "recipe.toml").is_file():
        remedy = f"put it back, or begin anew from another run: {command('prune', '--from', 'RUN', '--out', f'{run.path}-again')}"
        raise RunError(f"the run that this one was to go on from is gone: {start}", where=run.path, remedy=remedy)
    return open_run(start)


def chain_to(source: Run, step: int) -> Chain:
    """The chain that ends with this step of `source`.

    RunError where the first network is not to be found: `source` was made by an older prunedge, which kept nothing of the run that
    it began from, and that run is gone or has changed.
    """
    before = source.chain()
    if before is None:
        before = _of_older(source) if source.recipe["start"] else _begun_by(source)
        if step == 0 and not source.recipe["start"]:
            return before
    epochs = source.recipe["epochs"]
    passed = [one for one in source.steps() if one.accepted and 0 < one.index <= step]
    cuts = tuple(Cut(source.plan(one.index), one.rounds * epochs) for one in passed)
    return before.then(Link(str(source.path.resolve()), step), cuts)


@by_first
def keep_first(run: Run, source: Run) -> None:
    """Keep the first network of the chain in the run: the same file on disk as `source` has, or a copy where the disk can't."""
    final = run.first_file()
    final.parent.mkdir(exist_ok=True)
    file = first_file_of(source)
    try:
        with written(final) as temporary:
            os.link(file, temporary)
    except OSError:  # another disk, one without links, or somebody else's file
        with written(final) as temporary:
            shutil.copyfile(file, temporary)


def first_file_of(source: Run) -> Path:
    """The weights of the first network, where `source` or the run that it began from has them."""
    if source.first_file().is_file():
        return source.checked_first_file()
    if source.is_of_unknown_origin():
        return first_file_of(_start_of_older(source))
    return source.network_file(0)


def _begun_by(source: Run) -> Chain:
    return Chain((Link(str(source.path.resolve()), 0),), source.recipe["train_epochs"])


def _of_older(source: Run) -> Chain:
    """The chain of a run that keeps none: the step of its start that it began with is known by its plan."""
    start = _start_of_older(source)
    wanted = source.plan(0)
    same = [one.index for one in start.steps() if one.accepted and start.plan(one.index) == wanted]
    if not same:
        raise _unknown(source, f"no step of {start.path} is what it began with")
    return chain_to(start, same[-1])


def _start_of_older(source: Run) -> Run:
    start = Path(source.recipe["start"])
    if not (start / "recipe.toml").is_file():
        raise _unknown(source, f"it began from {start}, which is gone")
    return open_run(start)


def _unknown(source: Run, why: str) -> RunError:
    what = f"the first network of this run's chain is not known: {why}"
    return RunError(what, where=source.path, remedy="put that run back, or go on from a run that holds its first network")
