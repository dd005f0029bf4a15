"""Scores that are gathered while a model trains, and when they may stand for a ranking of their
own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from prunedge.importance import Provenance, Scores, identity, weights_digest
from prunedge.pruning.context import PruneContext
from prunedge.pruning.steps import State, Step, last_accepted
from prunedge.utils import distributed

log = logging.getLogger(__name__)


def gathering(context: PruneContext, distill: float = 0.0) -> Provenance | None:
    """What scores are that this loop gathers while it trains, of any model; None where the
    criterion can't be told.

    `distill` is the weight of a teacher's answers in the loss of that training.
    """
    criterion = identity(context.criterion)
    if criterion is None:
        return None
    finetune = context.finetune
    settings = {
        "augment": finetune.augment,
        "batch_size": finetune.batch_size,
        "label_smoothing": finetune.label_smoothing,
    }
    if distill:
        settings |= {"distill": distill, "temperature": finetune.temperature}
    return Provenance(criterion, "", context.data.train_fingerprint(), json.dumps(settings))


def gathered(
    context: PruneContext, model: nn.Module, scores: Scores | None, *, distill: float = 0.0
) -> Scores | None:
    """The scores that a training of the model has gathered, with what they are scores of; None
    where that is unknown.
    """
    if scores is None:
        return None
    settings = gathering(context, distill)
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
    distill = context.finetune.distill if last_accepted(history).index else 0.0
    wanted = gathering(context, distill)
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
