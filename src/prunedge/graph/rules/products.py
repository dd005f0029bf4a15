"""Products of two activations: attention, by hand and fused."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.channels import Operation
from prunedge.graph.labels import Labeller, compact
from prunedge.graph.rules.common import outputs_of, unknown, varying_dims
from prunedge.graph.rules.elementwise import pointwise


def product(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """(b, n, k) @ (b, k, m): of heads (b), each leaves as a whole; without heads, the contracted channels leave together."""
    added = args[0] if func._schema.name == "aten::baddbmm" else None
    x, y = args[-2:]
    if added is None and _layer(lab, x, y, out):
        return
    tables = [one for one in (x, y) if lab.param(one) is not None]
    if len(tables) == 2 or (tables and added is not None):
        return unknown(lab, func, args, kwargs, out)
    lab.freeze_all(tables, {}, "is a table that is multiplied with activations")
    made = contract(lab, x, y, lab.labels(x), lab.labels(y))
    lab.name(out, made)
    if added is not None:
        if made is None:
            lab.freeze_all((added,), {}, "meets values of a fixed size")
        else:
            # A mask of a fixed number of heads keeps these.
            pointwise(lab, func, (added, out), {}, out)


def _layer(lab: Labeller, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> bool:
    """A weight in a batched product, the same for the whole batch (einsum's way to write a linear layer): follow it as one.

    False where it is none: both or neither are weights, or what meets it has channels elsewhere, too.
    """
    views = (lab.param(x), lab.param(y))
    rank = x.dim()
    if (views[0] is None) == (views[1] is None):
        return False
    view, weight, other, along = (views[1], y, x, rank - 1) if views[1] is not None else (views[0], x, y, rank - 2)
    assert view is not None
    contracted, makes = (rank - 2, rank - 1) if weight is y else (rank - 1, rank - 2)
    labels = lab.labels(other)
    shared = all(compact(c).shape[0] == 1 for c in view.coordinates)
    ins, outs = view.along(contracted), view.along(makes)
    if labels is None or varying_dims(labels) != [along] or not shared or ins is None or outs is None or ins[0] == outs[0]:
        return False
    lab.ledger.used.add(view.name)
    part = prod(weight.shape[-2:]) / prod(lab.ledger.shapes[view.name])
    places = other.shape[0] * other.shape[2 * rank - 3 - along]
    lab.ledger.operations.append(Operation(view.name, places / lab.batch * part))
    line = lab.ledger.of(view, contracted, "in")
    made = lab.ledger.of(view, makes, "out")
    assert line is not None and made is not None
    lab.ledger.tie(labels.reshape(-1), line)
    lab.name(out, made.reshape([-1 if d == makes else 1 for d in range(rank)]))
    return True


def contract(lab: Labeller, x: torch.Tensor, y: torch.Tensor, a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """Labels of the product of two activations (..., n, k) @ (..., k, m), given theirs; counts it."""
    places = prod(x.shape) * y.shape[-1] // lab.batch
    most = max((one for one in (a, b) if one is not None), key=lambda one: one.numel(), default=None)
    lab.ledger.operations.append(Operation(None, places) if most is None or most.numel() == 1 else (places // most.numel(), most))
    if a is None and b is None:
        return None
    rank = x.dim()
    heads = sorted({d for one in (a, b) if one is not None for d in varying_dims(one) if d < rank - 2})
    if heads and lab.by_width:
        a, b = (None if one is None else lab.ledger.squash(one, heads) for one in (a, b))
    elif heads:
        rows = (rank - 2, rank - 1)
        a, b = (None if one is None else lab.ledger.squash(one, rows) for one in (a, b))
        if a is not None and b is not None:
            lab.ledger.tie(a, b, "meets values of a fixed size")
            return a if a.numel() >= b.numel() else b
        sure = a if a is not None else b
        lab.ledger.freeze(sure, "meets values of a fixed size")
        return None
    return _contract_plain(lab, a, b, rank)


def _contract_plain(lab: Labeller, a: torch.Tensor | None, b: torch.Tensor | None, rank: int) -> torch.Tensor | None:
    if not lab.by_width:
        for one, other, dim in ((a, b, rank - 1), (b, a, rank - 2)):
            across = [] if other is None else varying_dims(other)
            if one is not None and dim in varying_dims(one) and len(varying_dims(one)) == 2 and across in ([], [2 * rank - 3 - dim]):
                # Heads beside places, and their width: each head meets the same table of relative positions.
                lab.ledger.freeze(other, "is a table that heads are multiplied with")
                return lab.ledger.squash(one, [dim])
    meets = [one for one, d in ((a, rank - 1), (b, rank - 2)) if one is not None and one.shape[d] > 1]
    if any(len(varying_dims(one)) > 1 for one in (a, b) if one is not None):
        for one in (a, b):
            lab.ledger.freeze(one, "a product of two activations mixes channels in two directions")
        return None
    if len(meets) == 2:
        lab.ledger.tie(meets[0].reshape(-1), meets[1].reshape(-1))
    else:
        for one in meets:
            lab.ledger.freeze(one, "a product with values of a fixed size consumes the channels")
    left = a if a is not None and a.shape[rank - 2] > 1 else None
    right = b if b is not None and b.shape[rank - 1] > 1 else None
    if left is not None and right is not None:
        for one in (left, right):
            lab.ledger.freeze(one, "a product of two activations makes a table of channels by channels")
        return None
    return left if left is not None else right


def attention(lab: Labeller, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """softmax(q k^T) v, fused: q, k and v are (batch, heads, places, width)."""
    q, k, v = args[:3]
    if any(lab.param(x) is not None for x in (q, k, v)):
        return unknown(lab, func, args, kwargs, out)
    a, b, c = (lab.labels(x) for x in (q, k, v))
    if q.dim() > 2 and k.shape[-3] not in (1, q.shape[-3]):
        # Several heads of queries share one of keys and values: they leave with it.
        b, c = (_for_each_query(one, q.shape[-3]) for one in (b, c))
    mask = kwargs.get("attn_mask", next((x for x in args[3:] if isinstance(x, torch.Tensor)), None))
    turned = None if b is None else b.transpose(-1, -2)
    weights = contract(lab, q, k.transpose(-1, -2), a, turned)
    if weights is not None and (weights.shape[-1] > 1 or weights.shape[-2] > 1):
        lab.ledger.freeze(weights, "attention mixes channels in two directions")
        weights = None
    if mask is not None and (view := lab.param(mask)) is not None and (mask.dim() < 3 or mask.shape[-3] == 1):
        lab.ledger.used.add(view.name)
        lab.ledger.freeze_param(view, "is an attention mask for all heads")
    elif mask is not None and lab.tag(mask) is not None:
        theirs = _mask_heads(lab, mask)
        if weights is None or theirs is None or any(d != 1 for d in varying_dims(theirs)):
            lab.freeze_all((mask, v), {}, "attention with a mask that can't be followed")
        else:
            lab.ledger.tie(weights, theirs, "meets a mask of a fixed size")
    elif mask is not None and mask.dim() > 2 and mask.shape[-3] > 1:
        lab.ledger.freeze(weights, "meets a mask of a fixed size")
    by_width = lab.by_width or (a is not None and varying_dims(a) == [a.dim() - 1])  # or there is one head alone
    if by_width and a is not None and a.shape[-1] > 1 and kwargs.get("scale") is None:
        # Its default scale is the root of the width.
        wide = lab.ledger.squash(a, [d for d in varying_dims(a) if d != a.dim() - 1])
        lab.mixes(func, q.dim(), {q.dim() - 1: [wide.reshape(-1)]})
    fake = q.new_empty(1).expand(*q.shape[:-1], k.shape[-2])
    made = contract(lab, fake, v, weights, c)
    lab.name(outputs_of(out)[0], made)


def _for_each_query(labels: torch.Tensor | None, heads: int) -> torch.Tensor | None:
    """Labels of keys or values of fewer heads, as many times as queries meet them."""
    if labels is None or labels.shape[-3] == 1:
        return labels
    return labels.repeat_interleave(heads // labels.shape[-3], -3)


def _mask_heads(lab: Labeller, mask: torch.Tensor) -> torch.Tensor | None:
    """Labels of an attention mask; one made from a table of positions by heads varies along its heads."""
    view = lab.param(mask)
    if view is None:
        return lab.labels(mask)
    lab.ledger.used.add(view.name)
    atoms = lab.ledger.of(view, mask.dim() - 3, "channel")
    return None if atoms is None else atoms.reshape(1, -1, 1, 1)
