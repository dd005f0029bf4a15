"""Other inputs for a model than the one that was given: values, batches, sizes of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

Resizing = Callable[[torch.Tensor], list[int]]  # the shape that a tensor gets

# Pixels along an edge from which the second size is smaller, so that the proof stays cheap.
_LARGE = 100


def others(example: Any) -> Iterator[Any]:
    """Inputs that a model of this example may take as well, the most telling first.

    Whether it does has to be tried.

    Their values are drawn from those of the example, so that they keep its range, and numbers that
    stand for something (words, classes) stay valid; where a tensor of real numbers is the same
    everywhere they are drawn anew around it. First come other sizes (images: height and width by
    half larger or a third smaller, in the same steps of 32, 16 ... as before; sequences: their
    length) with another batch, then another batch alone, then other values alone.
    """
    batch = batch_of(example) or 1
    other_batch = 1 if batch == 2 and _examples_differ(example) else 2
    variants: list[tuple[int, Resizing]] = [
        (other_batch, _images),
        (other_batch, _sequences),
        (other_batch, _middle),
        (other_batch, _kept),
        (batch, _kept),
    ]
    seen: set[tuple[torch.Size, ...]] = set()
    for seed, (new_batch, resizing) in enumerate(variants):
        other = _drawn_anew(example, batch, new_batch, resizing, seed)
        shapes = tuple(x.shape for x in tensors_of(other))
        if shapes not in seen:
            seen.add(shapes)
            yield other


def _drawn_anew(example: Any, batch: int, new_batch: int, resizing: Resizing, seed: int) -> Any:
    """The example with random values of its own, at another size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return _drawn(x, _shape(x, batch, new_batch, resizing), generator)

    return tree_map(draw, example)


def brought_to(example: Any, model: nn.Module) -> Any:
    """The example on the device that all of the model lies on.

    As it is where the model lies on two devices or more, or on none that computes.
    """
    devices = {x.device for x in (*model.parameters(), *model.buffers())}
    if len(devices) != 1 or torch.device("meta") in devices:
        return example
    if all(x.device in devices for x in tensors_of(example)):
        return example

    (device,) = devices
    return tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, example)


def tensors_of(example: Any) -> list[torch.Tensor]:
    """The tensors among a model's inputs, or among an operation's arguments or results."""
    return [x for x in tree_flatten(example)[0] if isinstance(x, torch.Tensor)]


def batch_of(example: Any) -> int:
    """How many examples a batch holds: the size of the first tensor that has one; 0 if none has."""
    return next((len(x) for x in tensors_of(example) if x.dim()), 0)


def _examples_differ(example: Any) -> bool:
    """Whether the first two examples of the batch differ in any tensor."""
    for x in tensors_of(example):
        if x.is_sparse or x.dim() < 2 or len(x) < 2:
            continue
        if not torch.equal(x[0], x[1]):
            return True
    return False


def _shape(x: torch.Tensor, batch: int, new_batch: int, resizing: Resizing) -> list[int]:
    if not x.dim():
        return []
    shape = resizing(x)
    if shape[0] == batch:
        shape[0] = new_batch
    return shape


def _kept(x: torch.Tensor) -> list[int]:
    return list(x.shape)


def _images(x: torch.Tensor) -> list[int]:
    """(n, c, ..., h, w) images and videos, (n, c, length) signals, (n, length) words."""
    if x.dim() > 3:
        return [*x.shape[:-2], *_other_sizes(list(x.shape[-2:]))]
    if x.dim() == 3 or (x.dim() == 2 and not x.is_floating_point()):
        return [*x.shape[:-1], *_other_sizes([x.shape[-1]])]
    return list(x.shape)


def _sequences(x: torch.Tensor) -> list[int]:
    """(n, length, width) vectors beside (n, length) words and masks; images as they are."""
    if x.dim() == 3 or (x.dim() == 2 and not x.is_floating_point()):
        return [x.shape[0], *_other_sizes([x.shape[1]]), *x.shape[2:]]
    return list(x.shape)


def _middle(x: torch.Tensor) -> list[int]:
    """Words and masks as they are, images beside them of another size."""
    if x.dim() > 3:
        return [*x.shape[:-2], *_other_sizes(list(x.shape[-2:]))]
    return list(x.shape)


def _other_sizes(sizes: list[int]) -> list[int]:
    ratio = 2 / 3 if max(sizes) >= _LARGE else 3 / 2
    return [_other(size, ratio) for size in sizes]


def _other(size: int, ratio: float) -> int:
    """The size by a ratio, in steps of the largest power of two (to 32) that divides it."""
    if size < 2:
        return size  # a flat image stays flat
    step = min(32, size & -size)
    steps = round(size * ratio / step)
    if steps * step == size:
        steps += 1 if ratio > 1 else -1
    return step * max(1, steps)


def _drawn(x: torch.Tensor, shape: list[int], generator: torch.Generator) -> torch.Tensor:
    """Values of the tensor at random, at this shape."""
    if not x.numel() or x.layout is not torch.strided or x.is_quantized:
        return x
    values = x.detach().flatten()
    if (x.is_floating_point() or x.is_complex()) and bool((values == values[0]).all()):
        noise = torch.randn(shape, generator=generator).to(x.device, x.dtype)
        return noise + values[0]
    indices = torch.randint(x.numel(), shape, generator=generator)
    return values[indices.to(x.device)].reshape(shape)
