"""Operations that look values up elsewhere: tables of embeddings, grids, regions, and maxima."""

from __future__ import annotations

from math import prod

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.rules.common import name_all, only_if_pruned, squash_all_but, unknown
from prunedge.graph.rules.contractions import dense, depthwise, shift
from prunedge.graph.rules.registry import rule


@rule("embedding", "_embedding_bag", "_embedding_bag_forward_only", is_regular=True)
def embedding(labeller: Labeller, call: Call) -> None:
    """Rows of a table, chosen by number: it makes the channels along its second dimension."""
    table = call["weight"]
    view = labeller.param(table)
    if view is None or table.dim() != 2:
        return unknown(labeller, call)

    ledger = labeller.ledger
    ledger.used.add(view.name)
    labeller.freeze_all(call.tensors[1:], "numbers rows of a table")
    ledger.freeze(ledger.of(view, 0, None), "rows of a table are chosen by their number")
    ledger.positions.setdefault(view.name, prod(call["indices"].shape[1:]))

    rank = call.result.dim()
    channels = ledger.of(view, 1, "out")
    labels = None if channels is None else lying_along(channels, rank - 1, rank)
    labeller.name(call.result, labels)


@rule("grid_sampler_2d", "grid_sampler_3d", "_grid_sampler_2d_cpu_fallback")
def grid_sample(labeller: Labeller, call: Call) -> None:
    """(n, c, places) at the coordinates of (n, new places, 2 or 3).

    The n-th map meets the n-th grid, its channels stay what they are.
    """
    x = call["input"]
    grid = call["grid"]
    ledger = labeller.ledger
    labels = labeller.over_places(x, x.dim() - 2)
    grid_labels = labeller.labels(grid)
    if labels is None or labeller.param(grid) is not None:
        return unknown(labeller, call)

    if grid_labels is not None:
        grid_labels = ledger.squash(grid_labels, range(1, grid_labels.dim()))
        if labels.shape[0] == 1 or grid_labels.shape[0] == 1:
            ledger.freeze(grid_labels, "are coordinates")
        elif not labeller.by_width:
            # Heads that were folded into the batch leave as a whole, each with its own grid.
            labels = ledger.squash(labels, range(1, labels.dim()))
            ledger.tie(labels, grid_labels, "samples at coordinates of a fixed number")
        else:
            reason = "samples at coordinates"
            only_if_pruned(labeller, labels, 0, varying_dims(labels), grid_labels, reason)
    elif labels.shape[0] > 1:
        reason = "samples at coordinates of a fixed number"
        only_if_pruned(labeller, labels, 0, varying_dims(labels), None, reason)
    labeller.name(call.result, labels)


@rule("roi_align", "roi_pool", is_regular=True)
def regions(labeller: Labeller, call: Call) -> None:
    """(n, c, h, w) -> (regions, c, size, size): each region of each channel (torchvision)."""
    labels = labeller.over_places(call["input"], 2)
    if labels is None:
        return unknown(labeller, call)
    labeller.freeze_all(call.tensors[1:], "are coordinates of regions")
    labels = labeller.ledger.squash(labels, [0])
    name_all(labeller, call.results, labels)


@rule("deform_conv2d", is_regular=True)
def deformable(labeller: Labeller, call: Call) -> None:
    """A convolution whose filters look at places that the model chooses (torchvision).

    torchvision reads the numbers of groups, and of groups of offsets, off the shapes: each group of
    offsets loses the same channels.
    """
    x = call["input"]
    result = call.result
    view = labeller.param(call["weight"])
    labels = labeller.labels(x)
    if view is None or labeller.param(x) is not None:
        return unknown(labeller, call)

    ledger = labeller.ledger
    ledger.used.add(view.name)
    offsets = (call["offset"], call["mask"])
    labeller.freeze_all(offsets, "are the offsets of a deformable convolution")
    ledger.positions.setdefault(view.name, prod(result.shape[2:]))

    groups = call["groups"]
    offset_groups = call["offset_groups"]
    channels = result.shape[1]
    consumed = x.shape[1]
    if offset_groups > 1:
        ledger.irregular = True
        if labels is not None:
            line = squash_all_but(labeller, labels, 1).expand(1, consumed, 1, 1)
            blocks = line.reshape(offset_groups, -1)
            ledger.tie(blocks[:1], blocks)

    if 1 < groups == consumed:
        made = depthwise(labeller, labels, view, groups, channels)
        if offset_groups == groups:
            # Each channel has offsets of its own, whose number stays.
            ledger.freeze(made, "has offsets of its own")
    else:
        made = dense(labeller, labels, view, False, groups, channels)
    shift(labeller, call["bias"], made)
    labeller.name(result, None if made is None else made.reshape(1, -1, 1, 1))


@rule("max_unpool2d", "max_unpool3d", is_regular=True)
def unpool(labeller: Labeller, call: Call) -> None:
    """The maxima put back where `max_pool` met them: a value and its index are of one channel."""
    x = call.input
    labels = labeller.labels(x)
    index_labels = labeller.labels(call["indices"])
    if labels is None or index_labels is None or labeller.param(x) is not None:
        return unknown(labeller, call)

    ledger = labeller.ledger
    places = 2 if "2d" in call.name else 3
    labels = ledger.squash(labels, range(labels.dim() - places, labels.dim()))
    rank = index_labels.dim()
    index_labels = ledger.squash(index_labels, range(rank - places, rank))
    ledger.tie(labels, index_labels, "is put back at places of a fixed number")
    labeller.name(call.result, labels)
