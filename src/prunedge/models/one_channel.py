"""A model of grey images, made of one of three colours: on grey images both are the same function.

A grey g comes to the first convolution as n = (g - m) / s, with mean and deviation of one channel;
the model of three colours sees it as x_c = (g - m_c) / s_c = (s / s_c) n + (m - m_c) / s_c. So the
weights of the one channel are the sum over colours of (s / s_c) W_c, and what the means differ by
goes into the bias: the sum of (m - m_c) / s_c over all weights of a filter. Where all colours are
normalised alike, that is the plain sum (timm's `adapt_input_conv`).

Only where the convolution pads with zeros do the two differ: there the model of three colours sees
the mean colour, which is no grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from prunedge.edge.image.normalise import ImageNorm, statistics
from prunedge.errors import ModelError
from prunedge.models.cost import cost
from prunedge.models.state_dicts import State
from prunedge.utils.advice import option
from prunedge.utils.wording import counted, first_of

COLOURS = 3
TOLERANCE = 1e-4  # of the largest output
_SMALLEST = 16  # pixels of a side of what is computed to compare

Name = str


@dataclass(frozen=True)
class FirstConvolution:
    """A model's first convolution: its name, its multiply-accumulates for one image, and those of
    the whole model.
    """

    name: Name
    macs: int
    of_all: int


def see_grey(model: nn.Module, image_norm: ImageNorm, name: str) -> Name:
    """Let a model of three colours take grey images (n, 1, height, width) instead, in place; gives
    the name of its first convolution.

    `image_norm` is how images are normalised, before and after. The convolution has a bias then,
    whatever it had before. Raises ModelError where `model`, which is called `name`, has no
    convolution that this can be done with.
    """
    path, layer = _first_convolution(model, name)
    weight, bias = _summed(layer, image_norm)
    probe = _probe(layer)
    wanted = _of_colours(layer, probe, image_norm)

    layer.in_channels = 1
    layer.weight = nn.Parameter(weight)
    layer.bias = nn.Parameter(bias)
    found = _without_bias(layer, probe)
    if not torch.allclose(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max())):
        raise ModelError(
            f"{path} of {name} is no plain convolution: the sum of its weights is another function",
            remedy=_remedy(),
        )
    return path


def of_grey(state: State, model: nn.Module, name: str) -> State | None:
    """Weights of a model of grey images, as `see_grey` makes it of `model` (which sees three
    colours and is called `name`): their first convolution may lack the bias. None where they are no
    such weights.
    """
    path, layer = _first_convolution(model, name)
    filters, _, *kernel = layer.weight.shape
    of_one = []
    for key, tensor in state.items():
        if tuple(tensor.shape) == (filters, COLOURS, *kernel):
            return None
        if tuple(tensor.shape) == (filters, 1, *kernel) and key.endswith("weight"):
            of_one.append(key)
    if not of_one:
        return None
    # A depthwise convolution may have the same shape.
    of_this_name = [key for key in of_one if key.endswith(f"{path}.weight")]
    first = (of_this_name or of_one)[0]
    bias = f"{first.removesuffix('weight')}bias"
    if bias in state or layer.bias is not None:
        return state
    return {**state, bias: torch.zeros_like(state[first][:, 0, 0, 0])}


def first_convolution(model: nn.Module, example: torch.Tensor, name: str) -> FirstConvolution:
    """What the convolution of a model of three colours costs that `see_grey` makes one of one
    channel. `example` is (n, 3, height, width); ModelError as of `see_grey`.
    """
    path, layer = _first_convolution(model, name)
    shapes: list[torch.Size] = []
    handle = layer.register_forward_hook(lambda _, __, output: shapes.append(output.shape))
    try:
        whole = cost(model, example)
    finally:
        handle.remove()
    return FirstConvolution(path, layer.weight.numel() * shapes[0][2:].numel(), whole.macs)


def sees_grey(model: nn.Module) -> bool:
    """Whether some convolution of a model takes one channel, or it has no convolutions."""
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return not convolutions or any(layer.in_channels == 1 for layer in convolutions)


def _first_convolution(model: nn.Module, name: str) -> tuple[Name, nn.Conv2d]:
    """The convolution that images come to; ModelError where it can't be told."""
    if getattr(model, "transform_input", False):
        raise ModelError(
            f"{name} normalises three colours by itself",
            remedy=_remedy(),
        )
    found = []
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == COLOURS and layer.groups == 1:
            found.append((path, layer))
    if len(found) == 1:
        return found[0]
    names = first_of([path for path, _ in found])
    what = f"{counted(len(found), 'convolution')} of three channels"
    raise ModelError(
        f"{name} has {what}{f' ({names})' if found else ''}, and it takes one to make it of one",
        remedy=_remedy(),
    )


def _remedy() -> str:
    return (
        f"leave {option('in_channels', 1)} out, or make such a model in a function of your own "
        "(package.module:function)"
    )


def _summed(layer: nn.Conv2d, image_norm: ImageNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (filters, 1, height, width) and biases (filters,) of the one channel."""
    scale, shift = _colours_of_grey(image_norm)
    with torch.no_grad():
        weight = layer.weight.double()
        bias = torch.einsum("ochw,c->o", weight, shift)
        if layer.bias is not None:
            bias += layer.bias
        summed = torch.einsum("ochw,c->ohw", weight, scale)[:, None]
    dtype = layer.weight.dtype
    return summed.to(dtype), bias.to(dtype)


def _colours_of_grey(image_norm: ImageNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors and summands (3,) float64 that make a normalised grey the three normalised colours
    of the same grey.
    """
    grey_mean, grey_std = statistics(image_norm, 1)
    means, deviations = statistics(image_norm, COLOURS)
    mean = torch.tensor(means, dtype=torch.float64)
    std = torch.tensor(deviations, dtype=torch.float64)
    return grey_std[0] / std, (grey_mean[0] - mean) / std


def _probe(layer: nn.Conv2d) -> torch.Tensor:
    """A grey image (1, 1, height, width) as good as any, large enough for one step of a filter."""
    height, width = layer.kernel_size
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, max(_SMALLEST, 2 * height), max(_SMALLEST, 2 * width))
    return torch.randn(shape, generator=generator).to(layer.weight)


def _of_colours(layer: nn.Conv2d, grey: torch.Tensor, image_norm: ImageNorm) -> torch.Tensor:
    """What the convolution makes of a grey image as three colours, but for what their means differ
    by, which padding leaves out.
    """
    scale, _ = _colours_of_grey(image_norm)
    return _without_bias(layer, grey * scale.to(grey)[:, None, None])


def _without_bias(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return layer(images) - layer(torch.zeros_like(images))
