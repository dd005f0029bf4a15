"""Cut parameters and buffers along a plan, and the optimizer's state along the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.graph.channels import KeptIndices
from prunedge.graph.masking import in_blocks
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import copied, refresh
from prunedge.graph.sizes import pinned_modules, pins_of
from prunedge.surgery.attention import slim_attention
from prunedge.surgery.attributes import resize_attributes, resize_inputs
from prunedge.surgery.pins import pin_sizes
from prunedge.surgery.resize import note_groups, resize_layers
from prunedge.utils.tracing import traced

OptimState = dict[str, dict[str, torch.Tensor]]  # parameter name -> {buffer name: tensor}


@traced("cut")
def cut(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    pinned: set[str],
    with_old_widths: set[str],
    *,
    resize_pinned: bool,
) -> nn.Module:
    """The model without the channels that the plan removes, not proven yet.

    `model` stays as it was.

    In the modules of `pinned` the calls that name sizes are given those that are left. In those of
    `with_old_widths` code that reads a width is given the one from before, and nothing else changes
    that it may compare with that. With `resize_pinned` the attributes of pinned modules are resized
    like those of the others.
    """
    small = copied(model, _replacements(model, graph.kept(plan)))
    resize_layers(small)
    note_groups(model, small)

    # What was pinned before stays pinned.
    pinned_before = dict(pinned_modules(model))
    pinned = pinned | pinned_before.keys()
    with_old_widths = set(with_old_widths)
    for name, module in pinned_before.items():
        if pins_of(module).reads:
            with_old_widths.add(name)

    left_alone = with_old_widths if resize_pinned else pinned | with_old_widths
    resize_attributes(small, graph, plan, left_alone)
    resize_inputs(small, model, with_old_widths)
    pin_sizes(small, graph, plan, pinned | with_old_widths, with_old_widths)

    slim_attention(small)
    with torch.no_grad():
        refresh(small)
    return small


@traced("slice state")
def slice_state(state: OptimState, graph: ChannelGraph, plan: Plan) -> OptimState:
    """The optimizer's state with the same channels removed as the weights."""
    kept = graph.kept(plan)
    sliced: OptimState = {}
    for name, buffers in state.items():
        sliced[name] = {}
        for key, value in buffers.items():
            is_cut = name in kept and tuple(value.shape) == graph.shapes[name]
            sliced[name][key] = taken(value, kept[name]) if is_cut else value.clone()
    return sliced


def taken(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    """A copy of the tensor with these indices of each dimension alone."""
    if not dims:
        return tensor.detach().clone()
    result = tensor.detach()
    for dim, indices in dims.items():
        blocks, where = in_blocks(result, dim, indices)
        shape = (*result.shape[:dim], len(indices), *result.shape[dim + 1 :])
        result = blocks.index_select(dim, where).reshape(shape)
    return result


def leaving_slices(
    model: nn.Module, graph: ChannelGraph, plan: Plan
) -> Iterator[tuple[torch.Tensor, int, np.ndarray]]:
    """The slices of the model's weights that leave: (tensor, dim, indices along it)."""
    removed = graph.removed(plan)
    consumed = graph.removed(plan, roles=("in",))
    trainable = dict(model.named_parameters())

    # Of buffers only what consumes a channel: running statistics are not set to zero.
    slices: KeptIndices = {name: dims for name, dims in removed.items() if name in trainable}
    slices |= consumed
    tensors = named_tensors(model)
    for name, dims in slices.items():
        for dim, indices in {**removed.get(name, {}), **dims}.items():
            yield tensors[name], dim, indices


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer once, by the first of its names."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def in_place_of(old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """These values as what the old tensor is: a parameter, or a plain tensor."""
    if isinstance(old, nn.Parameter):
        return nn.Parameter(values, requires_grad=old.requires_grad)
    return values


def _replacements(model: nn.Module, kept: KeptIndices) -> dict[int, torch.Tensor]:
    """The id of each tensor that loses channels -> what is left of it."""
    tensors = named_tensors(model)
    replacements = {}
    for name, dims in kept.items():
        old = tensors[name]
        replacements[id(old)] = in_place_of(old, taken(old, dims))
    return replacements
