"""What a new run is refused for, before there is a folder: better said at once than after hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunedge.errors import PrunedgeError
from prunedge.importance import refuse_unjudged, refuse_without_norms
from prunedge.pruning.prune import refuse_unprunable
from prunedge.pruning.select import PlanConstraints
from prunedge.utils.advice import command, option

if TYPE_CHECKING:
    from prunedge.runs.session import RunSession


def refuse_missing_classes(session: RunSession) -> None:
    """PrunedgeError where the metric is not defined since a split that is judged has no image of a
    class.
    """
    metric = session.config.task.metric
    usual = next(iter(session.task.metrics))
    for name in ("val", "test"):
        split = session.data.splits()[name]
        targets = [sample.target for sample in split.samples]
        absent = session.task.undefined(metric, targets)
        if absent is not None:
            shown = "validation" if name == "val" else name
            raise PrunedgeError(
                f"the {shown} split has no image of '{absent}', so {metric} is not defined",
                where=session.config.data.path,
                remedy=f"use {option('metric', usual)}, or give it images of that class",
            )


def refuse_unsuited(session: RunSession, verb: str) -> None:
    """PrunedgeError where the model has not what the config asks of its channels."""
    config = session.config
    is_pruned = verb == "prune"
    if not is_pruned and config.train.sparsity == "none":
        return
    if is_pruned:
        refuse_unprunable(session.graph, config.model.name)
    if config.prune.ignore:
        _refuse_unmatched(session)
    refuse_unjudged(session.model, session.graph, config.prune.criterion)
    if config.train.sparsity == "bn-l1":
        refuse_without_norms(
            session.model,
            session.graph,
            option("sparsity", "bn-l1"),
            remedy="use another, such as group-lasso",
        )


def _refuse_unmatched(session: RunSession) -> None:
    """A pattern that matches nothing is a typing error: what was to be kept would be pruned."""
    config = session.config
    for pattern in config.prune.ignore:
        constraints = PlanConstraints((pattern,))
        if not any(constraints.excludes(group) for group in session.graph.groups):
            raise PrunedgeError(
                f"no layer that could be pruned matches '{pattern}'",
                where=option("ignore"),
                remedy=f"`{command('groups', '--model', config.model.name)}` lists them",
            )
