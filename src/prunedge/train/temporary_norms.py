"""Batch normalisation for as long as a training lasts, in models that have none.

A VGG or a SqueezeNet that has lost most of its channels hardly learns: nothing keeps the signal's
size through its layers. A batch norm behind each convolution and linear layer does, and when the
training is over it is folded into their weights, so that the model is the one it was, with as many
operations.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from prunedge.models import has_normalisation
from prunedge.models.cost import evaluating
from prunedge.train.engine import Engine

log = logging.getLogger(__name__)

NAME = "temporary_norm"
CALIBRATION = 256  # images that the norms' first statistics come from
CALIBRATION_BATCH = 32
LAYERS = (nn.Conv2d, nn.Linear)


@contextlib.contextmanager
def temporary_norms(model: nn.Module, train: Any, engine: Engine) -> Iterator[None]:
    """While inside, a batch norm follows each convolution and linear layer of `model` but the last
    one that runs; afterwards, also after an error, each is folded into its layer's weights.

    Nothing in models that have a normalisation anywhere. Each norm begins with the mean and the
    variance of its layer's outputs on some images of `train` (a Split or batches), and with a scale
    and a shift that undo them: in evaluation mode the model computes what it did. Its tensors are
    called `LAYER.temporary_norm.*`. The layer's own bias, which a norm takes away again, is frozen
    meanwhile: its gradient would be rounding alone, of which Adam makes whole steps.

    Layers whose parameters want no gradient (`freeze`), that have no bias to take in a norm's
    shift, run several times for an image, share their weight or have it parametrized get none.
    """
    if has_normalisation(model):
        yield
        return
    statistics = _statistics(model, train, engine)
    layers: list[Any] = []
    learned: list[nn.Parameter] = []
    hooks = []
    for layer, moments in statistics.items():
        layer.add_module(NAME, _norm(moments, layer.weight.device).train(layer.training))
        hooks.append(layer.register_forward_hook(_normalise))
        layers.append(layer)
        if layer.bias.requires_grad:
            layer.bias.requires_grad_(False)
            learned.append(layer.bias)
    log.debug("%d layers have a batch norm while they are trained", len(layers))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            _fold(layer)
        for bias in learned:
            bias.requires_grad_(True)


def norm_names(model: nn.Module) -> list[str]:
    """The names of the layers that have a norm at the moment."""
    return [
        name.removesuffix(f".{NAME}") for name, _ in model.named_modules() if name.endswith(NAME)
    ]


def with_norms(shares: Mapping[str, float], model: nn.Module) -> dict[str, float]:
    """What is set for each parameter by name, also for those of the norms: as for their layer's
    weight.
    """
    of_all = dict(shares)
    for layer in norm_names(model):
        for name in ("weight", "bias"):
            of_all[f"{layer}.{NAME}.{name}"] = shares[f"{layer}.weight"]
    return of_all


@dataclass
class _Moments:
    """Sums over all values of each channel, (channels,) float64, and how many they are of."""

    total: torch.Tensor
    squares: torch.Tensor
    count: int
    runs: int = 0

    @classmethod
    def of(cls, layer: Any) -> _Moments:
        """Those of nothing."""
        channels = len(layer.weight)
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(zeros, zeros.clone(), 0)

    def add(self, outputs: torch.Tensor) -> None:
        """Take in a layer's outputs, (N, channels, ...)."""
        values = outputs.detach().float().transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(values, dim=1, correction=0)
        variance, mean = variance.double().cpu(), mean.double().cpu()
        self.total += values.shape[1] * mean
        self.squares += values.shape[1] * (variance + mean.square())
        self.count += values.shape[1]
        self.runs += 1

    @property
    def mean(self) -> torch.Tensor:
        """(channels,) float32."""
        return (self.total / self.count).float()

    @property
    def variance(self) -> torch.Tensor:
        """(channels,) float32."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp_min(0).float()


def _statistics(model: nn.Module, train: Any, engine: Engine) -> dict[Any, _Moments]:
    """The moments of every layer that gets a norm, in the order in which images pass them."""
    moments = {layer: _Moments.of(layer) for layer in _layers(model)}
    order: dict[Any, None] = {}

    def watch(layer: nn.Module, inputs: Any, outputs: torch.Tensor) -> None:
        order[layer] = order.pop(layer, None)
        if outputs.ndim in (2, 4):
            moments[layer].add(outputs)

    batches = 0
    handles = [layer.register_forward_hook(watch) for layer in moments]
    try:
        with evaluating(model), torch.no_grad():
            for images in _some_images(train):
                model(engine.to_device(images))
                batches += 1
    finally:
        for handle in handles:
            handle.remove()
    but_the_last = list(order)[:-1]
    return {layer: moments[layer] for layer in but_the_last if moments[layer].runs == batches}


def _layers(model: nn.Module) -> list[Any]:
    """Convolutions and linear layers whose weights can take in a norm."""
    owners: dict[int, int] = {}
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    for layer in layers:
        owners[id(layer.weight)] = owners.get(id(layer.weight), 0) + 1
    return [
        layer
        for layer in layers
        if owners[id(layer.weight)] == 1
        and not is_parametrized(layer)
        and layer.weight.requires_grad
        and layer.bias is not None
    ]


def _some_images(train: Any) -> Iterator[torch.Tensor]:
    """Batches of images, `CALIBRATION` in all."""
    if hasattr(train, "take"):
        train = train.take(CALIBRATION, 0).batches(CALIBRATION_BATCH)
    seen = 0
    for images, _ in train:
        yield images
        seen += len(images)
        if seen >= CALIBRATION:
            break


def _norm(moments: _Moments, device: torch.device) -> nn.BatchNorm1d:
    """A norm that gives what it gets, as long as it is evaluated."""
    norm = nn.BatchNorm1d(len(moments.total), device=device)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(moments.mean)
        norm.running_var.copy_(moments.variance)
        norm.weight.copy_((moments.variance + norm.eps).sqrt())
        norm.bias.copy_(moments.mean)
    return norm


def _norm_of(layer: nn.Module) -> Any:
    return layer.get_submodule(NAME)


def _normalise(layer: nn.Module, inputs: Any, outputs: torch.Tensor) -> torch.Tensor:
    """The hook of a layer that has a norm."""
    norm = _norm_of(layer)
    # One value per channel has no variance.
    learns = norm.training and outputs.numel() > outputs.shape[1]
    return F.batch_norm(
        outputs,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        learns,
        norm.momentum,
        norm.eps,
    )


def _fold(layer: Any) -> None:
    """Take a layer's norm away and give its weights what it did."""
    norm = _norm_of(layer)
    delattr(layer, NAME)
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    weight, bias = fuse(
        layer.weight,
        layer.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
