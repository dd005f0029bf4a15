"""A model, its channel graph and images in, out comes how much each channel matters: `rank(...)
-> Scores`.
"""

from prunedge.importance.agreement import Agreement, Correlation, agreement, recommendation
from prunedge.importance.collect import Collecting, collect
from prunedge.importance.consumers import refuse_without_norms
from prunedge.importance.criteria import (
    CRITERIA,
    Collector,
    Criterion,
    criterion,
)
from prunedge.importance.fingerprint import weights_digest
from prunedge.importance.oracle import Partial, Truth, oracle, sample
from prunedge.importance.rank import gather, rank, refuse_unjudged
from prunedge.importance.registry import (
    criterion_named,
    gathered_while_training,
    identity,
)
from prunedge.importance.scores import NORMALISERS, Provenance, Scores, normalised
from prunedge.importance.taylor import TaylorCollector

__all__ = [
    "CRITERIA",
    "NORMALISERS",
    "Agreement",
    "Collecting",
    "Collector",
    "Correlation",
    "Criterion",
    "Partial",
    "Provenance",
    "Scores",
    "TaylorCollector",
    "Truth",
    "agreement",
    "collect",
    "criterion",
    "criterion_named",
    "gather",
    "gathered_while_training",
    "identity",
    "normalised",
    "oracle",
    "rank",
    "recommendation",
    "refuse_unjudged",
    "refuse_without_norms",
    "sample",
    "weights_digest",
]
