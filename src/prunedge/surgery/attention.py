"""torch's multi-head attention after pruning: heads and embedding need not fit each other."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from prunedge.graph.sizes import uncounted


class SlimMultiheadAttention(nn.MultiheadAttention):
    """What surgery turns an `nn.MultiheadAttention` into.

    The same parameters, some of them smaller.

    torch's own code takes the width of all heads together to be that of the embedding. Here they
    are read off the weights: `in_proj_weight` has shape (3 * heads * head_dim, embedding),
    `out_proj.weight` (embedding, heads * head_dim).
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
            is_single = query.dim() == 2
            q = self._heads(query, 0)
            k = self._heads(key, 1)
            v = self._heads(value, 2)
            mask = _joined_mask(attn_mask, key_padding_mask, q)
            k, v, mask = self._with_extra_keys(k, v, mask)

            out, weights = self._attend(q, k, v, mask, need_weights)
            out = self.out_proj(out.transpose(1, 2).flatten(2))
            if weights is not None and average_attn_weights:
                weights = weights.mean(1)
            if is_single:
                return out.squeeze(0), None if weights is None else weights.squeeze(0)
            return out if self.batch_first else out.transpose(0, 1), weights

    def _heads(self, x: torch.Tensor, kind: int) -> torch.Tensor:
        """Project a query, key or value (`kind` 0, 1, 2): (batch, heads, length, head_dim)."""
        if x.dim() == 2:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)

        width = self.num_heads * self.head_dim
        rows = slice(kind * width, (kind + 1) * width)
        if self.in_proj_weight is not None:
            weight = self.in_proj_weight[rows]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[kind]
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        projected = functional.linear(x, weight, bias)
        return projected.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _with_extra_keys(
        self, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys and values with a learned pair (`add_bias_kv`) and a zero pair (`add_zero_attn`)."""
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat((k, self._for_all(self.bias_k, k)), 2)
            v = torch.cat((v, self._for_all(self.bias_v, v)), 2)
            mask = None if mask is None else functional.pad(mask, (0, 1))
        if self.add_zero_attn:
            k = functional.pad(k, (0, 0, 0, 1))
            v = functional.pad(v, (0, 0, 0, 1))
            mask = None if mask is None else functional.pad(mask, (0, 1))
        return k, v, mask

    def _for_all(self, bias: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A learned key or value, (1, 1, heads * head_dim), as (batch, heads, 1, head_dim)."""
        heads = bias.view(1, 1, self.num_heads, self.head_dim).transpose(1, 2)
        return heads.expand(len(like), -1, -1, -1)

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        need_weights: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The heads' outputs, and their weights where they are asked for."""
        if not need_weights:
            dropout = self.dropout if self.training else 0.0
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout
            )
            return out, None
        scores = q @ k.transpose(-2, -1) * self.scale
        if mask is not None:
            scores = scores + mask
        weights = scores.softmax(-1)
        out = functional.dropout(weights, self.dropout, self.training) @ v
        return out, weights


def _joined_mask(
    attn_mask: torch.Tensor | None, padding: torch.Tensor | None, q: torch.Tensor
) -> torch.Tensor | None:
    """Both masks as an additive one, broadcastable to (batch, heads, length, length)."""
    mask = None
    if attn_mask is not None:
        by_head = attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (len(q), -1))
        mask = _additive(by_head, q.dtype)
    if padding is not None:
        padded = _additive(padding, q.dtype)[:, None, None, :]
        mask = padded if mask is None else mask + padded
    return mask


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask as numbers to be added; True in a boolean mask excludes a position."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def slim_attention(model: nn.Module) -> None:
    """Bring the class and sizes of the model's attention layers in line with their weights."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            _slim(module)


def _slim(module: nn.MultiheadAttention) -> None:
    is_packed = module.in_proj_weight is not None
    weight = module.in_proj_weight if is_packed else module.q_proj_weight
    rows = len(weight) // (3 if is_packed else 1)
    embedding = weight.shape[1]
    if rows == embedding == module.embed_dim == module.num_heads * module.head_dim:
        return
    if not isinstance(module, SlimMultiheadAttention):
        module.__class__ = SlimMultiheadAttention
        # The code that gives weights scales by the width before pruning; the fused kernel by the
        # width that it meets.
        module.scale = module.head_dim**-0.5
    module.embed_dim = embedding
    module.head_dim = rows // module.num_heads
    module.kdim = embedding if is_packed else module.k_proj_weight.shape[1]
    module.vdim = embedding if is_packed else module.v_proj_weight.shape[1]
    # Keeps transformer layers from their fused kernel, which takes the same things for granted.
    module._qkv_same_embed_dim = False
