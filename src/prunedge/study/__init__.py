"""Experiments over many runs: a grid of recipes in, a folder of runs and one table out. On this machine or on a Ray cluster."""

from prunedge.study import ready, run
from prunedge.study.book import Book, Counts, create, open_book
from prunedge.study.grid import Grid, Trial, trials
from prunedge.study.statistics import Comparison, Spread, at_fractions, compared, spread
from prunedge.study.table import collect, write_table

__all__ = [
    "Book", "Comparison", "Counts", "Grid", "Spread", "Trial", "at_fractions", "collect", "compared", "create", "open_book", "ready", "run",
    "spread", "trials", "write_table",
]  # fmt: skip
