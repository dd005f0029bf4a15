"""Tensors of labels, kept small: of size 1 in every dimension along which they don't vary."""

from __future__ import annotations

import torch

Labels = torch.Tensor


def compact(labels: Labels) -> Labels:
    """The same labels with size 1 in every dimension along which they don't vary."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and (labels.stride(dim) == 0 or _is_constant(labels, dim)):
            labels = labels.narrow(dim, 0, 1)
    return labels


def _is_constant(labels: Labels, dim: int) -> bool:
    first = labels.narrow(dim, 0, 1)
    # Most dimensions that vary do so between the first two places: look there before reading all.
    if not torch.equal(first, labels.narrow(dim, 1, 1)):
        return False
    return bool((labels == first).all())


def varying_dims(labels: Labels) -> list[int]:
    """The dimensions along which compact labels vary."""
    return [dim for dim, size in enumerate(labels.shape) if size > 1]


def lying_along(line: Labels, dim: int, rank: int) -> Labels:
    """Labels (size,) as those of a tensor of so many dimensions that vary along one of them."""
    return line.reshape([-1 if d == dim else 1 for d in range(rank)])
