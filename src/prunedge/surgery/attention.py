"""torch's multi-head attention after pruning: heads and embedding no longer have to fit each other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from prunedge.graph.sizes import uncounted


class SlimMultiheadAttention(nn.MultiheadAttention):
    """What surgery turns an `nn.MultiheadAttention` into, with the same parameters, some of them smaller.

    torch's own code takes the width of all heads together to be that of the embedding. Here they are read off the weights: `in_proj_weight`
    has shape (3 * heads * head_dim, embedding), `out_proj.weight` (embedding, heads * head_dim).
    """

    scale: float

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `nn.MultiheadAttention.forward`, for batched or single sequences."""
        with uncounted():
            return self._attend(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights)

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, key_padding_mask: torch.Tensor | None, need_weights: bool,
        attn_mask: torch.Tensor | None, average_attn_weights: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
        single = query.dim() == 2
        q, k, v = (x.unsqueeze(0) if single else x if self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._split(x, part) for part, x in enumerate((q, k, v)))
        mask = _mask(attn_mask, key_padding_mask, q)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat((x, self._for_all(bias, x)), 2) for x, bias in ((k, self.bias_k), (v, self.bias_v)))
            mask = None if mask is None else functional.pad(mask, (0, 1))
        if self.add_zero_attn:
            k, v = (functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
            mask = None if mask is None else functional.pad(mask, (0, 1))
        weights = None
        if need_weights:
            weights = q @ k.transpose(-2, -1) * self.scale
            weights = (weights if mask is None else weights + mask).softmax(-1)
            out = functional.dropout(weights, self.dropout, self.training) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if single:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _split(self, x: torch.Tensor, part: int) -> torch.Tensor:
        """(batch, places, embedding) -> (batch, heads, places, head_dim)."""
        width = self.num_heads * self.head_dim
        rows = slice(part * width, (part + 1) * width)
        weight = self.in_proj_weight[rows] if self.in_proj_weight is not None else self._separate()[part]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return functional.linear(x, weight, bias).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _for_all(self, bias: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A key or value that is learned, (1, 1, heads * head_dim), for each of the batch: (batch, heads, 1, head_dim)."""
        return bias.view(1, 1, self.num_heads, self.head_dim).transpose(1, 2).expand(len(like), -1, -1, -1)

    def _separate(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight


def _mask(attn_mask: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor) -> torch.Tensor | None:
    """One additive mask, broadcastable to (batch, heads, places, places); True in a boolean mask shuts a place out."""

    def additive(mask: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf")) if mask.dtype == torch.bool else mask

    found = None
    if attn_mask is not None:
        found = additive(attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (len(q), -1)))
    if padding is not None:
        shut = additive(padding)[:, None, None, :]
        found = shut if found is None else found + shut
    return found


def slim(module: nn.MultiheadAttention) -> None:
    """Bring an attention layer's class and sizes in line with its weights, in place."""
    packed = module.in_proj_weight is not None
    weight = module.in_proj_weight if packed else module.q_proj_weight
    rows, embedding = len(weight) // (3 if packed else 1), weight.shape[1]
    if rows == embedding == module.embed_dim == module.num_heads * module.head_dim:
        return
    if not isinstance(module, SlimMultiheadAttention):
        module.__class__ = SlimMultiheadAttention
        # The code that gives weights scales by the width before pruning; the fused kernel by the width that it meets.
        module.scale = module.head_dim**-0.5
    module.embed_dim, module.head_dim = embedding, rows // module.num_heads
    module.kdim = embedding if packed else module.k_proj_weight.shape[1]
    module.vdim = embedding if packed else module.v_proj_weight.shape[1]
    # Keeps transformer layers from their fused kernel, which takes the same things for granted.
    module._qkv_same_embed_dim = False
