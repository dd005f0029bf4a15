"""What a run takes over from the one that it goes on from, so that it needs that one no more once
it has begun.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from prunedge.errors import RunError
from prunedge.pruning.steps import lineage
from prunedge.runs.chain import Chain, EarlierCut, Link
from prunedge.runs.run import Run, open_run
from prunedge.runs.run_models import checked_first_file
from prunedge.utils.advice import command
from prunedge.utils.distributed import rank_zero_only
from prunedge.utils.files import real_path, written


def open_start(run: Run) -> Run:
    """The run that this one goes on from; RunError when it is gone before this one has begun."""
    assert run.config.model.start is not None
    start = Path(run.config.model.start)
    if not (start / "config.toml").is_file():
        remedy = (
            "put it back, or begin anew from another run: "
            f"{command('prune', '--from', 'RUN', '--out', f'{run.path}-again')}"
        )
        raise RunError(
            f"the run that this one was to go on from is gone: {start}",
            where=run.path,
            remedy=remedy,
        )
    return open_run(start)


def chain_to(source: Run, step: int) -> Chain:
    """The chain that ends with this step of `source`."""
    before = source.chain()
    if before is None:
        before = Chain((Link(str(real_path(source.path)), 0),), source.config.train.epochs)
        if step == 0:
            return before
    passed = lineage(source.steps(), step)
    cuts = tuple(EarlierCut(source.plan(line.index), line.epochs) for line in passed)
    return before.then(Link(str(real_path(source.path)), step), cuts)


@rank_zero_only
def keep_first(run: Run, source: Run) -> None:
    """Keep the first model of the chain in the run: the same file on disk as `source` has, or a
    copy where the disk can't.
    """
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
    """The weights of the first model of the chain that `source` belongs to."""
    if source.first_file().is_file():
        return checked_first_file(source)
    return source.model_file(0)
