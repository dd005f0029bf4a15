"""A TaskSpec in, a Task out: what is predicted, learned and judged. A module for each task.

Every module of this folder that has a `DEFINITION` is a task.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prunedge.edge.tasks import metric_called
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric, metric_among
from prunedge.errors import PrunedgeError
from prunedge.models.final_activation import refuse_probabilities, refuse_rectified
from prunedge.tasks.base import (
    Categories,
    ConstantAnswer,
    Example,
    Meter,
    Metrics,
    Table,
    Task,
    TaskDefinition,
    Titles,
)
from prunedge.tasks.classification import Classification
from prunedge.tasks.packed import packed, unpacked
from prunedge.tasks.weighting import LossWeighting
from prunedge.utils.definitions import definitions_in

__all__ = [
    "OF_BATCHES",
    "TASKS",
    "Categories",
    "ConstantAnswer",
    "Example",
    "LossWeighting",
    "Meter",
    "Metric",
    "Metrics",
    "Table",
    "Task",
    "TaskDefinition",
    "Titles",
    "make_task",
    "metric_among",
    "metric_named",
    "packed",
    "refuse_ending",
    "task_named",
    "task_of_batches",
    "unpacked",
]


TASKS: dict[str, TaskDefinition] = definitions_in(__name__, __path__)

# Of bare batches of images and labels, which no data set describes.
OF_BATCHES: Task = Classification()


def task_named(name: str) -> TaskDefinition:
    """The task of that name. PrunedgeError where this version has none."""
    if name not in TASKS:
        raise PrunedgeError(
            f"the task '{name}' is not known here",
            remedy=f"this version has {', '.join(TASKS)}; update prunedge",
        )
    return TASKS[name]


def make_task(spec: TaskSpec) -> Task:
    """The task of a data set, a run or a bundle. PrunedgeError where there is none of that name."""
    return task_named(spec.name).make(spec)


def task_of_batches(batches: Any) -> Task:
    """The task of a split; classification of bare batches, which no data set describes."""
    spec = getattr(batches, "spec", None)
    return make_task(spec) if isinstance(spec, TaskSpec) else OF_BATCHES


def refuse_ending(model: nn.Module, images: torch.Tensor, task: Task, where: object = None) -> None:
    """ModelError where a model's last operation leaves outputs that are no logits of the task."""
    refuse_probabilities(model, images, where)
    if task.needs_negative:
        refuse_rectified(model, images, where)


def metric_named(metric: str | None, task: str, where: object = None) -> Metric:
    """A task's metric, both by name; its first without one. PrunedgeError where there is none."""
    return metric_called(task_named(task).name, metric, where)
