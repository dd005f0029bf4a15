"""Layers that consume channels and make others: matrices and convolutions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.channels import Operation
from prunedge.graph.labels import Labeller, ParamView, compact
from prunedge.graph.rules.common import unknown, varying_dims
from prunedge.graph.rules.products import contract


def consume(lab: Labeller, labels: torch.Tensor | None, dim: int, atoms: torch.Tensor | None) -> None:
    """Tie the labels of a contraction's input along `dim` to the slices of the weight that meet them."""
    if labels is None:
        return lab.ledger.freeze(atoms, "consumes the picture or values that are no channels")
    if atoms is None:
        return lab.ledger.freeze(labels, "a layer consumes the channels in an order that can't be followed")
    line = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != dim % labels.dim()])
    lab.ledger.tie(line.reshape(-1), atoms)


def shift(lab: Labeller, bias: Any, atoms: torch.Tensor | None) -> None:
    """Tie a bias to the channels that it shifts."""
    view = lab.param(bias)
    if view is not None:
        lab.ledger.used.add(view.name)
        shifts = lab.ledger.of(view, 0, "channel")
        if shifts is not None and atoms is not None:
            lab.ledger.tie(atoms, shifts)
    elif isinstance(bias, torch.Tensor) and atoms is not None:
        # A bias put together from several parameters carries their labels; any other is of a fixed size.
        labels = lab.labels(bias)
        lab.ledger.tie(atoms, torch.zeros(1, dtype=torch.int64) if labels is None else labels, "a computed bias meets the channels")


def matrix(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(..., k) times a weight: consumes the last dimension and makes another."""
    linear = func._schema.name == "aten::linear"
    shifted = func._schema.name == "aten::addmm"
    x, weight = (args[1], args[2]) if shifted else (args[0], args[1])
    bias = args[0] if shifted else (args[2] if linear and len(args) > 2 else None)
    view = lab.param(weight)
    if view is None and lab.param(x) is None and bias is None and weight.dim() == 2:
        return lab.name(out, contract(lab, x, weight, lab.labels(x), lab.labels(weight)))
    if view is None:
        return unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    part = weight.numel() / prod(lab.ledger.shapes[view.name])
    lab.ledger.operations.append(Operation(view.name, max(1, prod(x.shape[:-1]) // lab.batch) * part))
    made = lab.ledger.of(view, 0 if linear else 1, "out")
    consume(lab, lab.promote(x), x.dim() - 1, lab.ledger.of(view, 1 if linear else 0, "in"))
    shift(lab, bias, made)
    lab.ledger.positions.setdefault(view.name, prod(x.shape[1:-1]))
    lab.name(out, None if made is None else made.reshape([1] * (out.dim() - 1) + [-1]))


def convolution(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Consumes the channels, dimension 1, and makes others; depthwise, each channel leaves with its own."""
    x, weight, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    view, labels = lab.param(weight), lab.labels(x)
    if view is None or lab.param(x) is not None:
        return unknown(lab, func, args, kwargs, out)
    varying = [] if labels is None else varying_dims(labels)
    slides = bool(varying) and 1 not in varying and all(x.shape[d] == out.shape[d] for d in varying)
    if labels is not None and slides and weight.numel() == weight.shape[-1]:
        return _slide(lab, func, labels, view, args, out)
    lab.ledger.used.add(view.name)
    places = prod((x if transposed else out).shape[2:])
    lab.ledger.operations.append(Operation(view.name, places * x.shape[0] // lab.batch))
    lab.ledger.positions.setdefault(view.name, prod(out.shape[2:]))
    channels = out.shape[1]
    if groups > 1 and groups == x.shape[1] and not transposed:
        made = depthwise(lab, labels, view, groups, channels)
    else:
        made = dense(lab, labels, view, transposed, groups, channels)
    shift(lab, bias, made)
    lab.name(out, None if made is None else made.reshape([1, -1] + [1] * (out.dim() - 2)))


def _slide(lab: Labeller, func: Any, labels: torch.Tensor, view: ParamView, args: Any, out: Any) -> None:
    """A small filter that slides along the channels (efficient channel attention): each meets the neighbours that stay."""
    x = args[0]
    lab.ledger.used.add(view.name)
    lab.ledger.operations.append((prod(out.shape[2:]) * args[1].numel() // max(1, labels.numel()) * x.shape[0] // lab.batch, labels))
    if len(varying_dims(labels)) == 1:
        lab.mixes(func, x.dim(), {varying_dims(labels)[0]: [labels.reshape(-1)]})
        lab.name(out, labels)
    else:
        lab.ledger.freeze(labels, "a filter slides along channels in two directions")


def depthwise(lab: Labeller, labels: torch.Tensor | None, view: ParamView, groups: int, channels: int) -> torch.Tensor | None:
    """Each input channel makes its own `channels // groups` outputs, and leaves with them."""
    made = lab.ledger.of(view, 0, "channel")
    if labels is not None and len(varying_dims(labels)) == 1:
        # Code that calls the convolution itself may have written down its number of groups.
        lab.ledger.parts.append((lab.module, labels))
        lab.resizes([(0, labels, 1)] if labels.shape[1] > 1 else [])
    if made is not None:
        source = None if labels is None else labels.repeat_interleave(channels // groups, 1)
        consume(lab, source, 1, made)
    return made


def dense(lab: Labeller, labels: torch.Tensor | None, view: ParamView, transposed: bool, groups: int, channels: int) -> torch.Tensor | None:
    """Every group of a grouped convolution loses the same channels: the j-th of each block are tied together."""
    ins, outs = lab.ledger.of(view, 0 if transposed else 1, "in"), lab.ledger.of(view, 1 if transposed else 0, "out")
    if groups == 1:
        consume(lab, labels, 1, ins)
        return outs
    # Down to one channel a block it would be a depthwise one.
    lab.ledger.irregular = True
    if transposed or ins is None or outs is None or view.along(0) is None:
        lab.ledger.freeze_param(view, "a grouped transposed convolution is not followed")
        lab.ledger.freeze(labels, "a grouped transposed convolution is not followed")
        return outs if outs is not None and len(outs) == channels else None
    consume(lab, labels, 1, ins.repeat(groups))
    blocks = outs.reshape(groups, -1)
    lab.ledger.tie(blocks[:1], blocks)
    return outs


def weight_times_vector(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A weight, flattened to a matrix, times a vector (the largest singular value, spectral norm): a sum over the columns that stay.

    The vector's places leave with the weight's columns; what is made varies along the weight's rows.
    """
    view, other = lab.param(args[0]), lab.param(args[1])
    if view is None or other is None:
        return unknown(lab, func, args, kwargs, out)
    _meet_along(lab, func, view, other, 1)
    rows = tuple(c.narrow(1, 0, 1).squeeze(1) for c in view.coordinates)
    lab.name(out, ParamView(view.name, rows))


def vector_times_vector(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The sum of the products of two parameters' elements: over those that stay."""
    views = [lab.param(x) for x in args[:2]]
    if views[0] is None or views[1] is None:
        return unknown(lab, func, args, kwargs, out)
    ours, theirs = sorted(views, key=lambda view: len(view.coordinates) if view is not None else 0, reverse=True)
    assert ours is not None and theirs is not None
    _meet_along(lab, func, ours, theirs, 0)


def _meet_along(lab: Labeller, func: Any, view: ParamView, vector: ParamView, dim: int) -> None:
    """Tie a vector's places to the channels of a weight along one dimension of its view, over which they are summed up."""
    for one in (view, vector):
        lab.ledger.used.add(one.name)
    theirs = lab.ledger.of(vector, 0, "channel")
    lines = weight_lines(lab, view, dim)
    if theirs is None or not lines:
        for one in (view, vector):
            lab.ledger.freeze_param(one, "parameters are multiplied in a way that can't be followed")
        return
    for line in lines:
        lab.ledger.tie(theirs, line)
    lab.mixes(func, view.coordinates[0].dim(), {dim: lines})


def weight_lines(lab: Labeller, view: ParamView, dim: int) -> list[torch.Tensor]:
    """Atoms of a weight's channels along one dimension of its view, into which its kernel's places may be flattened, too."""
    lines = []
    for axis, coordinate in enumerate(view.coordinates):
        small = compact(coordinate)
        if small.shape[dim] == 1 or axis > 1:
            continue
        if small.numel() != small.shape[dim] or bool((small < 0).any()):
            return []
        lines.append(small.reshape(-1) + lab.ledger.base[view.name, axis])
    return lines
