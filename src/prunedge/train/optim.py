"""The optimiser, and its momentum by parameter name: what surgery slices and a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.train.schedule import FitRecipe

OptimState = dict[str, dict[str, torch.Tensor]]  # parameter name -> {"momentum_buffer": tensor of its shape}

MOMENTUM = "momentum_buffer"


def make_optimiser(net: nn.Module, recipe: FitRecipe, state: OptimState | None = None) -> torch.optim.SGD:
    """Make SGD with Nesterov momentum over the trainable parameters of `net`, its momentum filled from `state`.

    Weight decay spares parameters of one dimension (biases, normalisation). Parameters that `state` doesn't name
    start without momentum. Raises TrainError when `state` names what isn't there or has another shape.
    """
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainError(f"{type(net).__name__} has no parameter to train", remedy="set requires_grad on some")
    groups = [
        {"params": [one for one in trainable if one.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in trainable if one.ndim <= 1], "weight_decay": 0.0},
    ]
    # Fused, a step takes a tenth of the time on a CPU: large linear layers are bound by memory.
    optimiser = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=True,
        fused=True,
    )
    _fill(net, optimiser, state or {})
    return optimiser


def state_of(net: nn.Module, optimiser: torch.optim.Optimizer) -> OptimState:
    """Copy the momentum of every parameter that has one, by name, in the plain memory format."""
    return {
        name: {MOMENTUM: optimiser.state[parameter][MOMENTUM].clone(memory_format=torch.contiguous_format)}
        for name, parameter in net.named_parameters()
        if optimiser.state.get(parameter, {}).get(MOMENTUM) is not None
    }


def flattened(state: OptimState) -> dict[str, torch.Tensor]:
    """One tensor for each name, as a file wants them."""
    return {f"{name}|{key}": tensor.detach().cpu().contiguous() for name, held in state.items() for key, tensor in held.items()}


def unflattened(tensors: Mapping[str, torch.Tensor]) -> OptimState:
    """The state that `flattened` took apart."""
    state: OptimState = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("|")
        state.setdefault(parameter, {})[key] = tensor
    return state


def _fill(net: nn.Module, optimiser: torch.optim.Optimizer, state: OptimState) -> None:
    parameters = dict(net.named_parameters())
    faults = [f"{name} isn't in the network" for name in state if name not in parameters]
    faults += [
        f"{name} has momentum {tuple(entry[MOMENTUM].shape)} for {tuple(parameters[name].shape)}"
        for name, entry in state.items()
        if name in parameters and entry[MOMENTUM].shape != parameters[name].shape
    ]
    if faults:
        raise TrainError(f"the momentum doesn't fit the network: {'; '.join(faults)}", remedy="give that of the same network, or none")
    for name, parameter in parameters.items():
        if state and parameter.requires_grad:
            # In the parameter's own memory format, and for all or for none: the fused step wants it so. A momentum of
            # zeros is what a parameter without momentum starts from.
            held = torch.zeros_like(parameter, requires_grad=False)
            optimiser.state[parameter][MOMENTUM] = held.copy_(state[name][MOMENTUM]) if name in state else held
