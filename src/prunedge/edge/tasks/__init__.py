"""A task's half without torch, a module for each task: what images are labelled with, and what a
model's outputs mean on the device.

Every module of this folder that has a `DEFINITION` is a task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunedge.edge.tasks.base import Decoder, DeviceDefinition, Labels, Targets, TaskSpec, Unmatched
from prunedge.edge.tasks.decision import DamageSpec
from prunedge.edge.tasks.metric import Metric, metric_among
from prunedge.errors import BundleError, DataError
from prunedge.utils.advice import option
from prunedge.utils.definitions import definitions_in
from prunedge.utils.sanitize import shown

log = logging.getLogger(__name__)

DEFINITIONS: dict[str, DeviceDefinition] = definitions_in(__name__, __path__)


def decoder_of(spec: TaskSpec) -> Decoder:
    """What a task makes of a model's outputs. Raises BundleError when it is not known here."""
    if spec.name not in DEFINITIONS:
        raise BundleError(
            f"this prunedge knows no task '{shown(spec.name)}', but {', '.join(DEFINITIONS)}",
            remedy="update prunedge, or export the model again with this one",
        )
    return DEFINITIONS[spec.name].decoder(spec)


def metric_called(task: str, name: str | None, where: object = None) -> Metric:
    """A metric of a task that is known here, both by name: also one of a level that the user
    chooses; the task's first without a name. TrainError where it has none of that name.
    """
    definition = DEFINITIONS[task]
    return metric_among(definition.metrics, name, where, definition.families)


def judged_by(task: str, damage: DamageSpec, metric: str) -> DamageSpec:
    """What a user says of damage, with the metric that models are judged by, by its name, where it
    is none of those that are measured anyway. TrainError where the task has none of that name.
    """
    name = metric_called(task, metric).name
    if name in DEFINITIONS[task].metrics or name in damage.metrics:
        return damage
    return damage.model_copy(update={"metrics": (*damage.metrics, name)})


def targets_of(task: str, labels: Labels, order: str | None = None) -> Targets:
    """What a task, by its name, makes of listed labels; `order` names them from the lowest up, with
    commas between them.

    Raises DataError when it is not known here, or the labels are none of its: the remedy names the
    tasks that they are of.
    """
    if task not in DEFINITIONS:
        raise DataError(
            f"the task '{task}' is not known here",
            where=labels.where,
            remedy=f"this version has {', '.join(DEFINITIONS)}; update prunedge",
        )
    definition = DEFINITIONS[task]
    if order is not None:
        labels = replace(labels, order=order_in(order))
    try:
        targets = _targets(definition, labels)
    except DataError as refused:
        others = [option("task", name) for name in DEFINITIONS if _reads(name, labels)]
        if not others or order is not None:
            raise
        remedy = f"{' or '.join(others)} takes them so; {refused.remedy}"
        raise DataError(refused.what, where=refused.where, remedy=remedy) from None

    doubt = definition.doubt(labels)
    if doubt is not None:
        log.warning("%s: %s", labels.where, doubt)
    return targets


def matched(targets: Targets, labels: Labels) -> list[Any | Unmatched]:
    """What a model's targets make of each image of other data. DataError where labels are numbers
    in columns or masks, and the task reads none.
    """
    _refuse_other_kinds(DEFINITIONS[targets.task], labels)
    return targets.matched(labels)


def refusal_of(task: str, balance: str, focal: float, loss: str | None = None) -> str | None:
    """Why a model of a task, by its name, can't learn with this `balance`, `focal` and `loss`, with
    what can be done; None where it can.
    """
    definition = DEFINITIONS[task]
    if loss is not None and loss not in definition.losses:
        others = [name for name, other in DEFINITIONS.items() if loss in other.losses]
        suited = " or ".join(option("task", name) for name in others)
        return (
            f"{option('area_loss', loss)} can't be had with {option('task', task)}, but with "
            f"{suited}: leave it out"
        )
    if focal and not definition.has_focal:
        *others, last = (name for name, other in DEFINITIONS.items() if other.has_focal)
        return (
            f"{option('focal', focal)} can't be had with {option('task', task)}, but with "
            f"{', '.join(others)} and {last}: leave it out"
        )
    if balance in ("auto", "none", *definition.balances):
        return None
    refused = f"{option('balance', balance)} can't be had with {option('task', task)}"
    if not definition.balances:
        return f"{refused}, which has no classes: leave it out"
    suited = " or ".join(option("balance", other) for other in definition.balances)
    return f"{refused}: use {suited}"


def refusal_of_masks(task: str, masks: object) -> str | None:
    """Why a task, by its name, can't go with this place of masks, or without one, with what can be
    done; None where it can.
    """
    reads_masks = DEFINITIONS[task].reads_masks
    if reads_masks and masks is None:
        return f"{option('task', task)} needs masks, or annotations: {option('masks', 'MASKS')}"
    if masks is not None and not reads_masks:
        others = " or ".join(option("task", name) for name in tasks_of_masks())
        return f"{option('masks', masks)} acts only with {others}"
    return None


def finds_pixels(task: str) -> bool:
    """Whether a task, by its name, finds damage pixel by pixel."""
    return DEFINITIONS[task].reads_masks


def with_task_of_masks(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, with the task that reads masks where there are masks and no task was asked
    for.
    """
    if values.get("masks") is None or "task" in values:
        return dict(values)
    return {**values, "task": tasks_of_masks()[0]}


def usual_model(values: Mapping[str, Any]) -> str:
    """The name of a model for the task that settings ask for, where nobody names one."""
    task = with_task_of_masks(values).get("task")
    return DEFINITIONS.get(str(task), DEFINITIONS["classification"]).usual_model


def tasks_of_masks() -> list[str]:
    """The tasks that learn from masks."""
    return [name for name, definition in DEFINITIONS.items() if definition.reads_masks]


def order_in(text: str) -> tuple[str, ...]:
    """The labels that a text lists from the lowest up, with commas between them."""
    return tuple(name.strip() for name in text.split(","))


def _targets(definition: DeviceDefinition, labels: Labels) -> Targets:
    _refuse_other_kinds(definition, labels)
    return definition.targets(labels)


def _refuse_other_kinds(definition: DeviceDefinition, labels: Labels) -> None:
    """DataError where a task reads no masks and images have some, or the other way round, and where
    it reads no columns of numbers.
    """
    if definition.reads_masks and not labels.mask_classes:
        raise DataError(
            f"{definition.name} learns from masks, and these images have labels ({labels.held})",
            where=labels.where,
            remedy=f"name the folder of the masks: {option('masks', 'MASKS')}",
        )
    if labels.mask_classes and not definition.reads_masks:
        raise DataError(
            f"no labels, but masks ({labels.held})",
            where=labels.where,
            remedy=f"leave {option('masks')} out",
        )
    if labels.columns and not definition.reads_columns:
        raise DataError(
            f"no labels, but numbers ({labels.held})",
            where=labels.where,
            remedy="name a column of labels label",
        )


def _reads(task: str, labels: Labels) -> bool:
    """Whether these labels are a task's."""
    try:
        _targets(DEFINITIONS[task], labels)
    except DataError:
        return False
    return True
