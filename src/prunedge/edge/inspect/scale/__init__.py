"""How many millimetres a pixel shows, with its uncertainty: what the user gives, a marker in the
photograph, or distance and focal length in; a `Scale` out.
"""

from prunedge.edge.inspect.scale.quantity import COVERAGE, Quantity
from prunedge.edge.inspect.scale.scale import Scale

__all__ = ["COVERAGE", "Quantity", "Scale"]
