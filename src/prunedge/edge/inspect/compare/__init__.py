"""Two inspections of one place in; what is new, what grew, what is gone and what stayed out. Needs
no torch.
"""

from prunedge.edge.inspect.compare.comparison import Comparison, compare_inspections

__all__ = ["Comparison", "compare_inspections"]
