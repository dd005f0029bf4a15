"""Scores that are gathered while a model trains, and when they may stand for a ranking of their
own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from prunedge.importance import Scores, weights_digest
from prunedge.pruning.context import PruneContext
from prunedge.pruning.steps import State, Step, last_accepted
from prunedge.utils import distributed

log = logging.getLogger(__name__)


def gathered(
    context: PruneContext, model: nn.Module, scores: Scores | None, *, distills: bool = False
) -> Scores | None:
    """The scores that a training of the model has gathered, with what they are scores of; None
    where that is unknown. `distills`: it was a training that may have had a teacher.
    """
    if scores is None:
        return None
    settings = context.trainer.provenance(context.criterion, distills=distills)
    provenance = None if settings is None else replace(settings, model=weights_digest(model))
    # Models of several processes may differ in the last bit.
    provenance = distributed.broadcast_object(provenance)
    return None if provenance is None else replace(scores, provenance=provenance)


def kept_scores(context: PruneContext, history: Sequence[Step], state: State) -> Scores | None:
    """The scores that were kept beside the model, if they are what this loop would have gathered
    while it trained it.
    """
    if state.scores is None:
        return None
    # The model that the loop began with had no teacher.
    distills = last_accepted(history).index > 0
    wanted = context.trainer.provenance(context.criterion, distills=distills)
    kept = state.scores.provenance

    fits = False
    if wanted is not None and kept is not None:
        is_of_these_settings = wanted == replace(kept, model="")
        fits = is_of_these_settings and kept.model == weights_digest(state.model)
    if distributed.broadcast_object(fits):
        return state.scores
    log.info(
        (
            "the scores that are kept of this model are not those of %s with these settings: "
            "it is ranked anew"
        ),
        context.criterion,
    )
    return None
