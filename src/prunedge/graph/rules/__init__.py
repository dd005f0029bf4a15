"""What each kind of ATen operation does to labels. What no rule describes freezes all that it touches."""

from __future__ import annotations

from typing import Any

import torch

from prunedge.graph.labels import Rule
from prunedge.graph.rules.common import base_name, filled, nothing, unknown
from prunedge.graph.rules.contractions import convolution, matrix, vector_times_vector, weight_times_vector
from prunedge.graph.rules.elementwise import gate, noise, pointwise
from prunedge.graph.rules.moves import folded, join, move, pad, patches, reshape, same, strided
from prunedge.graph.rules.norms import batch_norm, group_norm, layer_norm, weight_norm
from prunedge.graph.rules.products import attention, product
from prunedge.graph.rules.recurrent import fused_layer, fused_layers
from prunedge.graph.rules.reductions import along, pool, reduce
from prunedge.graph.rules.sampling import (
    deformable,
    embedding,
    gather,
    grid_sample,
    put,
    put_along,
    regions,
    scatter,
    scatter_slice,
    unpool,
)

_SAME = {"clone", "detach", "alias", "_to_copy", "contiguous", "lift_fresh", "dropout", "native_dropout", "positive"}
_LIKE = {"empty_like", "zeros_like", "ones_like", "full_like"}
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
_MOVES = {
    "permute", "transpose", "t", "slice", "select", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes",
    "chunk", "unbind", "expand",
    "unsqueeze", "squeeze", "roll", "flip", "rot90", "index", "index_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "repeat", "unfold", "diagonal", "narrow_copy",
}  # fmt: skip
_SPATIAL = (
    "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample", "reflection_pad", "replication_pad",
    "fractional_max_pool", "tril", "triu",
)  # fmt: skip
_REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "argmax", "prod", "logsumexp", "any", "all", "norm",
    "linalg_vector_norm", "argmin", "median", "nanmedian", "kthvalue", "mode", "nansum", "count_nonzero", "std_mean",
}  # fmt: skip
_ALONG = {"_softmax", "_log_softmax", "_safe_softmax", "softmax", "cumsum", "sort", "topk", "cumprod", "logcumsumexp", "cummax", "cummin"}
_BATCH_NORMS = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
    "_batch_norm_no_update", "cudnn_batch_norm", "batch_norm", "miopen_batch_norm",
}  # fmt: skip
_FILLED = {
    "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zeros", "ones", "full", "empty", "empty_strided",
    "_efficientzerotensor",
}  # fmt: skip
_FACTORIES = {"arange", "scalar_tensor", "linspace", "tensor", "eye"}
_NOISE = {"bernoulli", "rand", "randn", "rand_like", "randn_like", "uniform", "normal", "exponential"}
_POINTWISE = {
    "hardswish",
    "selu",
    "relu6",
    "log_sigmoid_forward",
    "leaky_relu",
    "hardtanh",
    "prelu",
    "_prelu_kernel",
    "masked_fill",
    "rrelu_with_noise",
    "clamp",
    "fill",
    "zero",
    "copy",
}


def rule_for(func: Any) -> Rule:
    """The rule for an ATen operation; `unknown` when there is none."""
    base = base_name(func)
    table: tuple[tuple[bool, Rule], ...] = (
        (base in ("convolution", "_convolution"), convolution),
        (base in ("addmm", "mm", "linear"), matrix),
        (base == "mkldnn_rnn_layer", fused_layer),
        (base in ("_cudnn_rnn", "miopen_rnn"), fused_layers),
        (base == "mv", weight_times_vector),
        (base in ("dot", "vdot"), vector_times_vector),
        (base in ("bmm", "baddbmm"), product),
        (base.startswith("_scaled_dot_product"), attention),
        (base in _BATCH_NORMS, batch_norm),
        (base == "native_layer_norm", layer_norm),
        (base == "native_group_norm", group_norm),
        (base == "_weight_norm_interface", weight_norm),
        (base in _SAME or base in _LIKE, same),
        (base in _RESHAPES, reshape),
        (base in ("cat", "stack"), join),
        (base == "as_strided", strided),
        (base == "im2col", patches),
        (base == "col2im", folded),
        (base == "glu", gate),
        (base in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"), embedding),
        (base in ("grid_sampler_2d", "grid_sampler_3d", "_grid_sampler_2d_cpu_fallback"), grid_sample),
        (base in ("roi_align", "roi_pool"), regions),
        (base == "deform_conv2d", deformable),
        (base in ("max_unpool2d", "max_unpool3d"), unpool),
        (base == "gather", gather),
        (base == "slice_scatter", scatter_slice),
        (base in ("scatter", "scatter_add", "scatter_reduce"), scatter),
        (base in ("index_add", "index_copy", "index_fill"), put_along),
        (base in ("index_put", "_unsafe_index_put", "_index_put_impl"), put),
        (base == "constant_pad_nd", pad),
        (base in _MOVES, move),
        (base.lstrip("_").startswith(_SPATIAL), pool),
        (base in _REDUCTIONS, reduce),
        (base in _ALONG, along),
        (base in _FILLED, filled),
        (base in _NOISE, noise),
        (base in _FACTORIES, nothing),
        (base in _POINTWISE or torch.Tag.pointwise in func.tags, pointwise),
    )
    return next((rule for applies, rule in table if applies), unknown)


# What these do to any number of channels is what they do to each of them (see `follow`).
REGULAR: frozenset[Rule] = frozenset(
    {
        convolution, matrix, deformable, embedding, batch_norm, same, reshape, join, pad, pool, unpool, regions, reduce, pointwise,
        filled, noise, nothing,
    }
)  # fmt: skip
