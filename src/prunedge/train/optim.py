"""The optimizer, and its momentum by parameter name: what surgery slices and a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.train.config import TrainConfig

# parameter name -> {"momentum_buffer": tensor of its shape}
OptimState = dict[str, dict[str, torch.Tensor]]

MOMENTUM = "momentum_buffer"


def make_optimizer(
    model: nn.Module, config: TrainConfig, state: OptimState | None = None
) -> torch.optim.SGD:
    """Make SGD with Nesterov momentum over the trainable parameters of `model`.

    The momentum is filled from `state`. Weight decay spares parameters of one dimension (biases,
    normalisation). Parameters that `state` doesn't name start without momentum. Raises TrainError
    when `state` names what isn't there or has another shape.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainError(
            f"{type(model).__name__} has no parameter to train", remedy="set requires_grad on some"
        )
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    others = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # Fused, a step takes a tenth of the time on a CPU: large linear layers are bound by memory.
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=True,
        fused=True,
    )
    _fill(model, optimizer, state or {})
    return optimizer


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> OptimState:
    """Copy the momentum of every parameter that has one, by name, in the plain memory format."""
    state: OptimState = {}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get(MOMENTUM)
        if momentum is not None:
            state[name] = {MOMENTUM: momentum.clone(memory_format=torch.contiguous_format)}
    return state


def flattened(state: OptimState) -> dict[str, torch.Tensor]:
    """One tensor for each name, as a file wants them."""
    return {
        f"{name}|{key}": tensor.detach().cpu().contiguous()
        for name, held in state.items()
        for key, tensor in held.items()
    }


def unflattened(tensors: Mapping[str, torch.Tensor]) -> OptimState:
    """The state that `flattened` took apart."""
    state: OptimState = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("|")
        state.setdefault(parameter, {})[key] = tensor
    return state


def _fill(model: nn.Module, optimizer: torch.optim.Optimizer, state: OptimState) -> None:
    """Give the optimizer the momentum of `state`, or none."""
    parameters = dict(model.named_parameters())
    faults = [f"{name} isn't in the model" for name in state if name not in parameters]
    for name, entry in state.items():
        have = tuple(entry[MOMENTUM].shape)
        want = tuple(parameters[name].shape) if name in parameters else have
        if have != want:
            faults.append(f"{name} has momentum {have} for {want}")
    if faults:
        raise TrainError(
            f"the momentum doesn't fit the model: {'; '.join(faults)}",
            remedy="give that of the same model, or none",
        )
    if not state:
        return
    # For all or for none: the fused step wants it so. A momentum of zeros is what a parameter
    # without momentum starts from.
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            momentum = torch.zeros_like(parameter, requires_grad=False)  # in its memory format
            if name in state:
                momentum.copy_(state[name][MOMENTUM])
            optimizer.state[parameter][MOMENTUM] = momentum
