"""Pools, means and other reductions, and what runs along a dimension."""

from __future__ import annotations

from typing import Any

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import (
    dims_of,
    lines_along,
    name_all,
    narrowed,
    over_what_stays,
    param_lines,
    unknown,
)
from prunedge.graph.rules.elementwise import pointwise
from prunedge.graph.rules.registry import Kept, over, rule

REDUCTIONS = (
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "argmax",
    "prod",
    "logsumexp",
    "any",
    "all",
    "norm",
    "linalg_vector_norm",
    "argmin",
    "median",
    "nanmedian",
    "kthvalue",
    "mode",
    "nansum",
    "count_nonzero",
    "std_mean",
)
SOFTMAXES = ("_softmax", "_log_softmax", "_safe_softmax", "softmax")


@rule(
    "max_pool*",
    "avg_pool*",
    "adaptive_avg_pool*",
    "_adaptive_avg_pool*",
    "adaptive_max_pool*",
    "fractional_max_pool*",
    "upsample*",
    "_upsample*",
    "reflection_pad*",
    "replication_pad*",
    "tril",
    "triu",
    is_regular=True,
)
def pool(labeller: Labeller, call: Call) -> None:
    """Mixes places, not channels."""
    ranks = [int(letter) for letter in call.name if letter.isdigit()]
    places = ranks[0] if any(rank in (1, 2, 3) for rank in ranks) else 2
    labels = labeller.over_places(call.input, places)
    if labels is None:
        return unknown(labeller, call)
    name_all(labeller, call.results, labels)


@rule(*REDUCTIONS, is_regular=True)
def reduce(labeller: Labeller, call: Call) -> None:
    """Over places each channel stays one; over channels the rest of them is left to reduce."""
    if any(labeller.tag(x) is not None for x in call.tensors[1:]):  # the binary max and min
        return pointwise(labeller, call)

    source = call.input
    dims = dims_of(call, source.dim())
    view = labeller.param(source)
    if view is not None:
        return _reduce_param(labeller, call, view, dims)
    labels = labeller.labels(source)
    if labels is None:
        return unknown(labeller, call)

    varying = varying_dims(labels)
    across = [dim for dim in varying if dim in dims]
    if across and len(across) == len(varying):
        return labeller.mixes(call, lines_along(labeller, labels, across))

    # A sum over blocks (split attention) or over a head's width: what is summed up leaves together.
    labels = labeller.ledger.squash(labels, across)
    remaining = [size for dim, size in enumerate(labels.shape) if dim not in dims]
    for result in call.results:
        keeps_dims = result.dim() == source.dim()
        labeller.name(result, labels if keeps_dims else labels.reshape(remaining))


def _reduce_param(labeller: Labeller, call: Call, view: ParamView, dims: list[int]) -> None:
    """The mean or norm of a weight over some of its dimensions (standardised or normed weights)."""
    labeller.ledger.used.add(view.name)
    labeller.mixes(call, param_lines(labeller, view, dims))
    rank = view.coordinates[0].dim()
    kept_dims = []  # coordinates of what comes out with size 1 along the reduced dimensions
    squeezed = []  # and without these dimensions
    firsts = tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(rank))
    for coordinate in view.coordinates:
        reduced = coordinate[firsts]
        remaining = [size for dim, size in enumerate(reduced.shape) if dim not in dims]
        kept_dims.append(reduced)
        squeezed.append(reduced.reshape(remaining))

    for result in call.results:
        coordinates = kept_dims if result.dim() == rank else squeezed
        labeller.name(result, ParamView(view.name, tuple(coordinates)) if result.dim() else None)


@over(*REDUCTIONS)
def reduce_over(call: Call, kept: Kept) -> Any:
    """The reduction of what stays."""
    return call.again(narrowed(call.input, kept))


@rule(*SOFTMAXES, "cumsum", "sort", "topk", "cumprod", "logcumsumexp", "cummax", "cummin")
def along(labeller: Labeller, call: Call) -> None:
    """What runs along a dimension: each place depends on the others."""
    x = call.input
    if labeller.param(x) is not None:
        return unknown(labeller, call)

    labels = labeller.labels(x)
    if labels is not None:
        across = [dim for dim in dims_of(call, x.dim()) if labels.shape[dim] > 1]
        if across and call.name not in SOFTMAXES:
            labeller.ledger.freeze(labels, f"{call.name.strip('_')} runs across the channels")
        elif across and len(varying_dims(labels)) > 1:
            # Softmax over the blocks (split attention): the blocks stay, their channels may go.
            labels = labeller.ledger.squash(labels, across).expand(labels.shape)
        elif across:
            labeller.mixes(call, {across[0]: [labels.reshape(-1)]})
    name_all(labeller, call.results, labels)


over(*SOFTMAXES)(over_what_stays)
