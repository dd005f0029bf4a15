"""Experiments over many runs: a grid of configs in, a folder of runs and one table out. On this
machine or on a Ray cluster.
"""

from prunedge.study import execute, presets
from prunedge.study.folder import create, open_study
from prunedge.study.grid import Grid, Trial, trials
from prunedge.study.progress import StudyProgress
from prunedge.study.results import collect, write_table
from prunedge.study.statistics import Comparison, Spread, at_fractions, compared, spread
from prunedge.study.store import StudyStore

__all__ = [
    "Comparison",
    "Grid",
    "Spread",
    "StudyProgress",
    "StudyStore",
    "Trial",
    "at_fractions",
    "collect",
    "compared",
    "create",
    "execute",
    "open_study",
    "presets",
    "spread",
    "trials",
    "write_table",
]
