"""Concatenations and constants around values."""

from __future__ import annotations

import torch
from torch.nn import functional

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.registry import rule

Parts = list[tuple[torch.Tensor, torch.Tensor | None]]  # tensors and their labels


@rule("stack", is_regular=True)
def stack(labeller: Labeller, call: Call) -> None:
    """Each part gets a dimension of its own first."""
    dim = call["dim"] % call.result.dim()
    parts: Parts = []
    for x in call["tensors"]:
        labels = labeller.promote(x)
        parts.append((x.unsqueeze(dim), None if labels is None else labels.unsqueeze(dim)))
    _join(labeller, call, parts, dim)


@rule("cat", is_regular=True)
def concatenate(labeller: Labeller, call: Call) -> None:
    """Along channels all of them, one part after the other; along places they are the same ones."""
    dim = call["dim"] % call.result.dim()
    parts: Parts = [(x, labeller.promote(x)) for x in call["tensors"] if x.numel()]
    if any(labels is not None and labels.shape[dim] > 1 for _, labels in parts):
        parts = [
            (x, labeller.sizes.constants(x, dim) if labels is None else labels)
            for x, labels in parts
        ]
    _join(labeller, call, parts, dim)


def _join(labeller: Labeller, call: Call, parts: Parts, dim: int) -> None:
    if all(labels is None for _, labels in parts):
        return
    pieces = _of_one_shape(parts, dim, call.result.dim())
    whole = compact(torch.cat(pieces, dim))
    if any(d != dim for d in varying_dims(whole)) and whole.shape[dim] > 1:
        # Joined along places (a class token before the patches), the channels are the same ones.
        first = next(piece for piece in pieces if bool((piece != 0).any())).narrow(dim, 0, 1)
        for piece in pieces:
            labeller.ledger.tie(first, piece, "is joined with values that are no channels")
        whole = first.expand([1 if d == dim else size for d, size in enumerate(whole.shape)])
    for x in call["tensors"]:
        _join_nothing(labeller, x, dim, whole)
    labeller.name(call.result, whole)


def _of_one_shape(parts: Parts, dim: int, rank: int) -> list[torch.Tensor]:
    """The labels of each part, expanded along `dim` and wherever those of any part vary."""
    flat = set(range(rank)) - {dim}
    for _, labels in parts:
        flat -= set() if labels is None else set(varying_dims(labels))
    pieces = []
    for x, labels in parts:
        shape = [1 if d in flat else size for d, size in enumerate(x.shape)]
        none = torch.zeros(shape, dtype=torch.int64)
        pieces.append(none if labels is None else labels.expand(shape))
    return pieces


def _join_nothing(labeller: Labeller, x: torch.Tensor, dim: int, whole: torch.Tensor) -> None:
    """A parameter with no element (no register tokens) has channels all the same.

    Its other sizes must fit.
    """
    view, ledger = labeller.param(x), labeller.ledger
    if view is None or x.numel() or x.dim() != whole.dim():
        return
    ledger.used.add(view.name)
    shape = ledger.shapes[view.name]
    for d in varying_dims(whole):
        if d != dim and len(shape) == x.dim() and shape[d] == x.shape[d]:
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
    x, amounts = call.input, list(call["pad"])
    sides = {  # dimension -> how many before and after
        x.dim() - 1 - place: (amounts[2 * place], amounts[2 * place + 1])
        for place in range(len(amounts) // 2)
    }
    view, labels = labeller.param(x), labeller.labels(x)
    if view is not None:
        moved = [_pad_coordinate(c, sides).expand(call.result.shape) for c in view.coordinates]
        labeller.name(call.result, ParamView(view.name, tuple(moved)))
    elif labels is not None:
        for dim, (before, after) in sides.items():
            if (before or after) and labels.shape[dim] > 1:
                place = 2 * (x.dim() - 1 - dim)
                labels = _pad_channels(labeller, labels, dim, before, after, place)
        labeller.name(call.result, compact(labels))


def _pad_coordinate(coordinate: torch.Tensor, sides: dict[int, tuple[int, int]]) -> torch.Tensor:
    """A parameter's coordinate; values that were padded on have no place in the parameter, -1."""
    small = compact(coordinate)
    amounts: list[int] = []
    for dim, side in sides.items():
        amounts += side if small.shape[dim] > 1 else (0, 0)
    return functional.pad(small, amounts, value=-1)


def _pad_channels(
    labeller: Labeller, labels: torch.Tensor, dim: int, before: int, after: int, place: int
) -> torch.Tensor:
    """Constants beside channels (the shortcut of a ResNet for small images).

    Each leaves with the channel that it meets. The call then pads with fewer of them, or cuts fewer
    off; where it can't be told which call that is, they stay.
    """
    ledger, whole = labeller.ledger, labels.shape[dim]
    is_known = labeller.code.site is not None
    first, last = max(0, -before), max(0, -after)
    inner = labels.narrow(dim, first, whole - first - last)

    cut = {0: labels.narrow(dim, 0, first), 1: labels.narrow(dim, whole - last, last)}
    cut = {side: piece for side, piece in cut.items() if piece.shape[dim]}
    if cut and not is_known:
        ledger.freeze(labels, "a fixed number of channels is cut off")
    elif cut:
        labeller.sizes.note((place + side, piece, dim) for side, piece in cut.items())
        ledger.pieces += [inner, *cut.values()]

    added: dict[int, torch.Tensor] = {}
    for side, count in enumerate((before, after)):
        if count > 0 and is_known:
            added[side] = ledger.places(count, dim, labels.dim())
        elif count > 0:
            sizes = [count if d == dim else 1 for d in range(labels.dim())]
            added[side] = torch.zeros(sizes, dtype=torch.int64)
    labeller.sizes.note((place + side, piece, dim) for side, piece in added.items())

    around = [added.get(0), inner, added.get(1)]
    shape = [-1 if d == dim else size for d, size in enumerate(inner.shape)]
    return torch.cat([piece.expand(shape) for piece in around if piece is not None], dim)
