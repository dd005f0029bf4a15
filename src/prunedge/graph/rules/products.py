"""Products of two activations: attention, by hand and fused."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.observations import Operation
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import squash_all_but, unknown
from prunedge.graph.rules.elementwise import meet
from prunedge.graph.rules.registry import Kept, over, rule


@rule("bmm")
def product(labeller: Labeller, call: Call) -> None:
    """(b, n, k) @ (b, k, m).

    Of heads (b), each leaves as a whole; without heads, the contracted channels leave together.
    """
    x = call["self"]
    y = call["mat2"]
    if _layer(labeller, x, y, call.result):
        return
    tables = [operand for operand in (x, y) if labeller.param(operand) is not None]
    if len(tables) == 2:
        return unknown(labeller, call)
    _activations(labeller, x, y, tables, call.result)


@rule("baddbmm")
def product_and_sum(labeller: Labeller, call: Call) -> None:
    """The same, added to a mask or to another activation."""
    added = call["self"]
    x = call["batch1"]
    y = call["batch2"]
    if call.is_in_place or any(labeller.param(operand) is not None for operand in (x, y)):
        return unknown(labeller, call)
    made = _activations(labeller, x, y, [], call.result)
    if made is None:
        labeller.freeze_all(added, "meets values of a fixed size")
    else:
        # A mask of a fixed number of heads keeps these.
        meet(labeller, call, [added, call.result])


def _activations(
    labeller: Labeller,
    x: torch.Tensor,
    y: torch.Tensor,
    tables: list[torch.Tensor],
    result: torch.Tensor,
) -> torch.Tensor | None:
    """Name the product of two activations, of which `tables` are parameters."""
    labeller.freeze_all(tables, "is a table that is multiplied with activations")
    made = contract(labeller, x, y, labeller.labels(x), labeller.labels(y))
    labeller.name(result, made)
    return made


def _layer(labeller: Labeller, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> bool:
    """A weight in a batched product, the same for the whole batch: follow it as a linear layer.

    It is how einsum writes one. False where it is none: both or neither are weights, or what
    meets it has channels elsewhere, too.
    """
    left = labeller.param(x)
    right = labeller.param(y)
    columns = x.dim() - 1
    rows = x.dim() - 2
    if right is not None and left is None:
        return _times_shared(labeller, x, y, right, out, along=columns, contracted=rows)
    if left is not None and right is None:
        return _times_shared(labeller, y, x, left, out, along=rows, contracted=columns)
    return False


def _times_shared(
    labeller: Labeller,
    x: torch.Tensor,
    weight: torch.Tensor,
    view: ParamView,
    out: torch.Tensor,
    *,
    along: int,
    contracted: int,
) -> bool:
    """An activation in a batched product with a weight that all of the batch share.

    The activation's channels lie `along`, and so does what is made; the weight is summed over along
    `contracted`. False where that is not how they lie.
    """
    labels = labeller.labels(x)
    is_shared = all(compact(coordinate).shape[0] == 1 for coordinate in view.coordinates)
    if labels is None or varying_dims(labels) != [along] or not is_shared:
        return False
    consumed_line = view.along(contracted)
    made_line = view.along(along)
    if consumed_line is None or made_line is None or consumed_line[0] == made_line[0]:
        return False

    ledger = labeller.ledger
    ledger.used.add(view.name)
    share = prod(weight.shape[-2:]) / prod(ledger.shapes[view.name])  # below 1: a slice
    # A matrix has two dimensions: the activation's positions lie along the one that is not `along`.
    positions = x.shape[0] * x.shape[contracted]
    ledger.operations.append(Operation(view.name, positions / labeller.batch * share))
    consumed = ledger.of(view, contracted, "in")
    made = ledger.of(view, along, "out")
    assert consumed is not None
    assert made is not None
    ledger.tie(labels.reshape(-1), consumed)
    labeller.name(out, lying_along(made, along, x.dim()))
    return True


def contract(
    labeller: Labeller,
    x: torch.Tensor,
    y: torch.Tensor,
    a: torch.Tensor | None,
    b: torch.Tensor | None,
) -> torch.Tensor | None:
    """Labels of a product of two activations (..., n, k) @ (..., k, m), given theirs; counts it."""
    ledger = labeller.ledger
    macs = prod(x.shape) * y.shape[-1] // labeller.batch
    known = [labels for labels in (a, b) if labels is not None]
    most = max(known, key=lambda labels: labels.numel(), default=None)
    if most is None or most.numel() == 1:
        ledger.operations.append(Operation(None, macs))
    else:
        ledger.operations.append((macs // most.numel(), most))
    if not known:
        return None

    rank = x.dim()
    varying: set[int] = set()
    for labels in known:
        varying.update(varying_dims(labels))
    heads = sorted(dim for dim in varying if dim < rank - 2)
    if not heads:
        return _contract_plain(labeller, a, b, rank)
    if labeller.by_width:
        a = None if a is None else ledger.squash(a, heads)
        b = None if b is None else ledger.squash(b, heads)
        return _contract_plain(labeller, a, b, rank)

    matrix = (rank - 2, rank - 1)
    a = None if a is None else ledger.squash(a, matrix)
    b = None if b is None else ledger.squash(b, matrix)
    if a is not None and b is not None:
        ledger.tie(a, b, "meets values of a fixed size")
        return a if a.numel() >= b.numel() else b
    ledger.freeze(a if a is not None else b, "meets values of a fixed size")
    return None


def _contract_plain(
    labeller: Labeller, a: torch.Tensor | None, b: torch.Tensor | None, rank: int
) -> torch.Tensor | None:
    """Labels of the product of two activations without heads."""
    ledger = labeller.ledger
    if not labeller.by_width:
        for labels, other, dim in ((a, b, rank - 1), (b, a, rank - 2)):
            if labels is not None and _meets_table(labels, other, dim, rank):
                ledger.freeze(other, "is a table that heads are multiplied with")
                return ledger.squash(labels, [dim])

    known = [labels for labels in (a, b) if labels is not None]
    if any(len(varying_dims(labels)) > 1 for labels in known):
        for labels in known:
            reason = "a product of two activations mixes channels in two directions"
            ledger.freeze(labels, reason)
        return None

    meets = _varying_along(((a, rank - 1), (b, rank - 2)))
    if len(meets) == 2:
        ledger.tie(meets[0].reshape(-1), meets[1].reshape(-1))
    else:
        for labels in meets:
            ledger.freeze(labels, "a product with values of a fixed size consumes the channels")

    stays = _varying_along(((a, rank - 2), (b, rank - 1)))
    if len(stays) == 2:
        for labels in stays:
            reason = "a product of two activations makes a table of channels by channels"
            ledger.freeze(labels, reason)
        return None
    return stays[0] if stays else None


def _varying_along(operands: tuple[tuple[torch.Tensor | None, int], ...]) -> list[torch.Tensor]:
    """Those of the labels that vary along the dimension beside them."""
    return [labels for labels, dim in operands if labels is not None and labels.shape[dim] > 1]


def _meets_table(labels: torch.Tensor, other: torch.Tensor | None, dim: int, rank: int) -> bool:
    """Whether heads beside places, and their width, meet the same table of relative positions."""
    varying = varying_dims(labels)
    across = [] if other is None else varying_dims(other)
    return dim in varying and len(varying) == 2 and across in ([], [2 * rank - 3 - dim])


@rule("_scaled_dot_product*")
def attention(labeller: Labeller, call: Call) -> None:
    """softmax(q k^T) v, fused: q, k and v are (batch, heads, places, width)."""
    q = call["query"]
    k = call["key"]
    v = call["value"]
    if any(labeller.param(x) is not None for x in (q, k, v)):
        return unknown(labeller, call)

    q_labels = labeller.labels(q)
    k_labels = labeller.labels(k)
    v_labels = labeller.labels(v)
    if q.dim() > 2 and k.shape[-3] not in (1, q.shape[-3]):
        # Grouped-query attention: the heads of queries that share a head of keys and values leave
        # with it.
        k_labels = _for_each_query(k_labels, q.shape[-3])
        v_labels = _for_each_query(v_labels, q.shape[-3])
    transposed = None if k_labels is None else k_labels.transpose(-1, -2)
    weights = contract(labeller, q, k.transpose(-1, -2), q_labels, transposed)
    if weights is not None and (weights.shape[-1] > 1 or weights.shape[-2] > 1):
        labeller.ledger.freeze(weights, "attention mixes channels in two directions")
        weights = None

    mask = call.get("attn_mask")
    if mask is None:
        mask = call.get("attn_bias")
    if mask is not None:
        _meet_mask(labeller, mask, v, weights)
    if call["scale"] is None:
        _note_default_scale(labeller, call, q_labels)

    scores = q.new_empty(1).expand(*q.shape[:-1], k.shape[-2])
    labeller.name(call.result, contract(labeller, scores, v, weights, v_labels))


def _note_default_scale(labeller: Labeller, call: Call, labels: torch.Tensor | None) -> None:
    """The default scale is the root of the width, which changes when that is pruned."""
    if labels is None or labels.shape[-1] == 1:
        return
    last = labels.dim() - 1
    has_single_head = varying_dims(labels) == [last]
    if labeller.by_width or has_single_head:
        width = squash_all_but(labeller, labels, last)
        labeller.mixes(call, {call["query"].dim() - 1: [width.reshape(-1)]})


@over("_scaled_dot_product*")
def attention_over(call: Call, kept: Kept) -> Any:
    """With the scale of the width that stays; zeros in the sums change nothing."""
    width = len(next(iter(kept.values())))
    return call.func(*call.args, **{**call.kwargs, "scale": width**-0.5})


def _for_each_query(labels: torch.Tensor | None, heads: int) -> torch.Tensor | None:
    """Labels of keys or values of fewer heads, as many times as queries meet them."""
    if labels is None or labels.shape[-3] == 1:
        return labels
    return labels.repeat_interleave(heads // labels.shape[-3], -3)


def _meet_mask(
    labeller: Labeller, mask: torch.Tensor, v: torch.Tensor, weights: torch.Tensor | None
) -> None:
    """Tie the heads of a mask to those of the attention's `weights`."""
    ledger = labeller.ledger
    view = labeller.param(mask)
    if view is not None and (mask.dim() < 3 or mask.shape[-3] == 1):
        ledger.used.add(view.name)
        ledger.freeze_param(view, "is an attention mask for all heads")
    elif labeller.tag(mask) is not None:
        heads = _mask_heads(labeller, mask)
        if weights is None or heads is None or any(dim != 1 for dim in varying_dims(heads)):
            labeller.freeze_all((mask, v), "attention with a mask that can't be followed")
        else:
            ledger.tie(weights, heads, "meets a mask of a fixed size")
    elif mask.dim() > 2 and mask.shape[-3] > 1:
        ledger.freeze(weights, "meets a mask of a fixed size")


def _mask_heads(labeller: Labeller, mask: torch.Tensor) -> torch.Tensor | None:
    """Labels of an attention mask; a table of relative positions varies along its heads."""
    view = labeller.param(mask)
    if view is None:
        return labeller.labels(mask)
    labeller.ledger.used.add(view.name)
    atoms = labeller.ledger.of(view, mask.dim() - 3, "channel")
    return None if atoms is None else atoms.reshape(1, -1, 1, 1)
