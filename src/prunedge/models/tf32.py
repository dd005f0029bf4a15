"""Float32 that is float32: without the fewer digits that GPUs take for its products unless they are
told not to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FULL = "ieee"  # torch's word for all 23 bits of the mantissa; TF32 has 10


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, products of float32 tensors are computed in float32 on GPUs, too; afterwards torch is
    set as before.

    By default torch lets convolutions on NVIDIA's GPUs round what they multiply to TF32, which errs
    by 1e-3 where float32 errs by 1e-7: as much as what a proof looks for. On processors nothing
    changes.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = _legacy(cudnn), _legacy(products)
    parts = [part for part in (*_parts(cudnn), products) if hasattr(part, "fp32_precision")]
    finer = [part.fp32_precision for part in parts]
    # Both of torch's ways to say it, so that code inside which asks by either gets an answer. The
    # products' old one is left alone where it says nothing: torch takes a second word about it for
    # a contradiction.
    cudnn.allow_tf32 = False
    if before[1]:
        products.allow_tf32 = False
    for part in parts:
        part.fp32_precision = FULL
    try:
        yield
    finally:
        cudnn.allow_tf32 = True if before[0] is None else before[0]
        if before[1]:
            products.allow_tf32 = True
        for part, precision in zip(parts, finer, strict=True):
            part.fp32_precision = precision


def _parts(cudnn: Any) -> list[Any]:
    """What of cuDNN has a precision of its own, in a torch that tells them apart."""
    return [getattr(cudnn, name) for name in ("conv", "rnn") if hasattr(cudnn, name)]


def _legacy(backend: Any) -> bool | None:
    """What the older of torch's two settings says; None where the newer one contradicts it."""
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:
        return None
