"""Layers that consume channels and make others: matrices and convolutions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.observations import Operation
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import narrowed, over_what_stays, squash_all_but, unknown
from prunedge.graph.rules.products import contract
from prunedge.graph.rules.registry import Kept, over, rule

CONVOLUTIONS = ("convolution", "_convolution")


@rule("linear", is_regular=True)
def linear(labeller: Labeller, call: Call) -> None:
    """(..., k) times a weight of shape (m, k), transposed."""
    _times_weight(labeller, call, call["input"], call["weight"], call["bias"], makes=0)


@rule("mm", is_regular=True)
def matrix(labeller: Labeller, call: Call) -> None:
    """(n, k) times a weight of shape (k, m), or times another activation."""
    _times_weight(labeller, call, call["self"], call["mat2"], None, makes=1)


@rule("addmm", is_regular=True)
def shifted_matrix(labeller: Labeller, call: Call) -> None:
    """(n, k) times a weight of shape (k, m), plus a bias."""
    if call.is_in_place:
        return unknown(labeller, call)
    _times_weight(labeller, call, call["mat1"], call["mat2"], call["self"], makes=1)


def _times_weight(
    labeller: Labeller, call: Call, x: torch.Tensor, weight: torch.Tensor, bias: Any, *, makes: int
) -> None:
    """Consumes the last dimension and makes another, the `makes`-th of the weight."""
    out = call.result
    view = labeller.param(weight)
    if view is None:
        if labeller.param(x) is None and bias is None and weight.dim() == 2:
            made = contract(labeller, x, weight, labeller.labels(x), labeller.labels(weight))
            return labeller.name(out, made)
        return unknown(labeller, call)

    ledger = labeller.ledger
    ledger.used.add(view.name)
    share = weight.numel() / prod(ledger.shapes[view.name])  # below 1: a slice of the weight
    positions = max(1, prod(x.shape[:-1]) // labeller.batch)
    ledger.operations.append(Operation(view.name, positions * share))
    ledger.positions.setdefault(view.name, prod(x.shape[1:-1]))

    made = ledger.of(view, makes, "out")
    labels = labeller.promote(x)
    consume(labeller, labels, x.dim() - 1, ledger.of(view, 1 - makes, "in"))
    shift(labeller, bias, made)
    labeller.name(out, None if made is None else lying_along(made, out.dim() - 1, out.dim()))


def consume(
    labeller: Labeller, labels: torch.Tensor | None, dim: int, atoms: torch.Tensor | None
) -> None:
    """Tie the labels of a contraction's input along `dim` to the weight's slices that meet them."""
    ledger = labeller.ledger
    if labels is None:
        return ledger.freeze(atoms, "consumes the image or values that are no channels")
    if atoms is None:
        reason = "a layer consumes the channels in an order that can't be followed"
        return ledger.freeze(labels, reason)
    line = squash_all_but(labeller, labels, dim % labels.dim())
    ledger.tie(line.reshape(-1), atoms)


def shift(labeller: Labeller, bias: Any, atoms: torch.Tensor | None) -> None:
    """Tie a bias to the channels that it shifts."""
    ledger = labeller.ledger
    view = labeller.param(bias)
    if view is not None:
        ledger.used.add(view.name)
        shifts = ledger.of(view, 0, "channel")
        if shifts is not None and atoms is not None:
            ledger.tie(atoms, shifts)
    elif isinstance(bias, torch.Tensor) and atoms is not None:
        # A bias put together from several parameters carries labels; another is of a fixed size.
        labels = labeller.labels(bias)
        if labels is None:
            labels = torch.zeros(1, dtype=torch.int64)
        ledger.tie(atoms, labels, "a computed bias meets the channels")


@rule(*CONVOLUTIONS, is_regular=True)
def convolution(labeller: Labeller, call: Call) -> None:
    """Consumes the channels, dimension 1, and makes others; depthwise, each leaves with its own."""
    x = call["input"]
    view = labeller.param(call["weight"])
    labels = labeller.labels(x)
    if view is None or labeller.param(x) is not None:
        return unknown(labeller, call)
    if labels is not None and _slides_along_channels(call, labels):
        return _slide(labeller, call, labels, view)

    out = call.result
    is_transposed = call["transposed"]
    ledger = labeller.ledger
    ledger.used.add(view.name)
    positions = prod((x if is_transposed else out).shape[2:])
    ledger.operations.append(Operation(view.name, positions * x.shape[0] // labeller.batch))
    ledger.positions.setdefault(view.name, prod(out.shape[2:]))

    groups = call["groups"]
    channels = out.shape[1]
    if groups > 1 and groups == x.shape[1] and not is_transposed:
        made = depthwise(labeller, labels, view, groups, channels)
    else:
        made = dense(labeller, labels, view, is_transposed, groups, channels)
    shift(labeller, call["bias"], made)
    labeller.name(out, None if made is None else lying_along(made, 1, out.dim()))


def _slides_along_channels(call: Call, labels: torch.Tensor) -> bool:
    """Whether a filter that is a single line slides along channels, which are no dimension 1."""
    weight = call["weight"]
    varying = varying_dims(labels)
    if not varying or 1 in varying or weight.numel() != weight.shape[-1]:
        return False
    return all(call["input"].shape[dim] == call.result.shape[dim] for dim in varying)


def _slide(labeller: Labeller, call: Call, labels: torch.Tensor, view: ParamView) -> None:
    """A small filter along the channels (efficient channel attention) meets those that stay."""
    ledger = labeller.ledger
    ledger.used.add(view.name)
    macs = prod(call.result.shape[2:]) * call["weight"].numel()
    positions = macs // max(1, labels.numel()) * call["input"].shape[0] // labeller.batch
    ledger.operations.append((positions, labels))

    varying = varying_dims(labels)
    if len(varying) == 1:
        labeller.mixes(call, {varying[0]: [labels.reshape(-1)]})
        labeller.name(call.result, labels)
    else:
        ledger.freeze(labels, "a filter slides along channels in two directions")


over(*CONVOLUTIONS)(over_what_stays)


def depthwise(
    labeller: Labeller, labels: torch.Tensor | None, view: ParamView, groups: int, channels: int
) -> torch.Tensor | None:
    """Each input channel makes its own `channels // groups` outputs, and leaves with them."""
    made = labeller.ledger.of(view, 0, "channel")
    if labels is not None and len(varying_dims(labels)) == 1:
        # Code that calls the convolution itself may have written down its number of groups.
        labeller.ledger.slices.append((labeller.module, labels))
        labeller.sizes.note([(0, labels, 1)] if labels.shape[1] > 1 else [])
    if made is not None:
        source = None if labels is None else labels.repeat_interleave(channels // groups, 1)
        consume(labeller, source, 1, made)
    return made


def dense(
    labeller: Labeller,
    labels: torch.Tensor | None,
    view: ParamView,
    is_transposed: bool,
    groups: int,
    channels: int,
) -> torch.Tensor | None:
    """Every group of a grouped convolution loses the same channels.

    The j-th of each block are tied together.
    """
    ledger = labeller.ledger
    consumed = ledger.of(view, 0 if is_transposed else 1, "in")
    made = ledger.of(view, 1 if is_transposed else 0, "out")
    if groups == 1:
        consume(labeller, labels, 1, consumed)
        return made

    # With a single channel left in each block it would be a depthwise convolution.
    ledger.irregular = True
    if is_transposed or consumed is None or made is None or view.along(0) is None:
        reason = "a grouped transposed convolution is not followed"
        ledger.freeze_param(view, reason)
        ledger.freeze(labels, reason)
        return made if made is not None and len(made) == channels else None

    consume(labeller, labels, 1, consumed.repeat(groups))
    blocks = made.reshape(groups, -1)
    ledger.tie(blocks[:1], blocks)
    return made


@rule("mv")
def weight_times_vector(labeller: Labeller, call: Call) -> None:
    """A weight, flattened to a matrix, times a vector (the largest singular value, spectral norm).

    It is a sum over the columns that stay: the vector's elements leave with the weight's columns;
    what is made varies along the weight's rows.
    """
    view = labeller.param(call["self"])
    vector = labeller.param(call["vec"])
    if view is None or vector is None:
        return unknown(labeller, call)

    _meet_along(labeller, call, view, vector, 1)
    first_column = [coordinate.narrow(1, 0, 1).squeeze(1) for coordinate in view.coordinates]
    labeller.name(call.result, ParamView(view.name, tuple(first_column)))


@rule("dot", "vdot")
def vector_times_vector(labeller: Labeller, call: Call) -> None:
    """The sum of the products of two parameters' elements: over those that stay."""
    views = [view for view in map(labeller.param, call.tensors) if view is not None]
    if len(views) < 2:
        return unknown(labeller, call)
    weight, vector = sorted(views, key=lambda view: len(view.coordinates), reverse=True)
    _meet_along(labeller, call, weight, vector, 0)


@over("mv", "dot", "vdot")
def vector_over(call: Call, kept: Kept) -> Any:
    """The sum over the columns that stay."""
    (columns,) = kept.values()
    _, vector = call.tensors
    return call.func(narrowed(call.input, kept), vector.index_select(0, columns))


def _meet_along(
    labeller: Labeller, call: Call, view: ParamView, vector: ParamView, dim: int
) -> None:
    """Tie a vector's elements to a weight's channels along a dimension that is summed over."""
    ledger = labeller.ledger
    ledger.used.update((view.name, vector.name))
    elements = ledger.of(vector, 0, "channel")
    lines = _weight_lines(labeller, view, dim)
    if elements is None or not lines:
        reason = "parameters are multiplied in a way that can't be followed"
        for parameter in (view, vector):
            ledger.freeze_param(parameter, reason)
        return

    for line in lines:
        ledger.tie(elements, line)
    labeller.mixes(call, {dim: lines})


def _weight_lines(labeller: Labeller, view: ParamView, dim: int) -> list[torch.Tensor]:
    """Atoms of a weight's channels along one dimension of its view.

    The positions of its kernel may be flattened into that dimension, too.
    """
    lines = []
    for axis, coordinate in enumerate(view.coordinates):
        small = compact(coordinate)
        if small.shape[dim] == 1 or axis > 1:
            continue
        if small.numel() != small.shape[dim] or bool((small < 0).any()):
            return []
        lines.append(small.reshape(-1) + labeller.ledger.base[view.name, axis])
    return lines
