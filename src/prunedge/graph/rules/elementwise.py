"""Operations whose operands meet element by element."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Condition, Labeller, ParamView, compact
from prunedge.graph.rules.common import only_if_pruned, outputs_of, padded_shape, varying_dims


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
    if all(lab.labels(x) is None for x in tensors):
        return pointwise_params(lab, tensors, made)
    rank, base = made[0].dim(), func._schema.name
    if base.endswith("_") and made[0]._is_view() and any(lab.tag(x) is not None for x in tensors[1:]):
        # What was viewed doesn't learn what is written into its view.
        return lab.freeze_all(args, kwargs, "written in place into part of another tensor")
    acts = [(padded_shape(x, rank), labels.reshape(padded_shape(labels, rank))) for x in tensors if (labels := lab.labels(x)) is not None]
    varying = sorted({d for _, labels in acts for d in varying_dims(labels)})
    full = [labels for sizes, labels in acts if all(sizes[d] > 1 for d in varying)]
    thin = [labels for sizes, labels in acts if any(sizes[d] == 1 for d in varying)]
    whole = full[0] if full else torch.zeros([1] * rank, dtype=torch.int64)
    for labels in full[1:]:
        lab.ledger.tie(whole, labels, "meets channels that can't leave")
    for labels in thin:
        _spread(lab, whole, labels, varying)
    for x in tensors:
        sizes = padded_shape(x, rank)
        meets = [d for d in varying if sizes[d] > 1]
        if lab.param(x) is not None:
            scale_by(lab, x, whole, meets, varying, rank)
        elif lab.tag(x) is None:
            for d in meets:
                only_if_pruned(lab, whole, d, varying, None, "meets values of a fixed size")
    for tensor in made:
        lab.name(tensor, compact(whole) if full else None)


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
    if main.shape != made[0].shape or made[0].dim() == 0:
        for _, view in views:
            lab.ledger.freeze_param(view, "parameters are combined in a way that can't be followed")
        return
    for x in tensors:
        if x is not main:
            _meet_param(lab, ours, main.dim(), x)
    for tensor in made:
        lab.name(tensor, ours if tensor.shape == main.shape else None)


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
