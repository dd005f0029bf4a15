"""Network and plan in, a smaller network out, with the proof that nothing else changed."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from prunedge.errors import SurgeryError, WeightsError
from prunedge.graph import ChannelGraph
from prunedge.graph.concepts import KeptIndices
from prunedge.plan import Plan

log = logging.getLogger(__name__)

OptimState = dict[str, dict[str, torch.Tensor]]
TOLERANCE = 1e-4  # relative to the largest output, float32: what the order of summation can change, with room to spare
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)


@dataclass(frozen=True)
class Surgery:
    """A network after a plan: the plan as it was carried out, the groups that could not be proven, and the difference.

    `difference` is the largest deviation from the masked network, relative to the largest output.
    """

    network: nn.Module
    plan: Plan
    refused: Mapping[str, str]
    difference: float


def remove(network: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """A new, smaller network; `network` stays as it was.

    The result equals, on the graph's example and to 1e-4 of the largest output, the network with the removed slices set to
    zero. Raises SurgeryError naming the groups for which that can't be shown.
    """
    surgery = operate(network, graph, plan)
    if surgery.refused:
        names = "; ".join(f"{name}: {why}" for name, why in surgery.refused.items())
        raise SurgeryError("channels could not be removed safely", where=names, remedy="keep these groups out of the plan")
    return surgery.network


def operate(network: nn.Module, graph: ChannelGraph, plan: Plan) -> Surgery:
    """Carry out as much of the plan as can be proven right; groups that can't are left whole and reported."""
    small, difference, why = _attempt(network, graph, plan)
    if small is not None:
        return Surgery(small, plan, {}, difference)
    refused: dict[str, str] = {}
    for name in plan.keep:
        alone, _, reason = _attempt(network, graph, Plan({name: plan.keep[name]}))
        if alone is None:
            refused[name] = reason
    rest = plan.without(refused)
    small, difference, reason = _attempt(network, graph, rest) if refused else (None, 0.0, why)
    if small is None:
        # Each group is fine by itself but not together: trust none of them.
        refused, rest = dict.fromkeys(plan.keep, reason or why), Plan({})
        small, difference, _ = copy.deepcopy(network), 0.0, ""
    log.warning("left whole, could not be proven: %s", ", ".join(refused))
    return Surgery(small, rest, refused, difference)


def _attempt(network: nn.Module, graph: ChannelGraph, plan: Plan) -> tuple[nn.Module | None, float, str]:
    small = _sliced(network, graph.kept(plan))
    masked = _masked(network, graph.removed(plan, roles=("in",)), graph.removed(plan))
    wanted = _outputs(masked, graph.example)
    try:
        found = _outputs(small, graph.example)
    except Exception as error:  # whatever the user's forward raises
        return None, float("inf"), f"the smaller network does not run ({type(error).__name__}: {str(error)[:120]})"
    difference = _difference(found, wanted)
    if difference <= TOLERANCE:
        return small, difference, ""
    return None, difference, f"differs from the masked network by {difference:.1e} of its largest output"


def _outputs(network: nn.Module, example: torch.Tensor) -> list[torch.Tensor]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            return [x for x in tree_flatten(network(example))[0] if isinstance(x, torch.Tensor)]
    finally:
        for module, mode in modes.items():
            module.training = mode


def _difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return float("inf")
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        gap = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12)
        worst = max(worst, float(gap) if torch.isfinite(gap) else float("inf"))
    return worst


def _aliases(network: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _copy_with(network: nn.Module, tensors: Mapping[int, torch.Tensor]) -> nn.Module:
    """A deep copy in which some tensors (by id) are replaced by others; sharing between modules is kept."""
    memo: dict[int, Any] = dict(tensors)
    return copy.deepcopy(network, memo)


def _like(old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(values, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else values


def _take(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    taken = tensor.detach()
    for dim, indices in dims.items():
        taken = taken.index_select(dim, torch.as_tensor(indices, device=taken.device))
    return taken.clone() if taken is tensor or not dims else taken


def _sliced(network: nn.Module, kept: KeptIndices) -> nn.Module:
    tensors = _aliases(network)
    swapped = {id(tensors[name]): _like(tensors[name], _take(tensors[name], dims)) for name, dims in kept.items()}
    small = _copy_with(network, swapped)
    mend(small)
    return small


def _masked(network: nn.Module, consumed: KeptIndices, removed: KeptIndices) -> nn.Module:
    """The network with the removed slices of its weights set to zero; untouched tensors are shared, not copied."""
    tensors = _aliases(network)
    swapped = {id(tensor): tensor for tensor in tensors.values()}
    trainable = dict(network.named_parameters())
    for name, dims in {**{n: d for n, d in removed.items() if n in trainable}, **consumed}.items():
        values = tensors[name].detach().clone()
        for dim, indices in {**removed.get(name, {}), **dims}.items():
            values.index_fill_(dim, torch.as_tensor(indices, device=values.device), 0)
        swapped[id(tensors[name])] = _like(tensors[name], values)
    return _copy_with(network, swapped)


def mend(network: nn.Module) -> None:
    """Bring the sizes that layers keep beside their weights in line with the weights."""
    for module in network.modules():
        if isinstance(module, _CONVOLUTIONS):
            _mend_convolution(module)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            held = next((t for t in (module.weight, module.running_mean) if t is not None), None)
            if held is not None:
                module.num_features = len(held)


def _mend_convolution(module: nn.modules.conv._ConvNd) -> None:
    outs, ins = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = outs, ins * module.groups
        return
    if module.groups == module.in_channels and ins == 1:
        module.groups = outs // (module.out_channels // module.groups)
    module.out_channels, module.in_channels = outs, ins * module.groups


def slice_state(state: OptimState, graph: ChannelGraph, plan: Plan) -> OptimState:
    """The optimizer's state (parameter name -> {buffer name: tensor}) with the same channels removed as the weights."""
    kept = graph.kept(plan)
    return {
        name: {
            key: _take(value, kept[name]) if name in kept and tuple(value.shape) == graph.shapes[name] else value.clone()
            for key, value in buffers.items()
        }
        for name, buffers in state.items()
    }


def adopt(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network with these weights, whatever their widths: rebuilds a pruned network from its saved tensors.

    `tensors` is a whole state dict; a tensor may be narrower than the network's own, never wider or of another rank.
    Raises WeightsError naming each tensor that is missing, unknown or doesn't fit.
    """
    own = network.state_dict(keep_vars=True)
    wrong = [f"{name}: missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name}: unknown" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        have, want = tuple(tensors[name].shape), tuple(own[name].shape)
        if len(have) != len(want) or any(h > w or h < 1 for h, w in zip(have, want, strict=True)):
            wrong.append(f"{name}: {have} does not fit {want}")
    if wrong:
        raise WeightsError("the saved weights do not fit the network", where="; ".join(sorted(wrong)[:8]))
    small = _copy_with(network, {id(own[name]): _like(own[name], value.clone()) for name, value in tensors.items()})
    mend(small)
    return small
