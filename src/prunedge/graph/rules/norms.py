"""Norms of activations and of weights."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Labeller, ParamView
from prunedge.graph.rules.common import only_if_pruned, outputs_of, param_lines, varying_dims
from prunedge.graph.rules.elementwise import pointwise_params, scale_by


def weight_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """w = g * v / |v|: a channel of v takes its length g along; an input channel leaves the norm."""
    view = lab.param(args[0])
    if view is not None:
        lab.mixes(func, args[0].dim(), param_lines(lab, view, [d for d in range(args[0].dim()) if args[1].shape[d] == 1]))
    pointwise_params(lab, [args[0], args[1]], outputs_of(out)[:1])


def batch_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Each channel has its own scale, shift and statistics."""
    labels, weight = lab.labels(args[0]), lab.param(args[0])
    if weight is not None and args[3] is None:
        return _standardise(lab, func, weight, args, out)
    views = [view for view in (lab.param(x) for x in args[1:5]) if view is not None]
    computed = any(isinstance(x, torch.Tensor) and lab.tag(x) is None for x in args[1:5])
    if labels is None or computed:
        return lab.freeze_all(args, kwargs, "batch norm of values that can't be followed")
    labels = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != 1])
    for view in views:
        lab.ledger.used.add(view.name)
        atoms = lab.ledger.of(view, 0, "channel")
        if atoms is not None:
            lab.ledger.tie(labels.reshape(-1), atoms)
    lab.name(outputs_of(out)[0], labels)


def _standardise(lab: Labeller, func: Any, view: ParamView, args: Any, out: Any) -> None:
    """Weight standardisation written as batch norm of a weight (1, filters, weights of a filter)."""
    lab.ledger.used.add(view.name)
    lab.mixes(func, args[0].dim(), param_lines(lab, view, [d for d in range(args[0].dim()) if d != 1]))
    filters = lab.ledger.of(view, 1, "out")
    for x in args[1:3]:
        gain = lab.param(x)
        if gain is not None:
            lab.ledger.used.add(gain.name)
            atoms = lab.ledger.of(gain, 0, "channel")
            if atoms is not None and filters is not None:
                lab.ledger.tie(filters, atoms)
    lab.name(outputs_of(out)[0], view)


def layer_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Mixes the channels along the last dimensions; each has its own scale and shift."""
    x, shape, labels = args[0], args[1], lab.promote(args[0])
    if labels is None:
        return lab.freeze_all(args, kwargs, "layer norm of values that can't be followed")
    rank, first = x.dim(), x.dim() - len(shape)
    varying = varying_dims(labels)
    across = [d for d in varying if d >= first]
    lab.resizes((d - first, labels, d) for d in across)
    if len(across) == 1:
        # Of several dimensions of channels (heads, width) only one is pruned: the first head's line stands for all.
        line = labels[tuple(slice(None) if d == across[0] else slice(0, 1) for d in range(rank))]
        lab.mixes(func, rank, {across[0]: [line.reshape(-1)]})
    elif across:
        lab.ledger.freeze(labels, "layer norm over several dimensions of channels")
    for weight in args[2:4]:
        if lab.param(weight) is not None:
            scale_by(lab, weight, labels, [d for d in across if weight.shape[d - first] > 1], varying, rank)
        elif isinstance(weight, torch.Tensor):
            for d in across:
                only_if_pruned(lab, labels, d, varying, None, "meets values of a fixed size")
    lab.name(outputs_of(out)[0], labels)


def group_norm(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Mixes the channels of each group: whole groups leave where they are small, else the same channels of each."""
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    labels = lab.labels(x)
    if labels is None:
        return lab.freeze_all(args, kwargs, "group norm of values that can't be followed")
    line = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != 1]).reshape(-1).expand(x.shape[1])
    for one in (weight, bias):
        view = lab.param(one)
        if view is not None:
            lab.ledger.used.add(view.name)
            atoms = lab.ledger.of(view, 0, "channel")
            if atoms is not None:
                lab.ledger.tie(line, atoms)
        elif isinstance(one, torch.Tensor):
            lab.ledger.freeze(line, "meets values of a fixed size")
    blocks = line.reshape(groups, -1)
    if norm_by_blocks(groups, x.shape[1]):
        lab.ledger.tie(blocks[:, :1], blocks)
        lab.resizes([(0, blocks[:, 0].reshape([1, -1] + [1] * (x.dim() - 2)), 1)])
    else:
        lab.ledger.tie(blocks[:1], blocks)
        lab.mixes(func, x.dim(), {1: [line]})
    lab.name(outputs_of(out)[0], line.reshape([1, -1] + [1] * (x.dim() - 2)))


def norm_by_blocks(groups: int, channels: int) -> bool:
    """Whether a group norm loses whole groups (they are small), rather than the same channels of each."""
    return channels // groups < 4
