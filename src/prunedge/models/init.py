"""The random start of a model that has no weights yet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)
HEAD_STD = 0.01


def has_normalisation(model: nn.Module) -> bool:
    """Say whether `model` normalises its activations anywhere; a model that doesn't needs gentler
    training.
    """
    return any(isinstance(module, NORMALISATIONS) for module in model.modules())


def initialise(model: nn.Module, names: Iterable[str] | None = None) -> None:
    """Give a model without normalisation layers random weights it can learn from, in place; leave
    others alone.

    `names` says which of its tensors (all of them).

    Every convolution and linear layer gets normal weights of variance 2 / fan_in (He et al. 2015,
    arXiv:1502.01852, eq. 10), so that the signal keeps its size through any depth of ReLUs:
    torchvision's own start for VGG's linear layers (standard deviation 0.01) shrinks it. Draws from
    torch's global generator.
    """
    if has_normalisation(model):
        return
    chosen = None if names is None else set(names)
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if chosen is None or f"{name}.weight" in chosen:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        if layer.bias is not None and (chosen is None or f"{name}.bias" in chosen):
            nn.init.zeros_(layer.bias)


def calm_head(model: nn.Module, names: Iterable[str]) -> None:
    """Make the random tensors of the head small, in place: even first predictions, gentle first
    gradients.

    timm starts the head of a two-class EfficientNet with weights up to 0.7, for a first loss of 5
    that spoils what the other layers know. Draws from torch's global generator.
    """
    state = model.state_dict()
    with torch.no_grad():
        for name in sorted(names):
            if state[name].ndim > 1:
                state[name].normal_(std=HEAD_STD)
            elif state[name].is_floating_point():
                state[name].zero_()
