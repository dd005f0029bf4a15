"""A network, its channel graph and pictures in, out comes how much each channel matters: `rank(...) -> Scores`."""

from prunedge.importance.rank import rank
from prunedge.importance.registry import CRITERIA, Criterion, criterion, find
from prunedge.importance.scores import Scores, normalised
from prunedge.importance.taylor import TaylorCollector

__all__ = ["CRITERIA", "Criterion", "Scores", "TaylorCollector", "criterion", "find", "normalised", "rank"]
