"""The optimizer, and its state by parameter name: what surgery slices and a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from prunedge.config.sections import Optimizer
from prunedge.errors import TrainError
from prunedge.train.config import TrainConfig

# parameter name -> {"momentum_buffer": tensor of its shape}, or of AdamW
# {"exp_avg": ..., "exp_avg_sq": ..., "step": a number}
OptimState = dict[str, dict[str, torch.Tensor]]

MOMENTUM = "momentum_buffer"
STATE_KEYS: dict[Optimizer, tuple[str, ...]] = {
    "sgd": (MOMENTUM,),
    "adamw": ("exp_avg", "exp_avg_sq", "step"),
}
RATE_SHARE = "lr_scale"  # as timm calls it: what the rate of a group is multiplied by


def make_optimizer(
    model: nn.Module,
    config: TrainConfig,
    state: OptimState | None = None,
    shares: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Make the config's optimizer over the trainable parameters of `model`.

    Its state is filled from `state`. Weight decay spares parameters of one dimension (biases,
    normalisation). Parameters that `state` doesn't name start without any. `shares` multiply the
    learning rate of parameters by name. Raises TrainError when `state` names what isn't there, has
    another shape or is another optimizer's.
    """
    groups = _groups(model, config, shares or {})
    if not groups:
        raise TrainError(
            f"{type(model).__name__} has no parameter to train", remedy="set requires_grad on some"
        )
    # Fused, a step takes a tenth of the time on a CPU: large linear layers are bound by memory.
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
    else:
        optimizer = torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=True, fused=True
        )
    _fill(model, optimizer, config.optimizer, state or {})
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(RATE_SHARE, 1.0)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> OptimState:
    """Copy the state of every parameter that has one, by name, in the plain memory format."""
    state: OptimState = {}
    for name, parameter in model.named_parameters():
        held = {}
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                held[key] = value.clone(memory_format=torch.contiguous_format)
        if held:
            state[name] = held
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


def _groups(
    model: nn.Module, config: TrainConfig, shares: Mapping[str, float]
) -> list[dict[str, object]]:
    """The trainable parameters by whether they decay and by their share of the rate: weights first,
    in the order of the model.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_vector = parameter.ndim <= 1
            groups.setdefault((is_vector, shares.get(name, 1.0)), []).append(parameter)

    made = []
    for is_vector, share in sorted(groups):
        group = {
            "params": groups[is_vector, share],
            "weight_decay": 0.0 if is_vector else config.decay,
            RATE_SHARE: share,
        }
        made.append(group)
    return made


def _fill(
    model: nn.Module, optimizer: torch.optim.Optimizer, kind: Optimizer, state: OptimState
) -> None:
    """Give the optimizer the state, or none."""
    parameters = dict(model.named_parameters())
    faults = [f"{name} isn't in the model" for name in state if name not in parameters]
    for name, entry in state.items():
        if name not in parameters:
            continue
        if set(entry) != set(STATE_KEYS[kind]):
            faults.append(f"{name} has {', '.join(sorted(entry))}, which is not {kind}'s")
        else:
            faults += _of_other_shape(name, entry, parameters[name])
    if faults:
        raise TrainError(
            f"the momentum doesn't fit the model: {'; '.join(faults)}",
            remedy="give that of the same model, or none",
        )
    if not state:
        return
    # For all or for none: the fused step of SGD wants it so. Zeros are what a parameter without
    # a state starts from.
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        for key in STATE_KEYS[kind]:
            held = _zeros(key, parameter)
            if name in state:
                held.copy_(state[name][key])
            optimizer.state[parameter][key] = held


def _of_other_shape(
    name: str, entry: Mapping[str, torch.Tensor], parameter: nn.Parameter
) -> list[str]:
    """What is wrong with the shapes of a parameter's state."""
    faults = []
    for key, tensor in entry.items():
        have = tuple(tensor.shape)
        want = tuple(_zeros(key, parameter).shape)
        if have != want:
            what = "momentum" if key == MOMENTUM else key
            faults.append(f"{name} has {what} {have} for {want}")
    return faults


def _zeros(key: str, parameter: nn.Parameter) -> torch.Tensor:
    """A state of nothing."""
    if key == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter, requires_grad=False)  # in its memory format
