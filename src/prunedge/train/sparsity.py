"""Sparse training: penalties that draw channels to zero before they are pruned. Each adds its gradient to the weights' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from prunedge.graph import ChannelGraph, Group
from prunedge.train.fit import Penalty

Kind = Literal["none", "bn-l1", "group-lasso", "growing"]

STRENGTH = {"bn-l1": 1e-4, "group-lasso": 1e-4, "growing": 1e-1}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def penalty(
    kind: Kind, graph: ChannelGraph, strength: float | None = None, chosen: Mapping[str, Sequence[int]] | None = None
) -> Penalty | None:
    """The regularisation of that name over the channels of the graph, or over the `chosen` ones of each group; None for `none`.

    `bn-l1`: strength * sum |gamma| over the scales of the norms that channels pass (network slimming, Liu et al. 2017, equation 1).
    `group-lasso`: strength * sum_c sqrt(n_c) * ||w_c||_2, w_c all n_c weights that leave with channel c, in every layer that makes or
    consumes it (Wen et al. 2016, equation 4, over the groups of the channel graph).
    `growing`: strength / 2 * t * sum_c ||w_c||_2^2 with t growing from 0 to 1 in the course of the training (Wang et al. 2021).
    """
    if kind == "none":
        return None
    weight = STRENGTH[kind] if strength is None else strength
    groups = [(group, torch.as_tensor(sorted(chosen[group.name]) if chosen is not None else range(group.size))) for group in graph.groups
              if chosen is None or chosen.get(group.name)]  # fmt: skip
    if kind == "bn-l1":
        return lambda network, along: _scales(network, groups, weight)
    if kind == "group-lasso":
        return lambda network, along: _channels(network, groups, weight, None)
    return lambda network, along: _channels(network, groups, weight, along)


def _scales(network: nn.Module, groups: Sequence[tuple[Group, torch.Tensor]], weight: float) -> None:
    tensors, seen = dict(network.named_parameters()), set()
    for group, channels in groups:
        for part in group.having("channel"):
            path, _, leaf = part.tensor.rpartition(".")
            scale = tensors.get(part.tensor)
            if leaf != "weight" or scale is None or scale.grad is None or not isinstance(network.get_submodule(path), _NORMS):
                continue
            places = torch.as_tensor(part.indices)[channels].flatten().to(scale.device)
            if (part.tensor, group.name) not in seen:
                seen.add((part.tensor, group.name))
                scale.grad.index_add_(0, places, weight * scale.detach()[places].sign())


def _channels(network: nn.Module, groups: Sequence[tuple[Group, torch.Tensor]], weight: float, along: float | None) -> None:
    tensors = dict(network.named_parameters())
    for group, channels in groups:
        parts = [(tensors[part.tensor], part.dim, torch.as_tensor(part.indices)[channels]) for part in group.slices
                 if part.tensor in tensors and tensors[part.tensor].grad is not None]  # fmt: skip
        taken = []
        for tensor, dim, places in parts:
            places = places.to(tensor.device)
            rows = tensor.detach().index_select(dim, places.flatten()).movedim(dim, 0)
            taken.append((tensor, dim, places, rows.reshape(len(channels), -1), rows.shape))
        if not taken:
            continue
        if along is None:
            count = sum(rows.shape[1] for *_, rows, _ in taken)
            norm = sum(rows.square().sum(1) for *_, rows, _ in taken)
            factor = weight * count**0.5 / torch.as_tensor(norm).sqrt().clamp_min(1e-12)
        else:
            factor = torch.full((len(channels),), weight * along, device=taken[0][3].device)
        for tensor, dim, places, rows, shape in taken:
            change = (rows * factor[:, None]).reshape(shape).movedim(0, dim)
            assert tensor.grad is not None
            tensor.grad.index_add_(dim, places.flatten(), change.to(tensor.grad))
