"""A network, its channel graph and pictures in, out comes how much each channel matters: `rank(...) -> Scores`."""

from prunedge.importance.rank import gather, rank
from prunedge.importance.registry import CRITERIA, Collector, Criterion, criterion, find, gathered_while_training
from prunedge.importance.scores import NORMALISERS, Scores, normalised
from prunedge.importance.taylor import TaylorCollector

__all__ = [
    "CRITERIA", "NORMALISERS", "Collector", "Criterion", "Scores", "TaylorCollector", "criterion", "find", "gather",
    "gathered_while_training", "normalised", "rank",
]  # fmt: skip
