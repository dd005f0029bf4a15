"""What each kind of ATen operation does to labels, a file for each family of operations.

What no rule describes freezes all that it touches. To follow one more operation, write a rule in
the file of its family and register it there; a new file is imported here.
"""

from prunedge.graph.calls import Call
from prunedge.graph.rules import (
    contractions,
    creation,
    elementwise,
    joins,
    moves,
    norms,
    picks,
    products,
    recurrent,
    reductions,
    sampling,
    shapes,
)
from prunedge.graph.rules.registry import Kept, over, over_for, rule, rule_for

__all__ = [
    "Call",
    "Kept",
    "contractions",
    "creation",
    "elementwise",
    "joins",
    "moves",
    "norms",
    "over",
    "over_for",
    "picks",
    "products",
    "recurrent",
    "reductions",
    "rule",
    "rule_for",
    "sampling",
    "shapes",
]
