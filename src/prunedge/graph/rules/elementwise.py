"""Operations whose operands meet element by element."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Condition, Labeller, ParamView, compact
from prunedge.graph.rules.common import base_name, is_in_place, only_if_pruned, outputs_of, padded_shape, varying_dims


def gate(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """The first half of the channels times the sigmoid of the second."""
    dim = (args[1] if len(args) > 1 else -1) % out.dim()
    labels = lab.labels(args[0])
    if labels is not None and labels.shape[dim] > 1:
        first, second = labels.chunk(2, dim)
        lab.ledger.tie(first, second, "is gated by values that are no channels")
        labels = first
    lab.name(out, labels)


def pointwise(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Operands that meet element by element leave together."""
    tensors, made = list(lab.tensors(args, kwargs)), outputs_of(out)
    written = is_in_place(func)
    fresh = written and lab.tag(tensors[0]) is None and lab.is_filled(tensors[0])
    if fresh and any(lab.param(x) is not None for x in tensors):
        # A parameter that is written into a tensor stands for an activation from here on.
        lab.write(made[0], _written_parameters(lab, tensors[1:], made[0]))
        return
    if all(lab.labels(x) is None for x in tensors):
        if written and any(x.numel() > 1 and not lab.is_filled(x) for x in tensors[1:]):
            lab.write(made[0], None)
        return pointwise_params(lab, tensors, made)
    held = lab.tag(tensors[0]) if written else None
    if written and held is None and not fresh and tensors[0]._is_view():
        return lab.freeze_all(args, kwargs, "written in place into part of another tensor, which holds no channels")
    rank = made[0].dim()
    acts = [(padded_shape(x, rank), labels.reshape(padded_shape(labels, rank))) for x in tensors if (labels := lab.labels(x)) is not None]
    varying = sorted({d for _, labels in acts for d in varying_dims(labels)})
    full = [labels for sizes, labels in acts if all(sizes[d] > 1 for d in varying)]
    thin = [labels for sizes, labels in acts if any(sizes[d] == 1 for d in varying)]
    whole = full[0] if full else torch.zeros([1] * rank, dtype=torch.int64)
    for labels in full[1:]:
        lab.ledger.tie(whole, labels, "meets channels that can't leave")
    for labels in thin:
        _spread(lab, whole, labels, varying)
    for place, x in enumerate(tensors):
        sizes = padded_shape(x, rank)
        meets = [d for d in varying if sizes[d] > 1]
        if lab.param(x) is not None:
            scale_by(lab, x, whole, meets, varying, rank)
        elif lab.tag(x) is None and not (fresh and place == 0) and not _is_free(lab, func, x):
            # What was expanded is one value for all channels, as many as there are.
            for d in [d for d in meets if x.stride(d - rank + x.dim()) > 0]:
                only_if_pruned(lab, whole, d, varying, None, "meets values of a fixed size")
    labels = compact(whole) if full else None
    if fresh:
        lab.write(made[0], labels)
    elif written and len(tensors) > 1:
        lab.rewrite(made[0], labels)
    for tensor in made:
        if not isinstance(held, ParamView):
            lab.name(tensor, labels)


def _is_free(lab: Labeller, func: Any, x: torch.Tensor) -> bool:
    """Whether an operand without labels is for each channel what it is for any other: random, or one number that is written."""
    return lab.is_noise(x) or (base_name(func) == "copy" and lab.is_filled(x))


def noise(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Random values, drawn for each element by itself (the masks of dropout)."""
    if any(lab.tag(x) is not None for x in lab.tensors(args, kwargs)):
        return pointwise(lab, func, args, kwargs, out)
    for made in outputs_of(out):
        lab.write(made, None)
        lab.noise(made)


def _written_parameters(lab: Labeller, tensors: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor | None:
    """Labels of what is written into a filled tensor: of one parameter alone, else all of it is frozen."""
    labels = lab.promote(tensors[0]) if len(tensors) == 1 else None
    if labels is None or tensors[0].dim() > target.dim():
        lab.freeze_all(tensors, {}, "is written into a tensor in a way that can't be followed")
        return None
    return labels


def _spread(lab: Labeller, whole: torch.Tensor, labels: torch.Tensor, varying: list[int]) -> None:
    """Values with fewer channels than what they meet (a gate for each head or block)."""
    if varying_dims(labels) and bool((whole != 0).any()):
        lab.ledger.conditions.append(Condition(whole, -1, labels, "one channel is spread over the others"))
    else:
        lab.ledger.freeze(labels, "one channel is spread over the others")


def pointwise_params(lab: Labeller, tensors: list[torch.Tensor], made: list[torch.Tensor]) -> None:
    """A parameter on its way to a layer: scaled, standardised, or summed with another."""
    views = [(x, view) for x in tensors if (view := lab.param(x)) is not None]
    if not views:
        return
    for _, view in views:
        lab.ledger.used.add(view.name)
    main, ours = max(views, key=lambda found: found[0].numel())
    if len(views) == 1 and main.dim() > 0 and main.shape != made[0].shape:
        labels = _spread_param(lab, main, ours, [x for x in tensors if x is not main], made[0])
        if labels is not None:
            for tensor in made:
                lab.name(tensor, labels)
            return
    if main.shape != made[0].shape or made[0].dim() == 0:
        for _, view in views:
            lab.ledger.freeze_param(view, "parameters are combined in a way that can't be followed")
        return
    for x in tensors:
        if x is not main:
            _meet_param(lab, ours, main.dim(), x)
    for tensor in made:
        lab.name(tensor, ours if tensor.shape == main.shape else None)


def _spread_param(lab: Labeller, x: torch.Tensor, view: ParamView, others: list[torch.Tensor], made: torch.Tensor) -> torch.Tensor | None:
    """Labels of a parameter with one dimension of channels that is broadcast over values without any (windows, pictures)."""
    channels = [d for d, size in enumerate(x.shape) if size > 1 and view.along(d) is not None]
    atoms = lab.ledger.of(view, channels[0], "channel") if len(channels) == 1 else None
    found = view.along(channels[0]) if len(channels) == 1 else None
    if atoms is None or found is None:
        return None
    for axis, size in enumerate(lab.ledger.shapes[view.name]):
        if axis != found[0]:
            lab.ledger.freeze(torch.arange(size) + lab.ledger.base[view.name, axis], "are places of a table")
    dim = channels[0] + made.dim() - x.dim()
    for other in others:
        place = dim - made.dim() + other.dim()
        if place >= 0 and other.shape[place] > 1 and other.stride(place) > 0:
            lab.ledger.freeze(atoms, "a weight meets values of a fixed size")
    return atoms.reshape([-1 if d == dim else 1 for d in range(made.dim())])


def _meet_param(lab: Labeller, ours: ParamView, rank: int, x: torch.Tensor) -> None:
    """Tie the positions of a parameter's view to those of another operand, dimension by dimension."""
    theirs = lab.param(x)
    for dim, size in enumerate(padded_shape(x, rank)):
        if size == 1:
            continue
        mine = ours.along(dim)
        if theirs is None:
            if mine is not None and lab.tag(x) is None:
                lab.ledger.freeze(mine[1] + lab.ledger.base[ours.name, mine[0]], "a weight meets values of a fixed size")
            continue
        other = theirs.along(dim - (rank - x.dim()))
        if mine is not None and other is not None:
            left, right = mine[1] + lab.ledger.base[ours.name, mine[0]], other[1] + lab.ledger.base[theirs.name, other[0]]
            if not torch.equal(left, right):
                lab.ledger.roles.setdefault((theirs.name, other[0]), "channel")
                lab.ledger.tie(left, right)
        elif theirs.name != ours.name:
            for view in (ours, theirs):
                lab.ledger.freeze_param(view, "parameters are combined in a way that can't be followed")


def scale_by(lab: Labeller, x: torch.Tensor, whole: torch.Tensor, meets: list[int], varying: list[int], rank: int) -> None:
    """Tie a parameter that scales or shifts channels to them."""
    view = lab.param(x)
    assert view is not None
    lab.ledger.used.add(view.name)
    for d in meets:
        atoms = lab.ledger.of(view, d - (rank - x.dim()), "channel")
        if atoms is None:
            only_if_pruned(lab, whole, d, varying, None, "meets a parameter in an order that can't be followed")
            lab.ledger.freeze_param(view, "meets channels in an order that can't be followed")
        else:
            only_if_pruned(lab, whole, d, varying, atoms.reshape([-1 if i == d else 1 for i in range(rank)]), "scaled by a parameter")
