"""The task of a run that has begun: what its config says of it, and the classes of its images."""

from __future__ import annotations

from prunedge.config import RunConfig
from prunedge.edge.tasks import judged_by
from prunedge.edge.tasks.base import TaskSpec, scales_in
from prunedge.edge.tasks.decision import damage_named
from prunedge.errors import RunError
from prunedge.tasks import Task, make_task


def refuse_own_trainer(config: RunConfig) -> None:
    """RunError where a run is of a training of the user's own: nobody knows its data."""
    if not config.has_own_trainer:
        return
    raise RunError(
        "this run is of a training of your own, of which prunedge knows neither task nor images",
        where=config.model.name,
        remedy=(
            "show, report, export and `prune --resume` work on it; in Python pe.load gives its "
            "model"
        ),
    )


def task_of(config: RunConfig) -> Task:
    """What the model of a run predicts; `config` knows the classes of its images.

    PrunedgeError where this version has no task of that name, RunError where the user's own
    functions train and judge.
    """
    refuse_own_trainer(config)
    data = config.data
    spec = TaskSpec(
        name=config.task.name,
        classes=tuple(data.classes),
        size=data.size,
        resize=data.resize,
        in_channels=data.in_channels,
        damage=judged_by(
            config.task.name,
            damage_named(config.task.damage, config.task.costs),
            config.task.metric,
        ),
        scales=scales_in(data.scales),
    )
    return make_task(spec)
