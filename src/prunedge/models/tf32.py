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
    """Inside, products of float32 tensors are computed in float32 on GPUs, too.

    Afterwards torch is set as before.

    By default torch lets convolutions on NVIDIA's GPUs round what they multiply to TF32, which errs
    by 1e-3 where float32 errs by 1e-7: as much as what a proof looks for. On processors nothing
    changes.
    """
    cudnn = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    cudnn_before = _allows_tf32(cudnn)
    matmul_before = _allows_tf32(matmul)
    backends = _with_precision(cudnn, matmul)
    precisions = [backend.fp32_precision for backend in backends]

    # Both of torch's settings, the older and the newer, so that code inside which reads either gets
    # an answer. matmul's older one is left alone where it is off or contradicted: torch takes
    # setting both for a contradiction.
    cudnn.allow_tf32 = False
    if matmul_before:
        matmul.allow_tf32 = False
    for backend in backends:
        backend.fp32_precision = FULL
    try:
        yield
    finally:
        cudnn.allow_tf32 = True if cudnn_before is None else cudnn_before
        if matmul_before:
            matmul.allow_tf32 = True
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


def _with_precision(cudnn: Any, matmul: Any) -> list[Any]:
    """The backends with a precision of their own, in a torch that has such settings."""
    backends = [getattr(cudnn, name) for name in ("conv", "rnn") if hasattr(cudnn, name)]
    return [backend for backend in (*backends, matmul) if hasattr(backend, "fp32_precision")]


def _allows_tf32(backend: Any) -> bool | None:
    """The older of torch's two settings; None where the newer one contradicts it."""
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:
        return None
