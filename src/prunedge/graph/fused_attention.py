"""Attention as one call, whichever kernel torch takes for it.

`scaled_dot_product_attention` is one operation to a dispatch mode only where torch takes a fused
kernel; what no kernel accepts (three dimensions, a last dimension that is not contiguous, dropout,
values of another width) falls apart into products and a factor: the root of the width at that
moment, which nothing names. Which of them is taken depends on the device, the dtype and the layout
in memory, so that two runs of one model would call different operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["FusedAttention"]


@torch.library.custom_op(
    "prunedge::_scaled_dot_product_attention",
    mutates_args=(),
    schema=(
        "(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, "
        "bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor"
    ),
)
def _attention(*args: Any, **kwargs: Any) -> torch.Tensor:
    return functional.scaled_dot_product_attention(*args, **kwargs)


class FusedAttention(TorchFunctionMode):
    """Every attention is one call of `prunedge::_scaled_dot_product_attention` inside.

    It has no gradients.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            func = torch.ops.prunedge._scaled_dot_product_attention
        return func(*args, **(kwargs or {}))
