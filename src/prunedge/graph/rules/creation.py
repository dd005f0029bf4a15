"""What makes new tensors: of one number, of nothing yet, of random values."""

from __future__ import annotations

from prunedge.graph.calls import Call
from prunedge.graph.labels import Labeller
from prunedge.graph.rules.elementwise import pointwise
from prunedge.graph.rules.registry import rule


@rule(
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_empty_strided",
    "zeros",
    "ones",
    "full",
    "empty",
    "empty_strided",
    "_efficientzerotensor",
    is_regular=True,
)
def filled(labeller: Labeller, call: Call) -> None:
    """A new tensor that holds one number throughout, or nothing yet."""
    for result in call.results:
        labeller.fill(result)


@rule("arange", "scalar_tensor", "linspace", "tensor", "eye", is_regular=True)
def numbers(labeller: Labeller, call: Call) -> None:
    """The results carry no channels."""


@rule(
    "bernoulli",
    "rand",
    "randn",
    "rand_like",
    "randn_like",
    "uniform",
    "normal",
    "exponential",
    is_regular=True,
)
def noise(labeller: Labeller, call: Call) -> None:
    """Random values, drawn for each element by itself (the masks of dropout)."""
    if any(labeller.tag(x) is not None for x in call.tensors):
        return pointwise(labeller, call)

    for result in call.results:
        labeller.memory.write(result, None)
        labeller.memory.randomise(result)
