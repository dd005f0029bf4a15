"""Bring the sizes that layers keep beside their weights in line with the weights.

torch's own layers are known by their class; of others it can be said (`register_size_attribute`)
how a size follows from the weights. What was set is noted on the model, since its weights alone
don't tell all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prunedge.graph import norm_by_blocks

CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_REGISTERED: list[tuple[type[nn.Module], str, Callable[[Any], int]]] = []
_NOTE = "_prunedge_sizes"  # the attribute of a model that notes what was set in its modules


def register_size_attribute(
    kind: type[nn.Module], attribute: str, size: Callable[[Any], int]
) -> None:
    """Say how a size that a layer's Python code keeps follows from its weights.

    It is set after each surgery. For example
    `register_size_attribute(MyAttention, "inner", lambda layer: layer.out.in_features)`. Needed
    only where prunedge reports a group as left whole because the smaller model doesn't run.
    """
    _REGISTERED.append((kind, attribute, size))


def noted_sizes(model: nn.Module) -> Mapping[str, Any]:
    """What surgery has set in the model's modules so far: {path of an attribute: its value}."""
    return model.__dict__.get(_NOTE, {})


def note_sizes(model: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Note on the model what was set in its modules, beside what is noted already."""
    if sizes:
        replace_noted_sizes(model, {**noted_sizes(model), **sizes})


def replace_noted_sizes(model: nn.Module, sizes: Mapping[str, Any]) -> None:
    """Note that this, and nothing else, was set in the model's modules."""
    model.__dict__[_NOTE] = sizes


def note_groups(model: nn.Module, small: nn.Module) -> None:
    """Note the groups of convolutions that have changed.

    The weights of a convolution that has lost all groups but one don't tell its groups.
    """
    before = dict(model.named_modules())
    changed = {}
    for name, module in small.named_modules():
        if isinstance(module, CONVOLUTIONS) and module.groups != before[name].groups:
            changed[attribute_path(name, "groups")] = module.groups
    note_sizes(small, changed)


def resize_layers(model: nn.Module) -> None:
    """Set the sizes of torch's layers, and the registered ones, to what the weights say."""
    for module in model.modules():
        _recompute_normed_weights(module)
        _resize_layer(module)
    for kind, attribute, size in _REGISTERED:
        for module in model.modules():
            if isinstance(module, kind):
                setattr(module, attribute, size(module))


def _resize_layer(module: Any) -> None:
    if isinstance(module, CONVOLUTIONS):
        _resize_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NORMS):
        _resize_batch_norm(module)
    elif isinstance(module, nn.GroupNorm) and module.affine:
        _resize_group_norm(module)
    elif _is_layer_norm(module):
        module.__dict__["normalized_shape"] = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, nn.Transformer):
        _resize_transformer(module)
    elif isinstance(module, nn.RNNBase):
        _resize_recurrent(module)
    elif isinstance(module, nn.RNNCellBase):
        module.input_size = module.weight_ih.shape[1]
        module.hidden_size = module.weight_hh.shape[1]


def _resize_convolution(module: nn.modules.conv._ConvNd) -> None:
    first, second = module.weight.shape[:2]
    if module.transposed:
        module.in_channels = first
        module.out_channels = second * module.groups
        return
    is_depthwise = module.groups == module.in_channels > 1 and second == 1
    if is_depthwise:
        module.groups = first // (module.out_channels // module.groups)
    module.out_channels = first
    module.in_channels = second * module.groups


def _resize_batch_norm(module: Any) -> None:
    for held in (module.weight, module.running_mean):
        if held is not None:
            module.num_features = len(held)
            return


def _resize_group_norm(module: nn.GroupNorm) -> None:
    channels = len(module.weight)
    if channels == module.num_channels:
        return
    if norm_by_blocks(module.num_groups, module.num_channels):
        module.num_groups = channels // (module.num_channels // module.num_groups)
    module.num_channels = channels


def _is_layer_norm(module: Any) -> bool:
    """A layer or RMS norm, torch's or another of the same attributes, with a scale."""
    if not isinstance(getattr(module, "normalized_shape", None), tuple):
        return False
    return isinstance(module.weight, torch.Tensor)


def _resize_transformer(module: nn.Transformer) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention):
            module.d_model = layer.out_proj.weight.shape[0]
            return


def _resize_recurrent(module: nn.RNNBase) -> None:
    weights = dict(module.named_parameters())
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    module.input_size = weights["weight_ih_l0"].shape[1]
    module.hidden_size = len(weights["weight_ih_l0"]) // gates
    if module.proj_size:
        module.proj_size = len(weights["weight_hr_l0"])


def _recompute_normed_weights(module: nn.Module) -> None:
    """Compute the weights anew that torch's old weight norms keep from their last call."""
    for hook in module._forward_pre_hooks.values():
        with torch.no_grad():
            if isinstance(hook, SpectralNorm):
                weight = hook.compute_weight(module, do_power_iteration=False)
                setattr(module, hook.name, weight)
            elif isinstance(hook, WeightNorm):
                setattr(module, hook.name, hook.compute_weight(module))


def attribute_path(module: str, attribute: str) -> str:
    """The path of a module's attribute in the model."""
    return f"{module}.{attribute}".lstrip(".")
