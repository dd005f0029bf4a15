"""Sparse training: penalties that draw channels to zero before they are pruned.

Each adds its gradient to the weights' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from prunedge.graph import ChannelGraph, Group
from prunedge.train.extras import Penalty

Kind = Literal["none", "bn-l1", "group-lasso", "growing"]

STRENGTH = {"bn-l1": 1e-4, "group-lasso": 1e-4, "growing": 1e-1}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


# A group, and which of its channels are meant: (channels,) int64.
_Chosen = tuple[Group, torch.Tensor]


def penalty(
    kind: Kind,
    graph: ChannelGraph,
    strength: float | None = None,
    chosen: Mapping[str, Sequence[int]] | None = None,
) -> Penalty | None:
    """The regularisation of that name over the channels of the graph; None for `none`.

    Or over the `chosen` channels of each group.

    `bn-l1`: strength * sum |gamma| over the scales of the norms that channels pass (model
    slimming, Liu et al. 2017, equation 1). `group-lasso`: strength * sum_c sqrt(n_c) * ||w_c||_2,
    w_c all n_c weights that leave with channel c, in every layer that makes or consumes it (Wen et
    al. 2016, equation 4, over the groups of the channel graph). `growing`: strength / 2 * t * sum_c
    ||w_c||_2^2 with t growing from 0 to 1 in the course of the training (Wang et al. 2021).
    """
    if kind == "none":
        return None
    weight = STRENGTH[kind] if strength is None else strength
    groups: list[_Chosen] = []
    for group in graph.groups:
        channels = range(group.size) if chosen is None else sorted(chosen.get(group.name, ()))
        if channels:
            groups.append((group, torch.as_tensor(channels)))

    if kind == "bn-l1":
        return lambda model, along: _shrink_scales(model, groups, weight)
    if kind == "group-lasso":
        return lambda model, along: _shrink_channels(model, groups, weight, None)
    return lambda model, along: _shrink_channels(model, groups, weight, along)


def _shrink_scales(model: nn.Module, groups: Sequence[_Chosen], weight: float) -> None:
    """The gradient of `bn-l1`: the sign of each scale."""
    parameters = dict(model.named_parameters())
    seen: set[tuple[str, str]] = set()
    for group, channels in groups:
        for part in group.having("channel"):
            path, _, leaf = part.tensor.rpartition(".")
            scale = parameters.get(part.tensor)
            if leaf != "weight" or scale is None or scale.grad is None:
                continue
            if not isinstance(model.get_submodule(path), _NORMS):
                continue
            if (part.tensor, group.name) not in seen:
                seen.add((part.tensor, group.name))
                places = torch.as_tensor(part.indices)[channels].flatten().to(scale.device)
                scale.grad.index_add_(0, places, weight * scale.detach()[places].sign())


@dataclass(frozen=True)
class _Rows:
    """The weights in one parameter that leave with each channel, (channels, k) as `values`.

    `places` are theirs along `dim`; `shape` is that of the slice with `dim` in front.
    """

    parameter: torch.Tensor
    dim: int
    places: torch.Tensor
    values: torch.Tensor
    shape: torch.Size


def _shrink_channels(
    model: nn.Module, groups: Sequence[_Chosen], weight: float, along: float | None
) -> None:
    """The gradient of `group-lasso` (`along` is None), or of `growing`."""
    parameters = dict(model.named_parameters())
    for group, channels in groups:
        rows = _rows(parameters, group, channels)
        if not rows:
            continue
        if along is None:
            count = sum(part.values.shape[1] for part in rows)
            norm = sum(part.values.square().sum(1) for part in rows)
            factor = weight * count**0.5 / torch.as_tensor(norm).sqrt().clamp_min(1e-12)
        else:
            factor = torch.full((len(channels),), weight * along, device=rows[0].values.device)
        for part in rows:
            change = (part.values * factor[:, None]).reshape(part.shape).movedim(0, part.dim)
            gradient = part.parameter.grad
            assert gradient is not None
            gradient.index_add_(part.dim, part.places.flatten(), change.to(gradient))


def _rows(
    parameters: Mapping[str, nn.Parameter], group: Group, channels: torch.Tensor
) -> list[_Rows]:
    rows = []
    for part in group.slices:
        parameter = parameters.get(part.tensor)
        if parameter is None or parameter.grad is None:
            continue
        places = torch.as_tensor(part.indices)[channels].to(parameter.device)
        values = parameter.detach().index_select(part.dim, places.flatten()).movedim(part.dim, 0)
        flat = values.reshape(len(channels), -1)
        rows.append(_Rows(parameter, part.dim, places, flat, values.shape))
    return rows
