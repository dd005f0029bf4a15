"""Attention that torch has no fused kernel for falls apart into products and a scale: it is followed like any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunedge.graph import trace
from prunedge.pruning.select import random_plan
from prunedge.surgery import masked_outputs, operate

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
WIDTH = 12


def strided(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One head whose channels lie outermost in memory."""
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).squeeze(1)


def flat(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Three dimensions, no heads."""
    return F.scaled_dot_product_attention(q, k, v)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    mask = torch.eye(q.shape[1], dtype=torch.bool) | (torch.arange(q.shape[1]) < 3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def scaled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=0.5)


class Attention(nn.Module):
    """Queries, keys and values from one layer, over the places of an image."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.qkv = nn.Linear(8, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        # Large products: a scale that is a little off shows.
        y = self.attend(4 * q, 4 * k, v)
        return self.out(y).mean(1)


@pytest.mark.parametrize("attend", [strided, flat, causal, masked, scaled])
def test_the_scale_is_that_of_the_channels_that_stay(attend: Attend) -> None:
    torch.manual_seed(0)
    model = Attention(attend).eval()
    example = torch.randn(2, 3, 6, 6)
    graph = trace(model, example)
    assert {group.size for group in graph.groups} == {8, WIDTH}
    for seed in range(2):
        plan = random_plan(graph, 0.5, torch.Generator().manual_seed(seed))
        surgery = operate(model, graph, plan)
        assert not surgery.refused
        small = surgery.model.double()
        with torch.no_grad():
            found = small(example.double())
        wanted = masked_outputs(model, graph, plan, dtype=torch.float64)[0]
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
