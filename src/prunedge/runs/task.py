"""The task of a run that has begun: what its config says of it, and the classes of its images."""

from __future__ import annotations

from prunedge.config import RunConfig
from prunedge.edge.tasks import judged_by
from prunedge.edge.tasks.base import TaskSpec, scales_in
from prunedge.edge.tasks.decision import damage_named
from prunedge.tasks import Task, make_task


def task_of(config: RunConfig) -> Task:
    """What the model of a run predicts; `config` knows the classes of its images.

    PrunedgeError where this version has no task of that name.
    """
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
