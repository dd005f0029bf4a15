"""Solve a layer's weights so that its outputs in the pruned model are nearest to the whole one's.

By linear least squares with a ridge. A convolution is solved as a linear layer over its patches, at
some positions of each image's feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from prunedge.models.cost import evaluating

LARGEST = 8192  # input features (times the kernel's size) up to which a layer is solved
_POSITIONS = 24  # of each image's feature map that are looked at
# Of the features' mean square: keeps the new weights near the old where the images don't tell.
_RIDGE = 1e-3


def is_solvable(layer: nn.Module, inputs: int) -> bool:
    """Whether a layer that keeps so many inputs can be solved."""
    if isinstance(layer, nn.Linear):
        return inputs <= LARGEST
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        return False
    return inputs * layer.weight[0, 0].numel() <= LARGEST


def layer_outputs(
    model: nn.Module, layers: Mapping[str, torch.Tensor], images: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What layers of the whole model give at the sampled positions: (samples, outputs) for each.

    `layers` says which of their outputs are asked for.
    """
    sampled: dict[str, list[torch.Tensor]] = {name: [] for name in layers}  # a tensor a batch
    batch = 0

    def recorder(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            is_first_call = len(sampled[name]) == batch  # a layer is solved for its first call
            if is_first_call:
                outputs = _sampled_outputs(layer, out, batch)
                sampled[name].append(outputs[:, layers[name].to(outputs.device)])

        return hook

    handles = [model.get_submodule(name).register_forward_hook(recorder(name)) for name in layers]
    try:
        with evaluating(model), torch.no_grad():
            for batch, inputs in enumerate(images):  # noqa: B007  the hooks read it
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(outputs) for name, outputs in sampled.items()}


class _InputSeen(Exception):
    """The layer at hand has seen its input; the rest of the model need not run."""


def solve_weights(
    small: nn.Module,
    name: str,
    images: Sequence[torch.Tensor],
    target: torch.Tensor,
    with_shift: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What to add to a layer's weights (outputs, features) and outputs to come nearest to `target`.

    The shift is without meaning where none was asked for (`with_shift`).
    """
    layer: Any = small.get_submodule(name)
    width = layer.weight[0].numel()
    unknowns = width + int(with_shift)
    # In float32, where the model is: the ridge is far above what rounding does to them.
    like = {"dtype": torch.float32, "device": layer.weight.device}
    gram = torch.zeros(unknowns, unknowns, **like)  # features^T @ features
    product = torch.zeros(unknowns, len(layer.weight), **like)  # features^T @ (target - outputs)
    done = 0  # samples of the target that were met so far
    batch = 0

    def add_batch(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal done
        features = _sampled_patches(module, args[0], batch).float()
        out = type(module).forward(module, args[0])
        outputs = _sampled_outputs(module, out, batch).float()
        missing = target[done : done + len(features)].to(outputs) - outputs
        done += len(features)
        if with_shift:
            features = torch.cat([features, features.new_ones(len(features), 1)], 1)
        gram.addmm_(features.T, features)
        product.addmm_(features.T, missing)
        raise _InputSeen

    handle = layer.register_forward_pre_hook(add_batch)
    try:
        with evaluating(small), torch.no_grad():
            for batch, inputs in enumerate(images):  # noqa: B007  the hook reads it
                try:
                    small(inputs)
                except _InputSeen:
                    continue
    finally:
        handle.remove()

    change = _solve(gram, product, width)
    return change[:width].T, change[-1]


def _solve(gram: torch.Tensor, product: torch.Tensor, width: int) -> torch.Tensor:
    """The change of the weights and the shift, (unknowns, outputs); the ridge spares the shift."""
    exact = gram.double()
    ridge = torch.zeros(len(exact), dtype=exact.dtype, device=exact.device)
    ridge[:width] = _RIDGE * exact.diagonal()[:width].mean().clamp_min(1e-12)
    return torch.linalg.solve(exact + ridge.diag(), product.double())


# -- samples of features and outputs ---------------------------------------------------------------


def _sampled_outputs(layer: nn.Module, out: torch.Tensor, batch: int) -> torch.Tensor:
    """A layer's outputs at the sampled positions of a batch, (samples, outputs)."""
    if not isinstance(layer, nn.Conv2d):
        return out.reshape(-1, out.shape[-1])
    positions = _sampled_positions(out.shape[2:], batch)
    return torch.cat([out[:, :, row, column] for row, column in positions])


def _sampled_patches(layer: nn.Module, z: torch.Tensor, batch: int) -> torch.Tensor:
    """The inputs that these outputs are made from, (samples, input features * kernel size)."""
    if not isinstance(layer, nn.Conv2d):
        return z.reshape(-1, z.shape[-1])

    # A single filter on a single image tells the size of the feature map.
    feature_map = functional.conv2d(
        z[:1], layer.weight[:1], None, layer.stride, layer.padding, layer.dilation
    )
    padded = functional.pad(z, _padding(layer))
    patches = []
    for row, column in _sampled_positions(feature_map.shape[2:], batch):
        rows = _window(layer, row, 0)
        columns = _window(layer, column, 1)
        patches.append(padded[:, :, rows, columns].flatten(1))
    return torch.cat(patches)


def _window(layer: nn.Conv2d, position: int, axis: int) -> slice:
    """Where the kernel reads along an axis (0 down, 1 across) for the output at this position."""
    start = position * layer.stride[axis]
    dilation = layer.dilation[axis]
    return slice(start, start + dilation * (layer.kernel_size[axis] - 1) + 1, dilation)


def _padding(layer: nn.Conv2d) -> list[int]:
    """The padding as `functional.pad` takes it: left, right, top, bottom."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    if isinstance(layer.padding, str):  # "same"
        total_rows = layer.dilation[0] * (layer.kernel_size[0] - 1)
        total_columns = layer.dilation[1] * (layer.kernel_size[1] - 1)
        top = total_rows // 2
        left = total_columns // 2
        return [left, total_columns - left, top, total_rows - top]
    rows, columns = layer.padding
    return [columns, columns, rows, rows]


def _sampled_positions(shape: Sequence[int], batch: int) -> list[tuple[int, int]]:
    """Positions (row, column) of a feature map, drawn anew for each batch.

    They are the same in the whole and the pruned model.
    """
    rows, columns = shape
    generator = torch.Generator().manual_seed(batch)
    drawn = torch.randperm(rows * columns, generator=generator)[:_POSITIONS]
    return [divmod(int(index), columns) for index in drawn]
