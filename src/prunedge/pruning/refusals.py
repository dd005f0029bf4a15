"""What no pruning is begun for: better said at once than after a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, trace
from prunedge.pruning.select import PlanConstraints
from prunedge.utils.advice import command, option


def prunable_graph(model: nn.Module, example: Any, constraints: PlanConstraints) -> ChannelGraph:
    """The channel graph of a model of which the constraints let channels go; PrunedgeError where
    they let none, or name what isn't there.
    """
    name = type(model).__name__
    graph = trace(model, example)
    refuse_unmatched(graph, constraints, name)
    refuse_unprunable(graph, name)
    refuse_idle_constraints(graph, constraints, name)
    return graph


def refuse_unprunable(graph: ChannelGraph, name: str) -> None:
    """PrunedgeError where no channel of a model can be pruned; `name` is the model's."""
    if not graph.groups:
        remedy = f"`{command('groups', '--model', name)}` says why"
        raise PrunedgeError(
            "this model has no channels that could be pruned", where=name, remedy=remedy
        )


def refuse_unmatched(graph: ChannelGraph, constraints: PlanConstraints, name: str) -> None:
    """PrunedgeError for a pattern to ignore that matches nothing.

    It is a typing error: what was to be kept would be pruned.
    """
    for pattern in constraints.ignore:
        alone = PlanConstraints((pattern,))
        if not any(alone.excludes(group) for group in graph.groups):
            raise PrunedgeError(
                f"no layer that could be pruned matches '{pattern}'",
                where=option("ignore"),
                remedy=f"`{command('groups', '--model', name)}` lists them",
            )


def refuse_idle_constraints(graph: ChannelGraph, constraints: PlanConstraints, name: str) -> None:
    """PrunedgeError where the constraints let no group of a model lose a channel."""
    if any(constraints.allows_any(group) for group in graph.groups):
        return
    usual = PlanConstraints()
    to_blame = []
    for key in ("ignore", "min_channels", "round_to", "max_ratio"):
        value = getattr(constraints, key)
        without = replace(constraints, **{key: getattr(usual, key)})
        if any(without.allows_any(group) for group in graph.groups):
            shown = ", ".join(value) if key == "ignore" else value
            to_blame.append(option(key, shown))
    said = " and ".join(to_blame) or "all constraints together"
    raise PrunedgeError(
        f"no channel may be removed: {said} leaves none that could go",
        where=name,
        remedy=f"ask for less; `{command('groups', '--model', name)}` shows the layers' widths",
    )
