"""Model and plan in, a smaller model out, with the proof that nothing else changed.

The steps of a surgery, and the modules that take them:

1.  The model is copied with its tensors cut along the plan (`slicing`), the sizes that its modules
    keep are brought in line (`resize`, `attributes`, `attention`), and where code works sizes out,
    its calls are pinned to the new ones (`pins`).
2.  The smaller model is compared with the whole one in which the removed slices are zero, on two
    questions (`verify`, with `masked_model`, `answers`, `faint` and `locate`).
3.  Where they differ, or the smaller one does not run, it is cut in another way, with more modules
    pinned (`attempts`). What is proven must also fit the paths through the code that evaluation
    does not take (`other_paths`).
4.  Where no attempt can be proven, the groups that are to blame are searched for (`search`), left
    whole, and reported; the rest of the plan is attempted again.

A pruned model is written and made again by `serialize`. `compensate` makes up for what is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from prunedge.errors import GraphError, SurgeryError
from prunedge.graph import ChannelGraph
from prunedge.graph.channels import require_graph
from prunedge.graph.plan import Plan, require_plan
from prunedge.graph.preserve import copied
from prunedge.models.build import require_model
from prunedge.surgery.attempts import Attempts
from prunedge.surgery.search import Search
from prunedge.utils.sanitize import by_kind
from prunedge.utils.tracing import traced
from prunedge.utils.wording import first_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surgery:
    """A model after a plan.

    `plan` is what was carried out of it, `refused` maps the groups that could not be proven to the
    reasons. `difference` is the largest deviation from the masked model, relative to the largest
    output.
    """

    model: nn.Module
    plan: Plan
    refused: Mapping[str, str]
    difference: float


def remove(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    *,
    refused: Literal["raise", "leave"] = "raise",
) -> nn.Module:
    """A new, smaller model; `model` stays as it was.

    The result equals, to 1e-4 of the largest output, the model with the removed slices set to zero:
    on the graph's example, and on other values at another size and batch where the model takes one.
    Where that can't be shown for some of the groups, SurgeryError names them (its `refused` maps
    each to the reason), or, with `refused="leave"`, they are left whole. `operate` gives the
    reasons as well.
    """
    if refused not in ("raise", "leave"):
        raise ValueError(f"refused must be 'raise' or 'leave', not {refused!r}")
    surgery = operate(model, graph, plan)
    if surgery.refused and refused == "raise":
        reasons = [f"{name}: {why}" for name, why in surgery.refused.items()]
        raise SurgeryError(
            "channels could not be removed safely",
            where=first_of(reasons, between="; "),
            refused=surgery.refused,
            remedy='keep these groups out of the plan, or leave them whole with refused="leave"',
        )
    return surgery.model


@traced("surgery")
def operate(model: nn.Module, graph: ChannelGraph, plan: Plan) -> Surgery:
    """Carry out as much of the plan as can be proven right.

    Groups that can't be are left whole and reported.
    """
    require_model(model)
    require_graph(graph)
    require_plan(plan)
    _refuse_other_model(model, graph)
    attempts = Attempts(model, graph)
    refused: dict[str, str] = {}
    rest = plan
    attempt = attempts.best(rest)
    while attempt.small is None:
        refused.update(Search(attempts, graph, rest, attempt).refused())
        rest = plan.without(refused)
        if not rest.keep:
            _warn_of(refused)
            return Surgery(copied(model), rest, refused, 0.0)
        attempt = attempts.best(rest)
    _warn_of(refused)
    return Surgery(attempt.small, rest, refused, attempt.verdict.difference)


def _refuse_other_model(model: nn.Module, graph: ChannelGraph) -> None:
    """GraphError where the graph is of a model of other tensors.

    Of another one, or of this one before channels were removed.
    """
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    remedy = "trace the model as it is now"
    for name, wanted in graph.shapes.items():
        if name not in tensors:
            what = f"the graph is not of this model: it has no {name}"
            raise GraphError(what, remedy=remedy)
        shape = tuple(tensors[name].shape)
        if shape != tuple(wanted):
            what = (
                f"the graph is not of this model: {name} has shape {shape}, "
                f"and {tuple(wanted)} there"
            )
            raise GraphError(what, remedy=remedy)


def _warn_of(refused: Mapping[str, str]) -> None:
    if refused:
        for line in by_kind(refused):
            log.warning("left whole, could not be proven: %s", line)
