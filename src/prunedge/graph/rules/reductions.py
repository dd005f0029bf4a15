"""Pools, means and other reductions, and what runs along a dimension."""

from __future__ import annotations

from typing import Any

from prunedge.graph.labels import Labeller, ParamView
from prunedge.graph.rules.common import base_name, dims_of, lines_along, outputs_of, param_lines, unknown, varying_dims
from prunedge.graph.rules.elementwise import pointwise


def pool(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Mixes places, not channels."""
    name = func._schema.name
    places = next(int(d) for d in name if d.isdigit()) if any(d in name for d in "123") else 2
    labels = lab.over_places(args[0], places)
    if labels is None:
        return unknown(lab, func, args, kwargs, out)
    for made in outputs_of(out):
        lab.name(made, labels)


def reduce(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Over places each channel stays one; over channels the rest of them is what is left to reduce."""
    source, labels, view = args[0], lab.labels(args[0]), lab.param(args[0])
    others = [x for x in lab.tensors(args[1:], kwargs) if lab.tag(x) is not None]
    if others:  # the binary max and min
        return pointwise(lab, func, args, kwargs, out)
    dims = dims_of(func, args, kwargs, source.dim())
    if view is not None:
        return _reduce_param(lab, func, view, dims, out)
    if labels is None:
        return unknown(lab, func, args, kwargs, out)
    across = [d for d in varying_dims(labels) if d in dims]
    if across and any(d not in dims for d in varying_dims(labels)):
        # A sum over blocks (split attention) or over a head's width: what is summed up leaves together.
        labels, across = lab.ledger.squash(labels, across), []
    if across:
        lab.mixes(func, source.dim(), lines_along(lab, labels, across))
        return
    for made in outputs_of(out):
        kept = labels if made.dim() == source.dim() else labels.reshape([s for d, s in enumerate(labels.shape) if d not in dims])
        lab.name(made, kept)


def _reduce_param(lab: Labeller, func: Any, view: ParamView, dims: list[int], out: Any) -> None:
    """The mean or norm of a weight over some of its dimensions (weight standardisation, weight norm)."""
    lab.ledger.used.add(view.name)
    lab.mixes(func, len(view.coordinates), param_lines(lab, view, dims))
    for made in outputs_of(out):
        keepdim = made.dim() == view.coordinates[0].dim()
        smaller = [c[tuple(slice(0, 1) if d in dims else slice(None) for d in range(c.dim()))] for c in view.coordinates]
        if not keepdim:
            smaller = [c.reshape([size for d, size in enumerate(c.shape) if d not in dims]) for c in smaller]
        lab.name(made, ParamView(view.name, tuple(smaller)) if made.dim() else None)


def along(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """What runs along a dimension: each place depends on the others."""
    labels, name = lab.labels(args[0]), base_name(func).strip("_")
    if lab.param(args[0]) is not None:
        return unknown(lab, func, args, kwargs, out)
    across = [] if labels is None else [d for d in dims_of(func, args, kwargs, args[0].dim()) if labels.shape[d] > 1]
    if across and "softmax" not in name:
        lab.ledger.freeze(labels, f"{name} runs across the channels")
    elif across and labels is not None:
        if len(varying_dims(labels)) > 1:
            # Softmax over the blocks (split attention): the blocks stay, their channels may go.
            labels = lab.ledger.squash(labels, across).expand(labels.shape)
        else:
            lab.mixes(func, args[0].dim(), {across[0]: [labels.reshape(-1)]})
    for made in outputs_of(out):
        lab.name(made, labels)
