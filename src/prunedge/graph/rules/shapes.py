"""New shapes for the same elements: reshapes, and what leaves every element where it is."""

from __future__ import annotations

from math import prod

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import name_all, unknown
from prunedge.graph.rules.registry import rule


@rule(
    "clone",
    "detach",
    "alias",
    "_to_copy",
    "contiguous",
    "lift_fresh",
    "dropout",
    "native_dropout",
    "positive",
    "empty_like",
    "zeros_like",
    "ones_like",
    "full_like",
    is_regular=True,
)
def same(labeller: Labeller, call: Call) -> None:
    """The values, or as many of them, in the same order."""
    name_all(labeller, call.results, labeller.tag(call.input))


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", is_regular=True)
def reshape(labeller: Labeller, call: Call) -> None:
    """The labels in the new shape; dimensions that channels were divided into are noted."""
    x = call.input
    view = labeller.param(x)
    labels = labeller.labels(x)
    if view is not None:
        _reshape_param(labeller, call.result, view)
    elif labels is not None:
        _reshape_activation(labeller, x, call.result, labels)


def _reshape_param(labeller: Labeller, result: torch.Tensor, view: ParamView) -> None:
    shape = result.shape
    coordinates = [coordinate.reshape(shape) for coordinate in view.coordinates]
    after = ParamView(view.name, tuple(coordinates))
    sizes = []
    for dim, size in enumerate(shape):
        atoms = labeller.ledger.of(after, dim, None) if size > 1 else None
        if atoms is not None:
            sizes.append((dim, lying_along(atoms, dim, len(shape)), dim))
    labeller.sizes.note(sizes)
    labeller.name(result, after)


def _reshape_activation(
    labeller: Labeller, x: torch.Tensor, result: torch.Tensor, labels: torch.Tensor
) -> None:
    ledger = labeller.ledger
    after = compact(labels.expand(x.shape).reshape(result.shape))
    sizes_before = [size for size in labels.shape if size > 1]
    sizes = [size for size in after.shape if size > 1]
    is_spread = len(sizes) > 1 and prod(sizes) > labels.numel() * labeller.batch
    if is_spread and _regroups(x.shape, result.shape):
        # Channels and places are read in another order than they lie in: which channels meet
        # depends on the size of the image.
        order = "in an order that depends on the size of the image"
        return ledger.freeze(labels, f"is laid out among the places, {order}")
    if len(sizes) > 1 and sizes != sizes_before:
        # Heads and their width, shuffled groups: in the end channels leave along one of these.
        ledger.divisions.append((labeller.module, after.reshape(sizes)))
    labeller.sizes.note((dim, after, dim) for dim in varying_dims(after))
    labeller.name(result, after)


def _regroups(before: torch.Size, after: torch.Size) -> bool:
    """Whether a reshape reads two dimensions or more as two others or more (6, 4 as 8, 3).

    Other reshapes join dimensions or divide them, each by itself (6, 4 as 24, or as 2, 3, 4).
    """
    if 0 in before:
        return False
    old = [size for size in before if size > 1]
    new = [size for size in after if size > 1]
    while old and new:
        joined = [old.pop(0)]
        divided = [new.pop(0)]
        while prod(joined) != prod(divided):
            if prod(joined) < prod(divided):
                joined.append(old.pop(0))
            else:
                divided.append(new.pop(0))
        if len(joined) > 1 and len(divided) > 1:
            return True
    return False


@rule("as_strided")
def strided(labeller: Labeller, call: Call) -> None:
    """Moves nothing where the strides are those of the tensor's own shape.

    Pooling to a single place in the channels-last layout ends with such a call.
    """
    shape = list(call["size"])
    strides = [step for size, step in zip(shape, call["stride"], strict=True) if size > 1]
    contiguous: list[int] = []
    step = 1
    for size in reversed([size for size in shape if size > 1]):
        contiguous.insert(0, step)
        step *= size
    # In place it has happened already, so that only the new strides can be looked at.
    if shape != list(call.input.shape) or strides != contiguous:
        return unknown(labeller, call)
    same(labeller, call)
