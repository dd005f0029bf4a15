"""Values picked and put in by their numbers: gather, scatter, `x[indices] = values`."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.memory import FILL
from prunedge.graph.rules.common import padded_shape, unknown
from prunedge.graph.rules.registry import rule
from prunedge.graph.sizes.picks import line_along

_FIXED = "meets values of a fixed size"
_NO_CHANNELS = "meets values that are no channels"


@rule("gather")
def gather(labeller: Labeller, call: Call) -> None:
    """Values picked by their number along one dimension.

    It holds no channels, or the same fixed numbers are picked everywhere.
    """
    x = call.input
    index = call["index"]
    dim = _dim(call)
    labels = labeller.promote(x)
    if labels is None or labeller.param(index) is not None:
        return unknown(labeller, call)

    if labels.shape[dim] > 1 and labeller.tag(index) is None and not labeller.varies(index):
        line = line_along(index, dim)
        others = [d for d in varying_dims(labels) if d != dim]
        if line is not None and all(index.shape[d] == x.shape[d] for d in others):
            picked = labels.index_select(dim, line.cpu())
            return labeller.name(call.result, compact(picked))

    if not _picks_places(labeller, labels, dim, index):
        return unknown(labeller, call)
    labeller.name(call.result, labels)


@rule("slice_scatter")
def scatter_slice(labeller: Labeller, call: Call) -> None:
    """A copy of the first tensor with the second in place of one of its slices."""
    x = call.input
    source = call["src"]
    labels = labeller.labels(x)
    if labels is None or _any_parameter(labeller, x, source):
        return unknown(labeller, call)

    dim = call["dim"] % x.dim()
    where = (slice(None),) * dim + (slice(call["start"], call["end"], call["step"]),)
    _put_in(labeller, compact(labels.expand(x.shape)[where]), source)
    labeller.name(call.result, labels)


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(labeller: Labeller, call: Call) -> None:
    """Values put in by their number along one dimension, which holds no channels."""
    x = call.input
    index = call["index"]
    source = call.get("src")
    dim = _dim(call)
    is_fresh = labeller.tag(x) is None and labeller.memory.is_filled(x)
    before = labeller.labels(x)
    labels = before if before is not None else labeller.labels(source)
    if labels is None or _any_parameter(labeller, x, index, source):
        return unknown(labeller, call)
    if before is None and not (is_fresh and call.is_in_place):
        return unknown(labeller, call)
    if not _picks_places(labeller, labels, dim, index):
        return unknown(labeller, call)
    if source is not None and any(source.shape[d] != x.shape[d] for d in varying_dims(labels)):
        return unknown(labeller, call)

    if source is not None and before is not None:
        _put_in(labeller, before, source)
    if is_fresh:
        labeller.memory.write(call.result, labels)
    else:
        _name_or_rewrite(labeller, call, labels)


@rule("index_add", "index_copy", "index_fill")
def put_along(labeller: Labeller, call: Call) -> None:
    """Values at some positions along one dimension, of channels where the numbers are fixed."""
    x = call.input
    index = call["index"]
    dim = _dim(call)
    source = call["value"] if call.name == "index_fill" else call.get("source")
    if not isinstance(source, torch.Tensor) or not source.dim():
        source = None

    labels = labeller.labels(x)
    is_param = _any_parameter(labeller, x, index, source)
    if labels is None or is_param or labeller.tag(index) is not None:
        return unknown(labeller, call)
    if labels.shape[dim] > 1 and labeller.varies(index):
        return unknown(labeller, call)

    replaced = labels
    if labels.shape[dim] > 1:
        replaced = labels.index_select(dim, index.reshape(-1).cpu())
    if source is not None:
        _put_in(labeller, replaced, source)
    _name_or_rewrite(labeller, call, labels)


@rule("index_put", "_unsafe_index_put", "_index_put_impl")
def put(labeller: Labeller, call: Call) -> None:
    """`x[indices] = values`, along dimensions without channels or among them by fixed numbers."""
    x = call.input
    indices = call["indices"]
    values = call["values"]
    labels = labeller.labels(x)
    is_filled = labeller.memory.is_filled(x)
    if labeller.tag(x) is not None or is_filled:
        value_labels = labeller.promote(values)
    else:
        value_labels = labeller.labels(values)

    is_param = _any_parameter(labeller, x, values)
    if labels is None and value_labels is None and not is_param:
        if call.is_in_place and not (values.numel() == 1 and is_filled):
            labeller.memory.write(call.result, None)
        return

    is_fresh = labels is None and is_filled and call.is_in_place
    picks = [index for index in indices if index is not None]
    if labeller.param(x) is not None or (labels is None and not is_fresh):
        return unknown(labeller, call)
    if any(labeller.tag(index) is not None for index in picks):
        return unknown(labeller, call)

    where = tuple(slice(None) if index is None else index for index in indices)
    if labels is None:
        assert value_labels is not None
        whole = torch.full(x.shape, FILL)
        whole[where] = value_labels
        return labeller.memory.write(call.result, whole)

    is_fixed_line = len(picks) == 1 and picks[0].dim() <= 1 and not labeller.varies(picks[0])
    if _is_among_channels(labels, indices) and not is_fixed_line:
        return unknown(labeller, call)
    replaced = compact(labels.expand(x.shape)[where])
    _replace(labeller, replaced, values, value_labels)
    _name_or_rewrite(labeller, call, labels)


def _replace(
    labeller: Labeller,
    replaced: torch.Tensor,
    values: torch.Tensor,
    value_labels: torch.Tensor | None,
) -> None:
    """Values that are broadcast take the place of these channels."""
    if value_labels is not None:
        return labeller.ledger.tie(replaced, value_labels, _NO_CHANNELS)
    if labeller.memory.is_filled(values):
        return
    sizes = padded_shape(values, replaced.dim())
    if any(sizes[dim] > 1 for dim in varying_dims(replaced)):
        labeller.ledger.freeze(replaced, _FIXED)


def _any_parameter(labeller: Labeller, *operands: torch.Tensor | None) -> bool:
    """Whether any of these operands is a parameter, or a view of one."""
    return any(labeller.param(operand) is not None for operand in operands)


def _is_among_channels(labels: torch.Tensor, indices: list[torch.Tensor | None]) -> bool:
    """Whether these numbers or masks pick along a dimension of channels."""
    where = [dim for dim, index in enumerate(indices) if index is not None]
    picks = [index for index in indices if index is not None]
    # A mask takes as many dimensions as it has.
    taken = sum(index.dim() if _is_mask(index) else 1 for index in picks)
    end = min(labels.dim(), max(where[-1] + 1, where[0] + taken))
    return any(labels.shape[dim] > 1 for dim in range(where[0], end))


def _is_mask(index: torch.Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _dim(call: Call) -> int:
    return call["dim"] % max(1, call.input.dim())


def _put_in(labeller: Labeller, replaced: torch.Tensor, source: torch.Tensor) -> None:
    """Values take the place of these channels, and leave with them."""
    labels = labeller.labels(source)
    if labels is not None:
        labeller.ledger.tie(replaced, labels, _NO_CHANNELS)
        return
    meets_channels = any(source.shape[d] > 1 for d in varying_dims(replaced))
    if meets_channels and not labeller.memory.is_filled(source):
        labeller.ledger.freeze(replaced, _FIXED)


def _name_or_rewrite(labeller: Labeller, call: Call, labels: torch.Tensor) -> None:
    """The result has these labels; in place, so has what it was written into."""
    if call.is_in_place:
        labeller.memory.rewrite(call.result, labels)
    else:
        labeller.name(call.result, labels)


def _picks_places(labeller: Labeller, labels: torch.Tensor, dim: int, index: Any) -> bool:
    """Whether these numbers pick the same places in each channel, or each channel's own.

    False along a dimension that holds channels.
    """
    if labels.shape[dim] > 1 or index.dim() != labels.dim():
        return False
    index_labels = labeller.labels(index)
    across = varying_dims(labels)
    if index_labels is None:
        small = compact(index)
        return all(index.shape[d] == labels.shape[d] and small.shape[d] == 1 for d in across)
    if varying_dims(index_labels) != across or index_labels.shape != labels.shape:
        return False
    reason = "is picked by numbers that are no channels"
    labeller.ledger.tie(labels, index_labels, reason)
    return True
