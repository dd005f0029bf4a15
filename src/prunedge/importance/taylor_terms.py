"""The arithmetic of the Taylor criteria: from activations and gradients to what is added up."""

from __future__ import annotations

import torch

from prunedge.graph import Group

CHUNK = 2**18  # numbers that are multiplied at once on a processor: 1 MB
KINDS = ("taylor", "taylor-fo", "fisher", "signed")


def term(kind: str, change: torch.Tensor, group: Group) -> torch.Tensor:
    """What a criterion adds up, from the examples' c, (examples, channels)."""
    if kind == "taylor":
        return change.abs() / group.positions
    if kind == "fisher":
        return change.square() / 2
    if kind == "signed":
        return -change
    return change


def products(z: torch.Tensor, gradient: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """z * gradient for each example, summed over these dimensions: at least in float32."""
    precise = torch.promote_types(z.dtype, torch.float32)
    step = max(1, len(z))
    if z.device.type == "cpu" and dims:
        # A few examples at a time, in memory that is at hand: fresh memory for whole maps costs
        # more than the arithmetic.
        step = max(1, CHUNK * len(z) // max(1, z.numel()))

    chunks = []
    for start in range(0, len(z), step):
        chunk = slice(start, start + step)
        product = z[chunk].to(precise) * gradient[chunk].to(precise)
        chunks.append(product.sum(dims) if dims else product)
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)
