"""Operations that only move elements: done to the labels as they were done to the values."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.labels import Labeller, ParamView, compact
from prunedge.graph.rules.common import base_name, is_in_place, only_if_pruned, outputs_of, unknown, varying_dims

_SPLITS = ("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes")


def same(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The values, or as many of them, in the same order."""
    for made in outputs_of(out):
        lab.name(made, lab.tag(args[0]))


def move(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Do to the labels, or to each coordinate of a parameter, what was done to the values."""
    tagged = [x for x in lab.tensors(args, kwargs) if lab.tag(x) is not None]
    if not tagged:
        return
    if len(tagged) > 1 or tagged[0] is not args[0]:
        return unknown(lab, func, args, kwargs, out)
    made, view = outputs_of(out), lab.param(args[0])
    if view is not None:
        moved = [outputs_of(lab.replay(func, (c, *args[1:]), kwargs, lambda x: x)) for c in view.coordinates]
        views = [ParamView(view.name, tuple(m[i] for m in moved)) for i in range(len(made))]
        for tensor, one in zip(made, views, strict=True):
            lab.name(tensor, one)
        if base_name(func) in _SPLITS:
            dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % made[0].dim()
            lines = [lab.ledger.of(one, dim, None) for one in views]
            shape = [-1 if d == dim else 1 for d in range(made[0].dim())]
            lab.resizes((place, line.reshape(shape), dim) for place, line in enumerate(lines) if line is not None)
        return
    labels = lab.labels(args[0])
    assert labels is not None
    if is_in_place(func):
        return _turn(lab, func, labels, args, kwargs, out)
    parts = [compact(part) for part in outputs_of(func(labels.expand(args[0].shape), *args[1:], **kwargs))]
    if base_name(func) in ("split", "unsafe_split"):
        # Code that halves the channels (chunk) halves what is left of them: the parts must lose the same places. Where the channels
        # can't be divided evenly the last part is smaller, and has so many fewer in the end.
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        if labels.shape[dim] > 1:
            for tensor, part in zip(made[1:], parts[1:], strict=True):
                first = parts[0].narrow(dim, 0, tensor.shape[dim]) if parts[0].shape[dim] > 1 else parts[0]
                lab.ledger.tie(first, part, "is split beside values that are no channels")
    if base_name(func) in _SPLITS:
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        if labels.shape[dim] > 1:
            whole = [part.expand([s if d == dim % part.dim() else p for d, (s, p) in enumerate(zip(t.shape, part.shape, strict=True))])
                     for t, part in zip(made, parts, strict=True)]  # fmt: skip
            lab.resizes((place, part, dim % part.dim()) for place, part in enumerate(whole))
            if len(parts) > 1:
                lab.ledger.pieces += parts
    if base_name(func) == "expand":
        lab.resizes((d, parts[0], d) for d in varying_dims(parts[0]))
    if base_name(func) in ("channel_shuffle", "native_channel_shuffle") and labels.shape[1] > 1:
        # The number of groups stays: each loses the same of its places.
        blocks = labels.unflatten(1, (args[1], -1))
        lab.ledger.tie(blocks.narrow(1, 0, 1), blocks)
    if base_name(func) in ("select", "unbind"):
        _take_one(lab, func, labels, args, kwargs)
    if base_name(func) in ("slice", *_SPLITS):
        # Where the parts end may be written down in an attribute of the module.
        lab.ledger.parts += [(lab.module, part) for part in parts if len(varying_dims(part)) == 1 and part.shape != labels.shape]
    for tensor, moved_labels in zip(made, parts, strict=True):
        lab.name(tensor, moved_labels)


def _take_one(lab: Labeller, func: Any, labels: torch.Tensor, args: Any, kwargs: Any) -> None:
    """Places along a dimension that are taken by their numbers, one by one, stay."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].dim()
    if labels.shape[dim] == 1:
        return
    varying = varying_dims(labels)
    if base_name(func) == "select" and len(varying) == 1:
        number = args[2] if len(args) > 2 else kwargs["index"]
        labels = labels.select(dim, number).unsqueeze(dim)
    only_if_pruned(lab, labels, dim, varying, None, "is picked by its number")


def _turn(lab: Labeller, func: Any, labels: torch.Tensor, args: Any, kwargs: Any, out: Any) -> None:
    """`unsqueeze_`, `transpose_` and their like: the tensor has its new shape already, its labels still the old one."""
    turned = labels.clone()
    if base_name(func) != "squeeze" or len(args) > 1:
        turned = func(turned, *args[1:], **kwargs)
    if turned.dim() == out.dim():
        lab.name(out, turned)
    else:
        lab.freeze_all((args[0],), {}, f"{base_name(func)}_ changes the shape in place")
        lab.name(out, None)


def pad(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Constants around the values: along places they belong to the channel that they surround, along channels they are none.

    What is padded on along places is the same number in each channel. The channel's own weights in its consumers are zero
    in the masked network, so that the number need not be: it leaves with the channel.
    """
    x, amounts = args[0], list(args[1])
    before = {x.dim() - 1 - place: amounts[2 * place] for place in range(len(amounts) // 2)}
    after = {x.dim() - 1 - place: amounts[2 * place + 1] for place in range(len(amounts) // 2)}
    padded = [d for d in before if before[d] or after[d]]
    view, labels = lab.param(x), lab.labels(x)

    def along(tensor: torch.Tensor, dims: list[int], value: int) -> torch.Tensor:
        each = [amount if d in dims else 0 for d in before for amount in (before[d], after[d])]
        return torch.nn.functional.pad(tensor, each, value=value)

    if view is not None:
        moved = []
        for coordinate in view.coordinates:
            small = compact(coordinate)
            # Values that were padded on have no place in the parameter.
            small = along(small, [d for d in padded if small.shape[d] > 1], -1)
            moved.append(small.expand(out.shape))
        lab.name(out, ParamView(view.name, tuple(moved)))
    elif labels is not None:
        for d in padded:
            if labels.shape[d] > 1:
                labels = _pad_channels(lab, labels, d, before[d], after[d], 2 * (x.dim() - 1 - d))
        lab.name(out, compact(labels))


def _pad_channels(lab: Labeller, labels: torch.Tensor, dim: int, before: int, after: int, place: int) -> torch.Tensor:
    """Constants beside channels (the shortcut of a ResNet for small pictures): each leaves with the channel that it meets.

    The call then pads with fewer of them, or cuts fewer off; where it can't be told which call that is, they stay.
    """
    whole = labels.shape[dim]
    inner = labels.narrow(dim, max(0, -before), whole - max(0, -before) - max(0, -after))
    cut = {0: labels.narrow(dim, 0, max(0, -before)), 1: labels.narrow(dim, whole - max(0, -after), max(0, -after))}
    cut = {side: piece for side, piece in cut.items() if piece.shape[dim]}
    if cut and lab.sized.site is None:
        lab.ledger.freeze(labels, "a fixed number of channels is cut off")
    elif cut:
        lab.resizes((place + side, piece, dim) for side, piece in cut.items())
        lab.ledger.pieces += [inner, *cut.values()]
    sides: list[torch.Tensor | None] = []
    for count in (before, after):
        if count <= 0:
            sides.append(None)
        elif lab.sized.site is None:
            sides.append(torch.zeros([count if d == dim else 1 for d in range(labels.dim())], dtype=torch.int64))
        else:
            sides.append(lab.places(labels, dim, count))
    lab.resizes((place + side, one, dim) for side, one in enumerate(sides) if one is not None)
    parts = [sides[0], inner, sides[1]]
    return torch.cat([one.expand([*inner.shape[:dim], -1, *inner.shape[dim + 1 :]]) for one in parts if one is not None], dim)


def reshape(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The labels in the new shape; dimensions that channels were divided into are noted."""
    view, labels = lab.param(args[0]), lab.labels(args[0])
    if view is not None:
        after_view = ParamView(view.name, tuple(c.reshape(out.shape) for c in view.coordinates))
        atoms = {dim: lab.ledger.of(after_view, dim, None) for dim, size in enumerate(out.shape) if size > 1}
        lab.resizes(
            (dim, one.reshape([-1 if d == dim else 1 for d in range(out.dim())]), dim) for dim, one in atoms.items() if one is not None
        )
        lab.name(out, after_view)
    elif labels is not None:
        after = compact(labels.expand(args[0].shape).reshape(out.shape))
        several = [size for size in after.shape if size > 1]
        if len(several) > 1 and prod(several) > labels.numel() * lab.batch and _regroups(args[0].shape, out.shape):
            # Channels and places are read in another order than they lie in: who meets whom depends on the size of the picture.
            return lab.ledger.freeze(labels, "is laid out among the places, in an order that depends on the size of the picture")
        if len(several) > 1 and several != [size for size in labels.shape if size > 1]:
            # Heads and their width, shuffled groups: in the end the channels leave along one of these dimensions.
            lab.ledger.divisions.append((lab.module, after.reshape(several)))
        lab.resizes((dim, after, dim) for dim in varying_dims(after))
        lab.name(out, after)


def _regroups(before: torch.Size, after: torch.Size) -> bool:
    """Whether a reshape reads several dimensions as several others, instead of joining or dividing each by itself."""
    if 0 in before:
        return False
    old, new = ([size for size in shape if size > 1] for shape in (before, after))
    while old and new:
        joined, divided = [old.pop(0)], [new.pop(0)]
        while prod(joined) != prod(divided):
            side, rest = (joined, old) if prod(joined) < prod(divided) else (divided, new)
            side.append(rest.pop(0))
        if len(joined) > 1 and len(divided) > 1:
            return True
    return False


def strided(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Pooling to a single place in the channels-last layout ends with strides that say so, and moves nothing."""
    shape, strides = args[1], args[2]
    wanted: list[int] = []
    step = 1
    for size in reversed([size for size in shape if size > 1]):
        wanted.insert(0, step)
        step *= size
    # In place it has happened already, so that only the new strides can be looked at.
    if list(shape) != list(args[0].shape) or [stride for size, stride in zip(shape, strides, strict=True) if size > 1] != wanted:
        return unknown(lab, func, args, kwargs, out)
    same(lab, func, args, kwargs, out)


def join(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """cat, and stack, which gives each part a dimension of its own first."""
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    if func._schema.name == "aten::stack":
        several = [(x, lab.promote(x)) for x in args[0]]
        found = [(x.unsqueeze(dim), None if labels is None else labels.unsqueeze(dim)) for x, labels in several]
    else:
        found = [(x, lab.promote(x)) for x in args[0] if x.numel()]
        if any(labels is not None and labels.shape[dim] > 1 for _, labels in found):
            found = [(x, lab.constants(x, dim) if labels is None else labels) for x, labels in found]
    if all(labels is None for _, labels in found):
        return
    flat = [d for d in range(out.dim()) if d != dim and all(L is None or L.shape[d] == 1 for _, L in found)]
    pieces = []
    for x, labels in found:
        shape = [1 if d in flat else size for d, size in enumerate(x.shape)]
        pieces.append(torch.zeros(shape, dtype=torch.int64) if labels is None else labels.expand(shape))
    whole = compact(torch.cat(pieces, dim))
    if any(d != dim for d in varying_dims(whole)) and whole.shape[dim] > 1:
        # Joined along places (a class token before the patches), the parts' channels are the same ones.
        first = next(piece for piece in pieces if bool((piece != 0).any())).narrow(dim, 0, 1)
        for piece in pieces:
            lab.ledger.tie(first, piece, "is joined with values that are no channels")
        whole = first.expand([1 if d == dim else size for d, size in enumerate(whole.shape)])
    for x in args[0]:
        _join_nothing(lab, x, dim, whole)
    lab.name(out, whole)


def _join_nothing(lab: Labeller, x: torch.Tensor, dim: int, whole: torch.Tensor) -> None:
    """A parameter with no element (no register tokens) has channels all the same, since its other sizes must fit."""
    view = lab.param(x)
    if view is None or x.numel() or x.dim() != whole.dim():
        return
    lab.ledger.used.add(view.name)
    shape = lab.ledger.shapes[view.name]
    for d in varying_dims(whole):
        if d != dim and len(shape) == x.dim() and shape[d] == x.shape[d]:
            lab.ledger.roles.setdefault((view.name, d), "channel")
            atoms = torch.arange(shape[d]) + lab.ledger.base[view.name, d]
            lab.ledger.tie(whole, atoms.reshape([-1 if i == d else 1 for i in range(x.dim())]))


def patches(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(n, c, h, w) -> (n, c * k * k, places): each channel becomes its k * k neighbours."""
    labels = lab.labels(args[0])
    if labels is None:
        return unknown(lab, func, args, kwargs, out)
    line = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != labels.dim() - 3]).reshape(-1)
    repeats = out.shape[-2] // args[0].shape[-3]
    lab.name(out, line.expand(args[0].shape[-3]).repeat_interleave(repeats).reshape([1] * (out.dim() - 2) + [-1, 1]))


def folded(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(n, c * k * k, places) -> (n, c, h, w): the neighbours that `patches` takes apart, summed up again; those of a channel are one."""
    labels = lab.labels(args[0])
    if labels is None:
        return unknown(lab, func, args, kwargs, out)
    rows, rank = args[0].dim() - 2, args[0].dim()
    line = lab.ledger.squash(labels, [d for d in varying_dims(labels) if d != rows]).reshape(-1).expand(args[0].shape[rows])
    blocks = line.reshape(out.shape[-3], -1)
    lab.ledger.tie(blocks[:, :1], blocks)
    lab.name(out, blocks[:, 0].reshape([1] * (rank - 2) + [-1, 1, 1]))
