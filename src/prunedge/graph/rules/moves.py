"""Operations that only move elements: done to the labels as they were done to the values."""

from __future__ import annotations

import torch

from prunedge.graph.calls import Call
from prunedge.graph.inputs import tensors_of
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import only_if_pruned, squash_all_but, unknown
from prunedge.graph.rules.registry import rule

SPLITS = ("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes")


@rule(
    *SPLITS,
    "permute",
    "transpose",
    "t",
    "slice",
    "select",
    "chunk",
    "unbind",
    "expand",
    "unsqueeze",
    "squeeze",
    "roll",
    "flip",
    "rot90",
    "index",
    "index_select",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "repeat",
    "unfold",
    "diagonal",
    "narrow_copy",
)
def move(labeller: Labeller, call: Call) -> None:
    """Do to the labels, or to each coordinate of a parameter, what was done to the values."""
    x = call.input
    tagged = [tensor for tensor in call.tensors if labeller.tag(tensor) is not None]
    if not tagged:
        return
    if len(tagged) > 1 or tagged[0] is not x:
        return unknown(labeller, call)

    view = labeller.param(x)
    if view is not None:
        return _move_param(labeller, call, view)

    labels = labeller.labels(x)
    assert labels is not None
    if call.is_in_place:
        return _change_shape_in_place(labeller, call, labels)

    moved = [compact(piece) for piece in tensors_of(call.again(labels.expand(x.shape)))]
    _note_move(labeller, call, labels, moved)
    for result, piece in zip(call.results, moved, strict=True):
        labeller.name(result, piece)


def _move_param(labeller: Labeller, call: Call, view: ParamView) -> None:
    moved = [tensors_of(call.again(coordinate)) for coordinate in view.coordinates]
    views = [ParamView(view.name, coordinates) for coordinates in zip(*moved, strict=True)]
    for result, piece in zip(call.results, views, strict=True):
        labeller.name(result, piece)

    if call.name in SPLITS:
        rank = call.result.dim()
        dim = call["dim"] % rank
        sizes = []
        for index, piece in enumerate(views):
            line = labeller.ledger.of(piece, dim, None)
            if line is not None:
                sizes.append((index, lying_along(line, dim, rank), dim))
        labeller.sizes.note(sizes)


def _note_move(
    labeller: Labeller, call: Call, labels: torch.Tensor, moved: list[torch.Tensor]
) -> None:
    """What a move says about the channels besides their new order.

    `labels` are those before, `moved` those of its results.
    """
    if call.name in SPLITS:
        _note_split(labeller, call, labels, moved)
    elif call.name == "expand":
        labeller.sizes.note((dim, moved[0], dim) for dim in varying_dims(moved[0]))
    elif call.name in ("channel_shuffle", "native_channel_shuffle") and labels.shape[1] > 1:
        # The number of groups stays: each loses the same of its channels.
        blocks = labels.unflatten(1, (call["groups"], -1))
        labeller.ledger.tie(blocks.narrow(1, 0, 1), blocks)
    elif call.name in ("select", "unbind"):
        _take_one(labeller, call, labels)

    if call.name in ("slice", *SPLITS):
        # Where slices end may be written down in an attribute of the module.
        for piece in moved:
            if len(varying_dims(piece)) == 1 and piece.shape != labels.shape:
                labeller.ledger.slices.append((labeller.module, piece))


def _note_split(
    labeller: Labeller, call: Call, labels: torch.Tensor, pieces: list[torch.Tensor]
) -> None:
    """Channels are split: by code that halves them, or into sizes that it names."""
    ledger = labeller.ledger
    dim = call["dim"] % labels.dim()
    if labels.shape[dim] == 1:
        return

    if call.name in ("split", "unsafe_split"):
        # Code that halves the channels (chunk) halves what is left of them: the pieces must lose
        # the same positions. Where the channels can't be divided evenly the last piece is smaller,
        # and has so many fewer in the end.
        for result, piece in zip(call.results[1:], pieces[1:], strict=True):
            first = pieces[0]
            if first.shape[dim] > 1:
                first = first.narrow(dim, 0, result.shape[dim])
            ledger.tie(first, piece, "is split beside values that are no channels")

    sizes = []
    for index, (result, piece) in enumerate(zip(call.results, pieces, strict=True)):
        shape = list(piece.shape)
        shape[dim] = result.shape[dim]
        sizes.append((index, piece.expand(shape), dim))
    labeller.sizes.note(sizes)
    if len(pieces) > 1:
        ledger.pieces += pieces


def _take_one(labeller: Labeller, call: Call, labels: torch.Tensor) -> None:
    """Channels along a dimension that are taken by their numbers, one by one, stay."""
    dim = call["dim"] % call.input.dim()
    if labels.shape[dim] == 1:
        return
    varying = varying_dims(labels)
    if call.name == "select" and len(varying) == 1:
        labels = labels.select(dim, call["index"]).unsqueeze(dim)
    only_if_pruned(labeller, labels, dim, varying, None, "is picked by its number")


def _change_shape_in_place(labeller: Labeller, call: Call, labels: torch.Tensor) -> None:
    """`unsqueeze_`, `transpose_` and their like.

    The tensor has its new shape already, its labels still the old one.
    """
    changed = labels.clone()
    if call.name != "squeeze" or len(call.args) > 1:
        changed = call.again(changed)
    if changed.dim() == call.result.dim():
        labeller.name(call.result, changed)
    else:
        labeller.freeze_all(call.input, f"{call.signature.spelled} changes the shape in place")
        labeller.name(call.result, None)


@rule("im2col")
def patches(labeller: Labeller, call: Call) -> None:
    """(n, c, h, w) -> (n, c * k * k, places): each channel becomes its k * k neighbours."""
    x = call.input
    result = call.result
    labels = labeller.labels(x)
    if labels is None:
        return unknown(labeller, call)

    channels = x.shape[-3]
    line = squash_all_but(labeller, labels, labels.dim() - 3).reshape(-1).expand(channels)
    line = line.repeat_interleave(result.shape[-2] // channels)
    labeller.name(result, lying_along(line, result.dim() - 2, result.dim()))


@rule("col2im")
def folded(labeller: Labeller, call: Call) -> None:
    """(n, c * k * k, places) -> (n, c, h, w): the neighbours that `patches` takes apart, summed up.

    The k * k neighbours of a channel leave together.
    """
    x = call.input
    result = call.result
    labels = labeller.labels(x)
    if labels is None:
        return unknown(labeller, call)

    dim = x.dim() - 2
    line = squash_all_but(labeller, labels, dim).reshape(-1).expand(x.shape[dim])
    blocks = line.reshape(result.shape[-3], -1)
    labeller.ledger.tie(blocks[:, :1], blocks)
    labeller.name(result, lying_along(blocks[:, 0], dim, x.dim() + 1))
