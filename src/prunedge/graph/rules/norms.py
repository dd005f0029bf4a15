"""Norms of activations and of weights, and how they run over the channels that stay."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import (
    narrowed,
    only_if_pruned,
    over_what_stays,
    param_lines,
    restored,
    squash_all_but,
)
from prunedge.graph.rules.elementwise import meet_params, scale_by
from prunedge.graph.rules.registry import Kept, over, rule

BATCH_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
    "batch_norm",
    "miopen_batch_norm",
)


@rule(*BATCH_NORMS, is_regular=True)
def batch_norm(labeller: Labeller, call: Call) -> None:
    """Each channel has its own scale, shift and statistics."""
    x = call["input"]
    weight = labeller.param(x)
    if weight is not None and call.get("running_mean") is None:
        return _standardise(labeller, call, weight)

    views = []
    is_computed = False  # a scale or shift that is no parameter's
    for name in ("weight", "bias", "running_mean", "running_var"):
        own = call.get(name)
        view = labeller.param(own)
        if view is not None:
            views.append(view)
        is_computed |= isinstance(own, torch.Tensor) and labeller.tag(own) is None

    labels = labeller.labels(x)
    if labels is None or is_computed:
        reason = "batch norm of values that can't be followed"
        return labeller.freeze_all(call.tensors, reason)

    labels = squash_all_but(labeller, labels, 1)
    for view in views:
        labeller.ledger.used.add(view.name)
        atoms = labeller.ledger.of(view, 0, "channel")
        if atoms is not None:
            labeller.ledger.tie(labels.reshape(-1), atoms)
    labeller.name(call.result, labels)


def _standardise(labeller: Labeller, call: Call, view: ParamView) -> None:
    """Weight standardisation as batch norm of a weight (1, filters, weights of a filter)."""
    ledger = labeller.ledger
    ledger.used.add(view.name)
    dims = [dim for dim in range(call["input"].dim()) if dim != 1]
    labeller.mixes(call, param_lines(labeller, view, dims))

    filters = ledger.of(view, 1, "out")
    for x in (call["weight"], call["bias"]):
        gain = labeller.param(x)
        if gain is None:
            continue
        ledger.used.add(gain.name)
        atoms = ledger.of(gain, 0, "channel")
        if atoms is not None and filters is not None:
            ledger.tie(filters, atoms)
    labeller.name(call.result, view)


over(*BATCH_NORMS)(over_what_stays)


@rule("native_layer_norm")
def layer_norm(labeller: Labeller, call: Call) -> None:
    """Mixes the channels along the last dimensions; each has its own scale and shift."""
    x = call["input"]
    labels = labeller.promote(x)
    if labels is None:
        reason = "layer norm of values that can't be followed"
        return labeller.freeze_all(call.tensors, reason)

    first = x.dim() - len(call["normalized_shape"])
    varying = varying_dims(labels)
    across = [dim for dim in varying if dim >= first]
    labeller.sizes.note((dim - first, labels, dim) for dim in across)
    if len(across) == 1:
        # Of heads and their width only one is pruned: the first head's line stands for all.
        first_line = [slice(0, 1)] * x.dim()
        first_line[across[0]] = slice(None)
        labeller.mixes(call, {across[0]: [labels[tuple(first_line)].reshape(-1)]})
    elif across:
        labeller.ledger.freeze(labels, "layer norm over several dimensions of channels")

    for affine in (call["weight"], call["bias"]):
        if labeller.param(affine) is not None:
            meets = [dim for dim in across if affine.shape[dim - first] > 1]
            scale_by(labeller, affine, labels, meets, varying)
        elif isinstance(affine, torch.Tensor):
            for dim in across:
                reason = "meets values of a fixed size"
                only_if_pruned(labeller, labels, dim, varying, None, reason)
    labeller.name(call.result, labels)


@over("native_layer_norm")
def layer_norm_over(call: Call, kept: Kept) -> Any:
    """The mean and the variance of the channels that stay."""
    x = narrowed(call["input"], kept)
    first = x.dim() - len(call["normalized_shape"])
    ((dim, positions),) = kept.items()
    weight = _selected(call["weight"], dim - first, positions)
    bias = _selected(call["bias"], dim - first, positions)
    out = call.func(x, list(x.shape[first:]), weight, bias, call["eps"])
    return restored(out, call["input"].shape, kept)


def _selected(
    affine: torch.Tensor | None, dim: int, positions: torch.Tensor
) -> torch.Tensor | None:
    """What stays of a norm's scale or shift."""
    return None if affine is None else affine.index_select(dim, positions)


@rule("native_group_norm")
def group_norm(labeller: Labeller, call: Call) -> None:
    """Mixes the channels of each group.

    Whole groups leave where they are small, else the same channels of each.
    """
    x = call["input"]
    labels = labeller.labels(x)
    if labels is None:
        reason = "group norm of values that can't be followed"
        return labeller.freeze_all(call.tensors, reason)

    ledger = labeller.ledger
    line = squash_all_but(labeller, labels, 1).reshape(-1).expand(x.shape[1])
    for affine in (call["weight"], call["bias"]):
        view = labeller.param(affine)
        if view is not None:
            ledger.used.add(view.name)
            atoms = ledger.of(view, 0, "channel")
            if atoms is not None:
                ledger.tie(line, atoms)
        elif isinstance(affine, torch.Tensor):
            ledger.freeze(line, "meets values of a fixed size")

    groups = call["group"]
    blocks = line.reshape(groups, -1)
    if norm_by_blocks(groups, x.shape[1]):
        ledger.tie(blocks[:, :1], blocks)
        labeller.sizes.note([(0, lying_along(blocks[:, 0], 1, x.dim()), 1)])
    else:
        ledger.tie(blocks[:1], blocks)
        labeller.mixes(call, {1: [line]})
    labeller.name(call.result, lying_along(line, 1, x.dim()))


@over("native_group_norm")
def group_norm_over(call: Call, kept: Kept) -> Any:
    """The mean and the variance of what stays of each group."""
    x = narrowed(call["input"], kept)
    channels = kept[1]
    weight = _selected(call["weight"], 0, channels)
    bias = _selected(call["bias"], 0, channels)
    sizes = (call["N"], len(channels), call["HxW"])
    out = call.func(x, weight, bias, *sizes, call["group"], call["eps"])
    return restored(out, call["input"].shape, kept)


def norm_by_blocks(groups: int, channels: int) -> bool:
    """Whether a group norm loses whole groups (they are small), not the same channels of each."""
    return channels // groups < 4


@rule("_weight_norm_interface")
def weight_norm(labeller: Labeller, call: Call) -> None:
    """w = g * v / |v|: a channel of v takes its length g along; an input leaves the norm."""
    v = call["v"]
    g = call["g"]
    view = labeller.param(v)
    if view is not None:
        dims = [dim for dim in range(v.dim()) if g.shape[dim] == 1]
        labeller.mixes(call, param_lines(labeller, view, dims))
    meet_params(labeller, [v, g], call.results[:1])


@over("_weight_norm_interface", always=True)
def weight_norm_over(call: Call, kept: Kept) -> Any:
    """The lengths of what stays; a filter of zeros has no direction (0 / 0), and stays zero."""
    return tree_map(lambda x: x.nan_to_num(), over_what_stays(call, kept))
