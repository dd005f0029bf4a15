"""The layers that a model's time goes into, and how wide each is after a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import nn

from prunedge.models.cost import evaluating


@dataclass(frozen=True)
class Shape:
    """A convolution or a linear layer as a runtime sees it, for one image.

    `size` is the height and width of its input; a linear layer has (rows, 0), and no kernel. A
    depthwise convolution has as many groups as input channels.
    """

    inputs: int
    outputs: int
    size: tuple[int, int]
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each input channel is filtered by itself."""
        return self.groups > 1 and self.groups == self.inputs

    @property
    def weights(self) -> int:
        """How many numbers its weight has."""
        return self.inputs // self.groups * self.outputs * max(1, prod(self.kernel))

    @property
    def activations(self) -> int:
        """How many numbers go into it and come out of it, for one image."""
        height, width = self.size
        if self.kernel == (0, 0):
            return height * (self.inputs + self.outputs)
        out_height = self._out(height, 0)
        out_width = self._out(width, 1)
        return height * width * self.inputs + out_height * out_width * self.outputs

    def _out(self, side: int, axis: int) -> int:
        """A side of the output of a convolution."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (side + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    @property
    def kind(self) -> Shape:
        """The same layer of no width: layers of one kind share a table."""
        return replace(
            self,
            inputs=0,
            outputs=self.outputs // self.groups if self.is_depthwise else 0,
            groups=-1 if self.is_depthwise else self.groups,
        )

    def wide(self, inputs: int, outputs: int) -> Shape:
        """The same layer with other widths; a depthwise one follows its inputs."""
        if self.is_depthwise:
            return replace(
                self, inputs=inputs, outputs=inputs * (self.outputs // self.groups), groups=inputs
            )
        return replace(self, inputs=inputs, outputs=outputs)


def layers_of(model: nn.Module, example: torch.Tensor) -> list[tuple[str, Shape]]:
    """(name of the weight, shape) of every convolution and linear layer, once for each time that it
    runs on one image of `example`.
    """
    layers: list[tuple[str, Shape]] = []
    handles = []

    def watching(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            layers.append((f"{name}.weight", _shape(module, inputs[0])))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_pre_hook(watching(name)))
    try:
        with evaluating(model), torch.no_grad():
            model(example[:1].to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return layers


def after(shape: Shape, weight: tuple[int, ...]) -> Shape:
    """The layer when its weight has this shape."""
    if shape.kernel == (0, 0):
        return shape.wide(weight[1], weight[0])
    if shape.is_depthwise:
        return shape.wide(weight[0] // (shape.outputs // shape.groups), weight[0])
    return shape.wide(weight[1] * shape.groups, weight[0])


def shapes_after(
    layers: Sequence[tuple[str, Shape]], sizes: Mapping[str, tuple[int, ...]]
) -> list[Shape]:
    """All layers with the weights' shapes in `sizes` (`ChannelGraph.sizes`)."""
    return [after(shape, sizes[name]) if name in sizes else shape for name, shape in layers]


def _shape(module: nn.Module, inputs: torch.Tensor) -> Shape:
    if isinstance(module, nn.Linear):
        return Shape(
            module.in_features, module.out_features, (inputs[0].numel() // module.in_features, 0)
        )
    assert isinstance(module, nn.Conv2d)
    return Shape(
        module.in_channels,
        module.out_channels,
        (inputs.shape[-2], inputs.shape[-1]),
        _pair(module.kernel_size),
        _pair(module.stride),
        _padding(module),
        _pair(module.dilation),
        module.groups,
    )


def _padding(module: nn.Conv2d) -> tuple[int, int]:
    if not isinstance(module.padding, str):
        return _pair(module.padding)
    # 'same' may pad one side more than the other; for the time that is all one.
    return _pair(
        tuple(
            d * (k - 1) // 2 if module.padding == "same" else 0
            for d, k in zip(module.dilation, module.kernel_size, strict=True)
        )
    )


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    first, second = values
    return first, second
