"""What a model costs to run and to carry: multiply-accumulates, parameters, bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunedge.config import plain_size
from prunedge.edge.image.size import Size, square
from prunedge.errors import ModelError
from prunedge.utils.advice import option
from prunedge.utils.arguments import require
from prunedge.utils.machine import pass_on

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What one image costs: `macs` multiply-accumulates, `params` parameters, `bytes` of float32
    state.
    """

    macs: int
    params: int
    bytes: int

    @property
    def size_mb(self) -> float:
        """The float32 state in megabytes (10**6 bytes)."""
        return self.bytes / 1e6


def cost(model: nn.Module, example: torch.Tensor) -> Cost:
    """Measure the cost of one image of `example` (N, 3, H, W) through `model`, which stays as it
    was.

    `macs` is half of what torch's own `FlopCounterMode` counts in evaluation mode (one
    multiply-accumulate is two operations; normalisation, activation and pooling count nothing).
    `params` counts every parameter once, however often it is shared. `bytes` is the state as
    float32: parameters and floating-point buffers, 4 bytes each. Raises ModelError when the model
    doesn't take an image of this size.
    """
    require("model", model, nn.Module, "an nn.Module, such as prunedge.build(...) gives")
    require("example", example, torch.Tensor, "a batch of images (N, 3, H, W)")
    params = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    return Cost(
        macs=_macs(model, example[:1]), params=params, bytes=FLOAT32_BYTES * (params + buffers)
    )


def _macs(model: nn.Module, image: torch.Tensor) -> int:
    first = next(
        (parameter for parameter in model.parameters() if parameter.is_floating_point()), None
    )
    image = image.detach().to(first) if first is not None else image.detach()
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.random.fork_rng(), torch.no_grad(), _slow_attention(), counter:
        try:
            model(image)
        except (RuntimeError, ValueError, AssertionError) as error:
            pass_on(error)
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise ModelError(
                f"{type(model).__name__} doesn't take an image of {_shape(image)}: {reason}",
                remedy=_remedy(model, image),
            ) from error
    return counter.get_total_flops() // 2


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _slow_attention() -> Iterator[None]:
    # Fused operations count nothing where the counter doesn't know them: nn.MultiheadAttention's
    # own in evaluation mode, and before torch 2.15 the processor's flash attention.
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _shape(image: torch.Tensor) -> str:
    return "x".join(str(size) for size in image.shape[1:])


def _remedy(model: nn.Module, image: torch.Tensor) -> str:
    """What to do about an image that a model doesn't take, by what it is made for."""
    channels = _own_channels(model)
    if channels is not None and channels != image.shape[1]:
        return f"it is made for images of other channels: {option('in_channels', channels)}"
    own = _own_size(model)
    if own is None:
        return (
            f"choose another {option('size')} (many models need at least 32, Inception 75, "
            "transformers their own)"
        )
    height, width = image.shape[-2:]
    return (
        f"it is made for {own} pixels: {option('size', plain_size(own))}; or make it for others "
        "in a function of your own (package.module:function), of timm's by create_model(NAME, "
        f"num_classes=num_classes, img_size=({height}, {width}))"
    )


def _own_channels(model: nn.Module) -> int | None:
    """How many channels a model sees of an image, 1 or 3, where its convolutions say so."""
    taken = {layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)}
    return next((channels for channels in (1, 3) if taken & {1, 3} == {channels}), None)


def _own_size(model: nn.Module) -> Size | None:
    """The one size that a model takes, as torchvision's and timm's transformers keep it."""
    for module in model.modules():
        for name in ("image_size", "img_size"):
            match getattr(module, name, None):
                case int(side):
                    return square(side)
                case (int(height), int(width)):
                    return Size(height, width)
    return None
