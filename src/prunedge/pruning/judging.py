"""By which metric a model is judged on the images at hand: the usual one, and whether it is defined
there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.data.check_report import LARGE
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.damage import damage_among
from prunedge.errors import PrunedgeError
from prunedge.tasks import Task, make_task
from prunedge.tasks.operating import detection_of
from prunedge.utils.advice import option

log = logging.getLogger(__name__)

SHOWN = 3  # metrics that an error proposes


def with_usual_metric(config: RunConfig, data: Dataset) -> tuple[RunConfig, str | None]:
    """The config with the metric that suits these images where nobody asked for one, and a line
    that says which was taken and why; the config itself and None where it is the task's first.

    Where one class has over `LARGE` of the training images, always answering it is right as often.
    The task's metric for that is taken where it is defined on validation and test images, and
    nobody asks for a confidence, which only the first has.
    """
    rare_metrics = DEFINITIONS[data.spec.name].rare_metrics
    if not rare_metrics or config.task.is_metric_asked or config.stop.confidence is not None:
        return config, None
    rare_metric = rare_metrics[0]
    counts = Counter(data.train.counts())
    [(largest, images)] = counts.most_common(1)
    share = images / max(len(data.train), 1)
    if share <= LARGE:
        return config, None
    task = make_task(data.spec)
    if any(_missing(task, rare_metric, data, side) for side in ("val", "test")):
        return config, None
    usual = config.task.metric
    line = (
        f"judged by {rare_metric}: {share:.1%} of the training images are '{largest}', for which "
        f"always answering that has as much {usual}; {option('metric')} takes another"
    )
    balances = DEFINITIONS[data.spec.name].balances
    if config.train.balance in ("auto", "none") and balances:
        line += f", and {option('balance', balances[0])} gives rare classes more weight"
    return config.with_values(metric=rare_metric), line


def judged(config: RunConfig, data: Dataset) -> tuple[RunConfig, Dataset]:
    """The config with the metric that suits the images, and these with that metric, for a training
    or pruning without a run, which looks at no test image. PrunedgeError where it is not defined on
    validation images.
    """
    config, line = with_usual_metric(config, data)
    if line is not None:
        log.info("%s", line)
    data = data.judged_by(config.task.metric)
    refuse_undefined(config, data, ("val",))
    return config, data


def refuse_undefined(config: RunConfig, data: Dataset, sides: Iterable[str]) -> None:
    """PrunedgeError where the metric is not defined: the classes' names don't say which are sound,
    or a split that is judged (`val`, `test`) has no image of a class; ExtraMissing where it can't
    be computed here.
    """
    task = make_task(data.spec)
    metric = config.task.metric
    where = config.data.path
    task.require(metric)
    if config.task.rule is not None:
        _refuse_undecided(data, where)
    if not _is_named(metric, task, data):
        others = [name for name in task.metrics if _is_named(name, task, data)]
        raise PrunedgeError(
            f"the names of the classes ({', '.join(data.classes)}) don't say which of them are "
            f"sound, so {metric} is not defined",
            where=where,
            remedy=(
                f"say which are damage ({option('damage', 'CLASS,...')}), use {_options(others)}, "
                "or call the sound one ok, good or free"
            ),
        )
    for side in sides:
        absent = _missing(task, metric, data, side)
        if absent is None:
            continue
        defined = [
            name
            for name in task.metrics
            if _is_named(name, task, data) and _missing(task, name, data, side) is None
        ]
        raise PrunedgeError(
            f"the {'validation' if side == 'val' else side} split has no image of '{absent}', so "
            f"{metric} is not defined",
            where=where,
            remedy=f"use {_options(defined)}, or give it such images"
            if defined
            else "give it such images",
        )


def _refuse_undecided(data: Dataset, where: str) -> None:
    """PrunedgeError where no threshold can be chosen on the validation split."""
    detection = detection_of(data.spec)
    if detection is None:
        raise PrunedgeError(
            f"nothing tells which of the classes ({', '.join(data.classes)}) are damage, so that "
            f"{option('operate')} can be kept",
            where=where,
            remedy=f"say which: {option('damage', 'CLASS,...')}",
        )
    is_damaged = detection.is_damaged(data.val.targets())
    if is_damaged.all() or not is_damaged.any():
        lacks = "is sound" if is_damaged.all() else "is damaged"
        raise PrunedgeError(
            f"no {detection.unit} of the validation split {lacks}, so that {option('operate')} "
            "can't choose a threshold",
            where=where,
            remedy="give it some, or leave that out",
        )


def _options(metrics: list[str]) -> str:
    return " or ".join(option("metric", name) for name in metrics[:SHOWN])


def _is_named(metric: str, task: Task, data: Dataset) -> bool:
    """Whether the classes' names tell what a metric asks of them."""
    return not task.metrics[metric].of_damage or bool(
        damage_among(data.classes, data.damage.classes)
    )


def _missing(task: Task, metric: str, data: Dataset, side: str) -> str | None:
    """What a split lacks that a metric needs, by name."""
    return task.undefined(metric, [sample.target for sample in data.splits()[side].samples])
