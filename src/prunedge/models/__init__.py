"""A name and weights in, a model and its cost out: `build(name, classes, weights)`, `cost(model,
example)`.
"""

from prunedge.models.build import (
    build,
    build_with_report,
    fits_classes,
    rebuild,
    refuse_unknown,
)
from prunedge.models.cost import Cost, cost
from prunedge.models.init import has_normalisation, initialise
from prunedge.models.makers import known_names, working_directory_importable
from prunedge.models.weights import Loaded, load_weights, read_weights

__all__ = [
    "Cost",
    "Loaded",
    "build",
    "build_with_report",
    "cost",
    "fits_classes",
    "has_normalisation",
    "initialise",
    "known_names",
    "load_weights",
    "read_weights",
    "rebuild",
    "refuse_unknown",
    "working_directory_importable",
]
