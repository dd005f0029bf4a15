"""The models that a run keeps: made again from files that are those that were written."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.models import fits_classes, rebuild
from prunedge.pruning.steps import State
from prunedge.runs import step_files
from prunedge.runs.own_trainer import model_named
from prunedge.runs.task import task_of
from prunedge.surgery import restore_model
from prunedge.utils import checksums, trust
from prunedge.utils.distributed import rank_zero_only
from prunedge.utils.files import written
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.runs.run import Run


def read_state(run: Run, step: int) -> State:
    """Everything that was kept of an accepted step."""
    plan = step_files.read_plan(run, step)
    model = restored(run, step_files.needed(run, step, step_files.MODEL))
    return State(
        model=model,
        plan=plan,
        scores=step_files.read_scores(run, step),
        optimizer_state=step_files.read_momentum(run, step),
    )


def restored(run: Run, file: Path) -> nn.Module:
    """The model that a file of the run holds the weights of."""
    if run.config.has_own_trainer:
        return restore_model(run.template or model_named(run), file)
    name = run.config.model.name
    outputs = task_of(run.config).outputs
    trust.check(name, run.path)
    data = run.config.data
    fresh = rebuild(name, outputs, seed=data.seed, in_channels=data.in_channels)
    model = restore_model(fresh, file)
    if not fits_classes(name, model, outputs):
        named = counted(len(run.config.data.classes), "class", "classes")
        why = f"it names {named}, and the model has another number"
        raise run.damaged("engine.json", ValueError(why))
    return model


def checked_first_file(run: Run) -> Path:
    """The weights of the chain's first model (`Run.first_file`), which are what was written;
    RunError where they are not.
    """
    file = run.first_file()
    chain = run.chain()
    try:
        if chain is not None and chain.weights is not None:
            checksums.check(file, {file.name: chain.weights})
    except checksums.Broken as error:
        raise step_files.damaged(run, file, str(error)) from None
    return file


def require_plan(run: Run, step: int, graph: ChannelGraph) -> None:
    """RunError where the plan of a step is none for the first, unpruned model, whose graph this
    is.
    """
    file = step_files.folder_of(run, step) / step_files.PLAN
    sizes = {group.name: group.size for group in graph.groups}
    for name, kept in run.plan(step).keep.items():
        if name not in sizes:
            raise step_files.damaged(run, file, f"the model has no group {name}")
        if kept[-1] >= sizes[name]:
            why = f"it keeps channel {kept[-1]} of {name}"
            raise step_files.damaged(run, file, why)


@rank_zero_only
def share_model(run: Run, source: Run) -> None:
    """Let the run's unpruned model be the same file on disk as the best one of `source`, where it
    is the same and the disk can.
    """
    own = step_files.folder_of(run, 0) / step_files.MODEL
    other = step_files.folder_of(source, source.best().index) / step_files.MODEL
    try:
        if filecmp.cmp(own, other, shallow=False):
            with written(own) as link:
                os.link(other, link)
    except OSError:
        return  # another disk, or one without links: it stays a copy
