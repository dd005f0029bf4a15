"""A TaskSpec in, a Task out: what is predicted, learned and judged. A module for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import PrunedgeError
from prunedge.tasks import classification
from prunedge.tasks.base import ConstantAnswer, Example, Meter, Metric, Metrics, Task
from prunedge.tasks.classification import Classification
from prunedge.tasks.packed import packed, unpacked
from prunedge.utils.records import Record

__all__ = [
    "METRICS",
    "OF_BATCHES",
    "RECORDS",
    "TASKS",
    "ConstantAnswer",
    "Example",
    "Meter",
    "Metric",
    "Metrics",
    "Task",
    "make_task",
    "metric_named",
    "packed",
    "require_task",
    "unpacked",
]

TASKS: dict[str, Callable[[TaskSpec], Task]] = {"classification": Classification}
# What `Metrics.to_json` writes, for whoever reads it back.
RECORDS: dict[str, type[Record]] = {"classification": classification.MetricsRecord}
METRICS: dict[str, Mapping[str, Metric]] = {"classification": classification.METRICS}

# Of bare batches of images and labels, which no data set describes.
OF_BATCHES: Task = Classification()


def make_task(spec: TaskSpec) -> Task:
    """The task of a data set, a run or a bundle. PrunedgeError when there is none of that name."""
    require_task(spec.name)
    return TASKS[spec.name](spec)


def metric_named(metric: str, task: str) -> Metric:
    """A task's metric, both by name. PrunedgeError when there is none."""
    require_task(task)
    if metric not in METRICS[task]:
        raise PrunedgeError(
            f"no metric is called {metric!r}", remedy=f"choose {', '.join(METRICS[task])}"
        )
    return METRICS[task][metric]


def require_task(name: str) -> None:
    """PrunedgeError where this version has no task of that name."""
    if name not in TASKS:
        raise PrunedgeError(
            f"the task '{name}' is not known here",
            remedy=f"this version has {', '.join(TASKS)}; update prunedge",
        )
