"""Concatenations and constants around values."""

from __future__ import annotations

import torch
from torch.nn import functional

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.registry import rule

Labelled = list[tuple[torch.Tensor, torch.Tensor | None]]  # tensors and their labels


@rule("stack", is_regular=True)
def stack(labeller: Labeller, call: Call) -> None:
    """Each tensor gets a dimension of its own first."""
    dim = call["dim"] % call.result.dim()
    joined: Labelled = []
    for x in call["tensors"]:
        labels = labeller.promote(x)
        joined.append((x.unsqueeze(dim), None if labels is None else labels.unsqueeze(dim)))
    _join(labeller, call, joined, dim)


@rule("cat", is_regular=True)
def concatenate(labeller: Labeller, call: Call) -> None:
    """Along channels all of them, one after the other; along places they are the same channels."""
    dim = call["dim"] % call.result.dim()
    joined: Labelled = [(x, labeller.promote(x)) for x in call["tensors"] if x.numel()]
    if any(labels is not None and labels.shape[dim] > 1 for _, labels in joined):
        for number, (x, labels) in enumerate(joined):
            if labels is None:
                joined[number] = (x, labeller.sizes.constants(x, dim))
    _join(labeller, call, joined, dim)


def _join(labeller: Labeller, call: Call, joined: Labelled, dim: int) -> None:
    if all(labels is None for _, labels in joined):
        return
    pieces = _of_one_shape(joined, dim, call.result.dim())
    whole = compact(torch.cat(pieces, dim))
    varying = varying_dims(whole)
    if dim in varying and len(varying) > 1:
        # Joined along places (a class token before the patches), the channels are the same ones.
        first = next(piece for piece in pieces if bool((piece != 0).any())).narrow(dim, 0, 1)
        for piece in pieces:
            labeller.ledger.tie(first, piece, "is joined with values that are no channels")
        shape = list(whole.shape)
        shape[dim] = 1
        whole = first.expand(shape)

    for x in call["tensors"]:
        _join_nothing(labeller, x, dim, whole)
    labeller.name(call.result, whole)


def _of_one_shape(joined: Labelled, dim: int, rank: int) -> list[torch.Tensor]:
    """The labels of each tensor, expanded along `dim` and wherever those of any tensor vary."""
    constant = set(range(rank)) - {dim}
    for _, labels in joined:
        if labels is not None:
            constant -= set(varying_dims(labels))

    pieces = []
    for x, labels in joined:
        shape = [1 if d in constant else size for d, size in enumerate(x.shape)]
        if labels is None:
            pieces.append(torch.zeros(shape, dtype=torch.int64))
        else:
            pieces.append(labels.expand(shape))
    return pieces


def _join_nothing(labeller: Labeller, x: torch.Tensor, dim: int, whole: torch.Tensor) -> None:
    """A parameter with no element (no register tokens) has channels all the same.

    Its other sizes must fit.
    """
    view = labeller.param(x)
    if view is None or x.numel() or x.dim() != whole.dim():
        return

    ledger = labeller.ledger
    ledger.used.add(view.name)
    shape = ledger.shapes[view.name]
    if len(shape) != x.dim():
        return
    for d in varying_dims(whole):
        if d != dim and shape[d] == x.shape[d]:
            ledger.roles.setdefault((view.name, d), "channel")
            atoms = torch.arange(shape[d]) + ledger.base[view.name, d]
            ledger.tie(whole, lying_along(atoms, d, x.dim()))


@rule("constant_pad_nd", is_regular=True)
def pad(labeller: Labeller, call: Call) -> None:
    """Constants around the values.

    Along places they belong to the channel that they surround: they are the same number in each
    channel, whose own weights in its consumers are zero in the masked model, so that the number
    need not be: it leaves with the channel. Along channels they are none.
    """
    x = call.input
    rank = x.dim()
    amounts = list(call["pad"])  # before and after, the last dimension first
    sides = {}  # dimension -> how many before and after
    for index in range(0, len(amounts), 2):
        sides[rank - 1 - index // 2] = (amounts[index], amounts[index + 1])

    view = labeller.param(x)
    labels = labeller.labels(x)
    if view is not None:
        moved = []
        for coordinate in view.coordinates:
            moved.append(_pad_coordinate(coordinate, sides).expand(call.result.shape))
        labeller.name(call.result, ParamView(view.name, tuple(moved)))
    elif labels is not None:
        for dim, (before, after) in sides.items():
            if (before or after) and labels.shape[dim] > 1:
                index = 2 * (rank - 1 - dim)
                labels = _pad_channels(labeller, labels, dim, before, after, index)
        labeller.name(call.result, compact(labels))


def _pad_coordinate(coordinate: torch.Tensor, sides: dict[int, tuple[int, int]]) -> torch.Tensor:
    """A parameter's coordinate; values that were padded on come from nowhere in it: -1."""
    small = compact(coordinate)
    amounts: list[int] = []
    for dim, side in sides.items():
        amounts += side if small.shape[dim] > 1 else (0, 0)
    return functional.pad(small, amounts, value=-1)


def _pad_channels(
    labeller: Labeller, labels: torch.Tensor, dim: int, before: int, after: int, index: int
) -> torch.Tensor:
    """Constants beside channels (the shortcut of a ResNet for small images).

    Each leaves with the channel that it meets. The call then pads with fewer of them, or cuts fewer
    off; where it can't be told which call that is, they stay. `index` is that of `before` among the
    call's sizes.
    """
    inner = _cut_off(labeller, labels, dim, max(0, -before), max(0, -after), index)

    added: dict[int, torch.Tensor] = {}  # side (0: before, 1: after) -> labels
    for side, count in enumerate((before, after)):
        if count > 0:
            added[side] = _constants(labeller, count, dim, labels.dim())
    labeller.sizes.note((index + side, piece, dim) for side, piece in added.items())

    shape = list(inner.shape)
    shape[dim] = -1
    around = [added.get(0), inner, added.get(1)]
    return torch.cat([piece.expand(shape) for piece in around if piece is not None], dim)


def _cut_off(
    labeller: Labeller, labels: torch.Tensor, dim: int, first: int, last: int, index: int
) -> torch.Tensor:
    """What a negative pad leaves of channels, without the `first` and the `last` ones."""
    size = labels.shape[dim]
    inner = labels.narrow(dim, first, size - first - last)
    cut: dict[int, torch.Tensor] = {}  # side -> labels
    if first:
        cut[0] = labels.narrow(dim, 0, first)
    if last:
        cut[1] = labels.narrow(dim, size - last, last)
    if not cut:
        return inner

    if labeller.code.site is None:
        labeller.ledger.freeze(labels, "a fixed number of channels is cut off")
    else:
        labeller.sizes.note((index + side, piece, dim) for side, piece in cut.items())
        labeller.ledger.pieces += [inner, *cut.values()]
    return inner


def _constants(labeller: Labeller, count: int, dim: int, rank: int) -> torch.Tensor:
    """Labels of constants along a dimension; 0 where the call that makes them is not known."""
    if labeller.code.site is not None:
        return labeller.ledger.constants(count, dim, rank)
    sizes = [1] * rank
    sizes[dim] = count
    return torch.zeros(sizes, dtype=torch.int64)
