"""Operations whose operands meet element by element."""

from __future__ import annotations

import torch

from prunedge.graph.calls import Call
from prunedge.graph.label_tensors import compact, lying_along, varying_dims
from prunedge.graph.labels import Labeller
from prunedge.graph.ledger import Condition
from prunedge.graph.parameters import ParamView
from prunedge.graph.rules.common import name_all, only_if_pruned, padded_shape
from prunedge.graph.rules.registry import rule


@rule("glu")
def gate(labeller: Labeller, call: Call) -> None:
    """The first half of the channels times the sigmoid of the second."""
    dim = call["dim"] % call.result.dim()
    labels = labeller.labels(call.input)
    if labels is not None and labels.shape[dim] > 1:
        first, second = labels.chunk(2, dim)
        labeller.ledger.tie(first, second, "is gated by values that are no channels")
        labels = first
    labeller.name(call.result, labels)


@rule(
    "hardswish",
    "selu",
    "relu6",
    "log_sigmoid_forward",
    "leaky_relu",
    "hardtanh",
    "prelu",
    "_prelu_kernel",
    "masked_fill",
    "rrelu_with_noise",
    "clamp",
    "fill",
    "zero",
    "copy",
    tag=torch.Tag.pointwise,
    is_regular=True,
)
def pointwise(labeller: Labeller, call: Call) -> None:
    """Operands that meet element by element leave together."""
    meet(labeller, call, call.tensors)


def meet(labeller: Labeller, call: Call, operands: list[torch.Tensor]) -> None:
    """Tie the channels of these operands, and give the call's results their labels."""
    target = operands[0]
    is_in_place = call.is_in_place
    is_fresh = is_in_place and labeller.tag(target) is None and labeller.memory.is_filled(target)
    if is_fresh and any(labeller.param(x) is not None for x in operands):
        # A parameter that is written into a tensor stands for an activation from here on.
        labels = _written_parameters(labeller, operands[1:], call.result)
        return labeller.memory.write(call.result, labels)

    if all(labeller.labels(x) is None for x in operands):
        written = operands[1:] if is_in_place else []
        if any(x.numel() > 1 and not labeller.memory.is_filled(x) for x in written):
            labeller.memory.write(call.result, None)
        return meet_params(labeller, operands, call.results)

    tag_before = labeller.tag(target) if is_in_place else None
    if is_in_place and tag_before is None and not is_fresh and target._is_view():
        reason = "written in place into part of another tensor, which holds no channels"
        return labeller.freeze_all(call.tensors, reason)

    labels = _meet_activations(labeller, call, operands, is_fresh)
    if is_fresh:
        labeller.memory.write(call.result, labels)
    elif is_in_place and len(operands) > 1:
        labeller.memory.rewrite(call.result, labels)
    if not isinstance(tag_before, ParamView):
        name_all(labeller, call.results, labels)


def _meet_activations(
    labeller: Labeller, call: Call, operands: list[torch.Tensor], is_fresh: bool
) -> torch.Tensor | None:
    """Tie what meets; the labels of what comes out, None where all are spread over something wider.

    `is_fresh`: the first operand is about to be filled by the others.
    """
    rank = call.result.dim()
    activations = []  # (shape, labels) of the operands that have labels, broadcast to the result
    varying_somewhere: set[int] = set()
    for x in operands:
        labels = labeller.labels(x)
        if labels is not None:
            labels = labels.reshape(padded_shape(labels, rank))
            activations.append((padded_shape(x, rank), labels))
            varying_somewhere.update(varying_dims(labels))
    varying = sorted(varying_somewhere)

    full: list[torch.Tensor] = []  # labels of operands with all the channels of the result
    thin: list[torch.Tensor] = []  # labels of those that are broadcast over some of them
    for sizes, labels in activations:
        is_full = all(sizes[dim] > 1 for dim in varying)
        (full if is_full else thin).append(labels)

    whole = full[0] if full else torch.zeros([1] * rank, dtype=torch.int64)
    for labels in full[1:]:
        labeller.ledger.tie(whole, labels, "meets channels that can't leave")
    for labels in thin:
        _spread(labeller, whole, labels)

    for number, x in enumerate(operands):
        is_target = is_fresh and number == 0
        _meet_unlabelled(labeller, call, x, whole, varying, is_target)
    return compact(whole) if full else None


def _meet_unlabelled(
    labeller: Labeller,
    call: Call,
    x: torch.Tensor,
    whole: torch.Tensor,
    varying: list[int],
    is_target: bool,
) -> None:
    """Channels meet a parameter, which is tied to them, or values without labels."""
    rank = whole.dim()
    sizes = padded_shape(x, rank)
    meets = [dim for dim in varying if sizes[dim] > 1]
    if labeller.param(x) is not None:
        return scale_by(labeller, x, whole, meets, varying)

    if labeller.tag(x) is not None or is_target or _is_free(labeller, call, x):
        return
    for dim in meets:
        # A dimension that was expanded holds the same value for all channels, however many.
        if x.stride(dim - rank + x.dim()) > 0:
            only_if_pruned(labeller, whole, dim, varying, None, "meets values of a fixed size")


def _is_free(labeller: Labeller, call: Call, x: torch.Tensor) -> bool:
    """Whether an operand without labels is for each channel what it is for any other.

    Random values are, and one number that is written.
    """
    return labeller.memory.is_random(x) or (call.name == "copy" and labeller.memory.is_filled(x))


def _written_parameters(
    labeller: Labeller, operands: list[torch.Tensor], target: torch.Tensor
) -> torch.Tensor | None:
    """Labels of what is written into a filled tensor: of one parameter alone, else it is frozen."""
    labels = labeller.promote(operands[0]) if len(operands) == 1 else None
    if labels is None or operands[0].dim() > target.dim():
        reason = "is written into a tensor in a way that can't be followed"
        labeller.freeze_all(operands, reason)
        return None
    return labels


def _spread(labeller: Labeller, whole: torch.Tensor, labels: torch.Tensor) -> None:
    """Values with fewer channels than what they meet (a gate for each head or block)."""
    reason = "one channel is spread over the others"
    if varying_dims(labels) and bool((whole != 0).any()):
        labeller.ledger.conditions.append(Condition(whole, -1, labels, reason))
    else:
        labeller.ledger.freeze(labels, reason)


def meet_params(
    labeller: Labeller, operands: list[torch.Tensor], results: list[torch.Tensor]
) -> None:
    """A parameter on its way to a layer: scaled, standardised, or summed with another."""
    views = []
    for x in operands:
        view = labeller.param(x)
        if view is not None:
            views.append((x, view))
            labeller.ledger.used.add(view.name)
    if not views:
        return

    result = results[0]
    main, main_view = max(views, key=lambda pair: pair[0].numel())
    others = [x for x in operands if x is not main]
    if len(views) == 1 and main.dim() > 0 and main.shape != result.shape:
        labels = _spread_param(labeller, main, main_view, others, result)
        if labels is not None:
            return name_all(labeller, results, labels)

    if main.shape != result.shape or result.dim() == 0:
        for _, view in views:
            reason = "parameters are combined in a way that can't be followed"
            labeller.ledger.freeze_param(view, reason)
        return
    for x in others:
        _meet_param(labeller, main_view, main.dim(), x)
    for tensor in results:
        labeller.name(tensor, main_view if tensor.shape == main.shape else None)


def _spread_param(
    labeller: Labeller,
    x: torch.Tensor,
    view: ParamView,
    others: list[torch.Tensor],
    result: torch.Tensor,
) -> torch.Tensor | None:
    """Labels of a parameter that is broadcast over values without channels (windows, images).

    None where not exactly one of its dimensions holds channels.
    """
    channels = [dim for dim, size in enumerate(x.shape) if size > 1 and view.along(dim) is not None]
    if len(channels) != 1:
        return None
    atoms = labeller.ledger.of(view, channels[0], "channel")
    line = view.along(channels[0])
    if atoms is None or line is None:
        return None

    labeller.ledger.freeze_other_axes(view, line[0])
    dim = channels[0] + result.dim() - x.dim()
    for other in others:
        other_dim = dim - result.dim() + other.dim()
        if other_dim >= 0 and other.shape[other_dim] > 1 and other.stride(other_dim) > 0:
            labeller.ledger.freeze(atoms, "a weight meets values of a fixed size")
    return lying_along(atoms, dim, result.dim())


def _meet_param(labeller: Labeller, view: ParamView, rank: int, x: torch.Tensor) -> None:
    """Tie a parameter's positions to those of another operand, dimension by dimension."""
    ledger = labeller.ledger
    other_view = labeller.param(x)
    for dim, size in enumerate(padded_shape(x, rank)):
        if size == 1:
            continue
        atoms = ledger.of(view, dim, None)
        if other_view is None:
            if atoms is not None and labeller.tag(x) is None:
                ledger.freeze(atoms, "a weight meets values of a fixed size")
            continue

        other_dim = dim - (rank - x.dim())
        other_atoms = ledger.of(other_view, other_dim, None)
        if atoms is not None and other_atoms is not None:
            if not torch.equal(atoms, other_atoms):
                ledger.of(other_view, other_dim, "channel")
                ledger.tie(atoms, other_atoms)
        elif other_view.name != view.name:
            reason = "parameters are combined in a way that can't be followed"
            for parameter in (view, other_view):
                ledger.freeze_param(parameter, reason)


def scale_by(
    labeller: Labeller, x: torch.Tensor, whole: torch.Tensor, meets: list[int], varying: list[int]
) -> None:
    """Tie a parameter that scales or shifts channels to those that it `meets`, by dimension."""
    ledger = labeller.ledger
    rank = whole.dim()
    view = labeller.param(x)
    assert view is not None
    ledger.used.add(view.name)
    for dim in meets:
        atoms = ledger.of(view, dim - (rank - x.dim()), "channel")
        if atoms is None:
            reason = "meets a parameter in an order that can't be followed"
            only_if_pruned(labeller, whole, dim, varying, None, reason)
            ledger.freeze_param(view, "meets channels in an order that can't be followed")
        else:
            partner = lying_along(atoms, dim, rank)
            only_if_pruned(labeller, whole, dim, varying, partner, "scaled by a parameter")
