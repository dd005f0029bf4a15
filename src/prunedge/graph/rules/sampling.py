"""Operations that look values up elsewhere: tables of embeddings, grids, regions, and what was picked by its place."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.indexing import line_along
from prunedge.graph.labels import FILL, Labeller, compact
from prunedge.graph.rules.common import is_in_place, only_if_pruned, outputs_of, unknown, varying_dims
from prunedge.graph.rules.contractions import dense, depthwise, shift


def embedding(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Rows of a table, chosen by number: the table makes the channels along its second dimension."""
    table, places = args[0], args[1]
    view = lab.param(table)
    if view is None or table.dim() != 2:
        return unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    lab.freeze_all(args[1:], kwargs, "numbers rows of a table")
    lab.ledger.freeze(lab.ledger.of(view, 0, None), "rows of a table are chosen by their number")
    channels = lab.ledger.of(view, 1, "out")
    lab.ledger.positions.setdefault(view.name, prod(places.shape[1:]))
    made = outputs_of(out)[0]
    lab.name(made, None if channels is None else channels.reshape([1] * (made.dim() - 1) + [-1]))


def grid_sample(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(n, c, places) at the coordinates of (n, new places, 2 or 3): the n-th map meets the n-th grid, its channels stay what they are."""
    x, grid = args[:2]
    labels, theirs = lab.over_places(x, x.dim() - 2), lab.labels(grid)
    if labels is None or lab.param(grid) is not None:
        return unknown(lab, func, args, kwargs, out)
    if theirs is not None:
        theirs = lab.ledger.squash(theirs, range(1, theirs.dim()))
        if labels.shape[0] == 1 or theirs.shape[0] == 1:
            lab.ledger.freeze(theirs, "are coordinates")
        elif not lab.by_width:
            # Heads that were folded into the batch leave as a whole, each with its own grid.
            labels = lab.ledger.squash(labels, range(1, labels.dim()))
            lab.ledger.tie(labels, theirs, "samples at coordinates of a fixed number")
        else:
            only_if_pruned(lab, labels, 0, varying_dims(labels), theirs, "samples at coordinates")
    elif labels.shape[0] > 1:
        only_if_pruned(lab, labels, 0, varying_dims(labels), None, "samples at coordinates of a fixed number")
    lab.name(out, labels)


def regions(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(n, c, h, w) -> (regions, c, size, size): each region of each channel."""
    labels = lab.over_places(args[0], 2)
    if labels is None:
        return unknown(lab, func, args, kwargs, out)
    lab.freeze_all(args[1:], kwargs, "are coordinates of regions")
    labels = lab.ledger.squash(labels, [0])
    for made in outputs_of(out):
        lab.name(made, labels)


def deformable(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A convolution whose filters look at places that the network chooses: `torchvision.ops.deform_conv2d`.

    torchvision reads the numbers of groups, and of groups of offsets, off the shapes: each group of offsets loses the same channels.
    """
    x, weight, offset, mask, bias = args[:5]
    groups, offset_groups = args[11], args[12]
    view, labels = lab.param(weight), lab.labels(x)
    if view is None or lab.param(x) is not None:
        return unknown(lab, func, args, kwargs, out)
    lab.ledger.used.add(view.name)
    lab.freeze_all((offset, mask), {}, "are the offsets of a deformable convolution")
    lab.ledger.positions.setdefault(view.name, prod(out.shape[2:]))
    channels, ins = out.shape[1], x.shape[1]
    if offset_groups > 1:
        lab.ledger.irregular = True
        if labels is not None:
            blocks = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != 1]).expand(1, ins, 1, 1).reshape(offset_groups, -1)
            lab.ledger.tie(blocks[:1], blocks)
    if 1 < groups == ins:
        made = depthwise(lab, labels, view, groups, channels)
        if offset_groups == groups and groups > 1:
            # Each channel has offsets of its own, whose number stays.
            lab.ledger.freeze(made, "has offsets of its own")
    else:
        made = dense(lab, labels, view, False, groups, channels)
    shift(lab, bias, made)
    lab.name(out, None if made is None else made.reshape(1, -1, 1, 1))


def unpool(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The maxima put back where `max_pool` found them: values and places are of the same channel."""
    x, places = args[:2]
    labels, theirs = lab.labels(x), lab.labels(places)
    if labels is None or theirs is None or lab.param(x) is not None:
        return unknown(lab, func, args, kwargs, out)
    spatial = 2 if "2d" in func._schema.name else 3
    labels, theirs = (lab.ledger.squash(one, range(one.dim() - spatial, one.dim())) for one in (labels, theirs))
    lab.ledger.tie(labels, theirs, "is put back at places of a fixed number")
    lab.name(out, labels)


def gather(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Values picked by their number along one dimension, which holds no channels, or by the same fixed numbers everywhere."""
    x, dim, index = args[0], args[1] % max(1, args[0].dim()), args[2]
    labels = lab.promote(x)
    if labels is None or lab.param(index) is not None:
        return unknown(lab, func, args, kwargs, out)
    line = line_along(index, dim) if labels.shape[dim] > 1 and lab.tag(index) is None and not lab.varies(index) else None
    if line is not None and all(index.shape[d] == x.shape[d] for d in varying_dims(labels) if d != dim):
        return lab.name(out, compact(labels.index_select(dim, line.cpu())))
    if not _picks_places(lab, labels, dim, index):
        return unknown(lab, func, args, kwargs, out)
    lab.name(out, labels)


def scatter_slice(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """A copy of the first tensor with the second in place of one of its slices."""
    x, source = args[0], args[1]
    dim, start, end, step = (*args, *(0, None, None, 1)[len(args) - 2 :])[2:6]
    labels, theirs = lab.labels(x), lab.labels(source)
    if labels is None or lab.param(x) is not None or lab.param(source) is not None:
        return unknown(lab, func, args, kwargs, out)
    held = labels.expand(x.shape)[(slice(None),) * (dim % x.dim()) + (slice(start, end, step),)]
    _put_in(lab, compact(held), source, theirs)
    lab.name(out, labels)


def _put_in(lab: Labeller, held: torch.Tensor, source: torch.Tensor, theirs: torch.Tensor | None) -> None:
    """Values take the place of these channels, and leave with them."""
    if theirs is not None:
        lab.ledger.tie(held, theirs, "meets values that are no channels")
    elif any(source.shape[d] > 1 for d in varying_dims(held)) and not lab.is_filled(source):
        lab.ledger.freeze(held, "meets values of a fixed size")


def scatter(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Values put in by their number along one dimension, which holds no channels."""
    x, dim, index = args[0], args[1] % max(1, args[0].dim()), args[2]
    source = next((one for one in (*args[3:], *kwargs.values()) if isinstance(one, torch.Tensor)), None)
    fresh = lab.tag(x) is None and lab.is_filled(x)
    labels = lab.labels(x)
    theirs = None if source is None else lab.labels(source)
    if (labels is None and theirs is None) or any(lab.param(one) is not None for one in (x, index, source)):
        return unknown(lab, func, args, kwargs, out)
    found = labels if labels is not None else theirs
    assert found is not None
    if (labels is None and not (fresh and is_in_place(func))) or not _picks_places(lab, found, dim, index):
        return unknown(lab, func, args, kwargs, out)
    if source is not None and any(source.shape[d] != x.shape[d] for d in varying_dims(found)):
        return unknown(lab, func, args, kwargs, out)
    if source is not None and labels is not None:
        if theirs is None and any(source.shape[d] > 1 for d in varying_dims(labels)) and not lab.is_filled(source):
            lab.ledger.freeze(labels, "meets values of a fixed size")
        elif theirs is not None:
            lab.ledger.tie(labels, theirs, "meets values that are no channels")
    if fresh or is_in_place(func):
        lab.write(out, found) if fresh else lab.rewrite(out, found)
    else:
        lab.name(out, found)


def put_along(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """`index_add`, `index_copy`, `index_fill`: values at some places along one dimension, of channels where the numbers are fixed."""
    x, dim, index = args[0], args[1] % max(1, args[0].dim()), args[2]
    source = args[3] if len(args) > 3 and isinstance(args[3], torch.Tensor) and args[3].dim() else None
    labels, theirs = lab.labels(x), None if source is None else lab.labels(source)
    known = all(lab.param(one) is None for one in (x, index, source)) and lab.tag(index) is None
    if labels is None or not known or (labels.shape[dim] > 1 and lab.varies(index)):
        return unknown(lab, func, args, kwargs, out)
    held = labels.index_select(dim, index.reshape(-1).cpu()) if labels.shape[dim] > 1 else labels
    if source is not None:
        _put_in(lab, held, source, theirs)
    if is_in_place(func):
        lab.rewrite(out, labels)
    else:
        lab.name(out, labels)


def _picks_places(lab: Labeller, labels: torch.Tensor, dim: int, index: torch.Tensor) -> bool:
    """Whether these numbers pick the same places in each channel, or each channel's own, along a dimension that holds none."""
    if labels.shape[dim] > 1 or index.dim() != labels.dim():
        return False
    theirs = lab.labels(index)
    across = varying_dims(labels)
    if theirs is None:
        small = compact(index)
        return all(index.shape[d] == labels.shape[d] and small.shape[d] == 1 for d in across)
    if varying_dims(theirs) != across or theirs.shape != labels.shape:
        return False
    lab.ledger.tie(labels, theirs, "is picked by numbers that are no channels")
    return True


def put(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """`x[indices] = values`, along dimensions that hold no channels, or among channels by fixed numbers."""
    x, indices, values = args[0], args[1], args[2]
    labels, theirs = lab.labels(x), lab.promote(values) if lab.tag(x) is not None or lab.is_filled(x) else lab.labels(values)
    if labels is None and theirs is None and lab.param(x) is None and lab.param(values) is None:
        if is_in_place(func) and not (values.numel() == 1 and lab.is_filled(x)):
            lab.write(out, None)
        return
    fresh = labels is None and lab.is_filled(x) and is_in_place(func)
    picked = [one for one in indices if one is not None]
    if any(lab.tag(one) is not None for one in picked) or lab.param(x) is not None or (labels is None and not fresh):
        return unknown(lab, func, args, kwargs, out)
    if fresh:
        assert theirs is not None
        whole = torch.full(x.shape, FILL)
        whole[tuple(slice(None) if one is None else one for one in indices)] = theirs
        lab.write(out, whole)
        return
    assert labels is not None
    where = [d for d, one in enumerate(indices) if one is not None]
    # A mask takes as many dimensions as it has.
    taken = (
        len(where)
        if not any(one.dtype in (torch.bool, torch.uint8) for one in picked)
        else sum(one.dim() if one.dtype in (torch.bool, torch.uint8) else 1 for one in picked)
    )
    among = any(labels.shape[d] > 1 for d in range(where[0], min(labels.dim(), max(where[-1] + 1, where[0] + taken))))
    if among and (len(picked) > 1 or picked[0].dim() > 1 or lab.varies(picked[0])):
        return unknown(lab, func, args, kwargs, out)
    held = labels.expand(x.shape)[tuple(slice(None) if one is None else one for one in indices)]
    held = compact(held)
    if theirs is not None:
        lab.ledger.tie(held, theirs, "meets values that are no channels")
    elif not lab.is_filled(values):
        sizes = [1] * (held.dim() - values.dim()) + list(values.shape)
        if any(sizes[d] > 1 for d in varying_dims(held)):
            lab.ledger.freeze(held, "meets values of a fixed size")
    if is_in_place(func):
        lab.rewrite(out, labels)
    else:
        lab.name(out, labels)
