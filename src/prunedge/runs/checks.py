"""What a new run is refused for, before there is a folder: better said at once than after hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunedge.data.all_grey import is_all_grey
from prunedge.errors import ModelError
from prunedge.importance import refuse_unjudged, refuse_without_norms
from prunedge.models.one_channel import first_convolution
from prunedge.pruning.from_config import constraints_of
from prunedge.pruning.refusals import (
    refuse_idle_constraints,
    refuse_unmatched,
    refuse_unprunable,
)
from prunedge.train.blocks import blocks_of, refuse_too_many
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.runs.session import RunSession


def refuse_wholly_frozen(session: RunSession) -> list[str]:
    """TrainError where the model hasn't as many blocks as the first training is to leave as they
    are. Gives what is to be said of those that it leaves.
    """
    count = session.config.train.freeze
    if not count or session.start is not None:
        return []
    blocks = blocks_of(session.model, session.data.example(1))
    refuse_too_many(blocks, count)
    names = ", ".join(block.name for block in blocks[:count])
    return [f"frozen until pruning begins: {names} (of {counted(len(blocks), 'block')})"]


def told_of_grey(session: RunSession) -> list[str]:
    """What a model of three colours could save where all images are grey; nothing where it can't
    see one channel, or goes on from a run that has it so.
    """
    name = session.config.model.name
    is_own = ":" in name
    if session.start is not None or is_own or not is_all_grey(session.data):
        return []
    try:
        first = first_convolution(session.model, session.data.example(1), name)
    except ModelError:
        return []
    saved = 2 * first.macs / 3
    return [
        f"all images are grey: {option('in_channels', 1)} would save two thirds of {first.name}, "
        f"{saved / 1e6:,.1f} of the model's {first.of_all / 1e6:,.0f} million multiply-accumulates "
        f"({saved / first.of_all:.1%}; more of a pruned one's)"
    ]


def refuse_unsuited(session: RunSession, verb: str) -> None:
    """PrunedgeError where the model has not what the config asks of its channels."""
    config = session.config
    is_pruned = verb == "prune"
    if not is_pruned and config.train.sparsity == "none":
        return
    constraints = constraints_of(config)
    refuse_unmatched(session.graph, constraints, config.model.name)
    if is_pruned:
        refuse_unprunable(session.graph, config.model.name)
        refuse_idle_constraints(session.graph, constraints, config.model.name)
    refuse_unjudged(session.model, session.graph, config.prune.criterion)
    if config.train.sparsity == "bn-l1":
        refuse_without_norms(
            session.model,
            session.graph,
            option("sparsity", "bn-l1"),
            remedy="use another, such as group-lasso",
        )
