"""Random models from every construct, pruned at random: each must equal its masked original."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from prunedge.graph import derive, trace
from prunedge.pruning.select import random_plan
from prunedge.surgery import TOLERANCE, operate
from tests.graph.test_constructs import (
    Attention,
    channel_attention,
    rms,
    shuffle,
    spatial_attention,
    squeeze_excite,
)
from tests.graph.test_derive import assert_same
from tests.small_models import randomise

EXAMPLE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
ACTIVATIONS = (torch.relu, F.silu, torch.sigmoid, F.hardswish, F.gelu)


class Random(nn.Module):
    """A chain of random layers over maps of 4x4, which also sums, concatenates and reuses what came before."""

    def __init__(self, seed: int, length: int) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.steps: list[
            tuple[str, int, int]
        ] = []  # (construct, number of its layers, where it looks back)
        self.layers = nn.ModuleList([nn.Conv2d(3, 12, 3, padding=1)])
        widths = [12]
        for _ in range(length):
            kind, back = self.draw.choice(KINDS), self.draw.randrange(len(widths))
            first = len(self.layers)
            width = self.add(kind, widths, back)
            if width is not None:
                self.steps.append((kind, first, back))
                widths.append(width)
        self.flat = self.draw.random() < 0.3
        self.head = nn.Linear(widths[-1] * (16 if self.flat else 1), 2)

    def add(self, kind: str, widths: list[int], back: int) -> int | None:
        """Make the layers of a construct; gives its number of channels, or None where it doesn't fit."""
        width, new, add = widths[-1], self.draw.choice((6, 8, 12, 16)), self.layers.append
        if kind == "conv":
            groups = self.draw.choice([g for g in (1, 1, 2, 4) if width % g == 0 and new % g == 0])
            add(nn.Conv2d(width, new, self.draw.choice((1, 3)), padding="same", groups=groups))
            return new
        if kind == "depthwise":
            add(nn.Conv2d(width, width, 3, padding=1, groups=width))
        elif kind == "transposed":
            add(nn.ConvTranspose2d(width, new, 3, padding=1))
            return new
        elif kind == "norm":
            groups = self.draw.choice([g for g in (1, 2, 4, width) if width % g == 0])
            make = (
                lambda: nn.BatchNorm2d(width),
                lambda: nn.GroupNorm(groups, width),
                lambda: nn.InstanceNorm2d(width, affine=True),
            )
            add(self.draw.choice(make)())
        elif kind == "layer norm":
            add(nn.LayerNorm(width))
        elif kind == "rms":
            add(Holder(scale=nn.Parameter(torch.ones(width, 1, 1))))
        elif kind == "sum":
            add(nn.Conv2d(widths[back], width, 1))
        elif kind == "identity sum":
            return width if widths[back] == width else None
        elif kind == "concatenation":
            return width + widths[back] if width + widths[back] <= 48 else None
        elif kind == "halves":
            if width % 2:
                return None
            add(nn.Conv2d(width // 2, width // 2, 1))
        elif kind == "gate":
            return width // 2 if width % 2 == 0 and width > 8 else None
        elif kind == "shuffle":
            return width if width % 2 == 0 else None
        elif kind == "squeeze":
            add(Holder(down=nn.Conv2d(width, 4, 1), up=nn.Conv2d(4, width, 1)))
        elif kind == "slide":
            add(Holder(slide=nn.Conv1d(1, 1, 3, padding=1, bias=False)))
        elif kind == "spatial":
            add(Holder(look=nn.Conv2d(2, 1, 3, padding=1)))
        elif kind == "attention":
            if width != 12:
                return None
            add(Attention(self.draw.random() < 0.5))
        elif kind == "pixels":
            return width // 4 if width % 4 == 0 and width >= 16 else None
        elif kind == "shared":
            add(nn.Conv2d(width, width, 3, padding=1))
        return width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.layers[0](x)]
        for kind, first, back in self.steps:
            seen.append(
                self.run(
                    kind,
                    self.layers[first] if first < len(self.layers) else None,
                    seen[-1],
                    seen[back],
                )
            )
        x = seen[-1]
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))

    @staticmethod
    def run(kind: str, layer: nn.Module | None, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One construct."""
        if kind in ACTIVATE:
            return ACTIVATE[kind](x)
        if kind in USES:
            return USES[kind](layer, x)
        if kind in ("identity sum", "sum"):
            return x + (y if kind == "identity sum" else layer(y))
        if kind == "concatenation":
            return torch.cat([x, y], 1)
        if kind == "halves":
            left, right = x.chunk(2, 1)
            return torch.cat([layer(left), right], 1)
        if kind == "pixels":
            return F.avg_pool2d(F.pixel_shuffle(x, 2), 2)
        return layer(torch.relu(layer(x))) if kind == "shared" else layer(x)


class Holder(nn.Module):
    """Layers and parameters by name."""

    def __init__(self, **held: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, one in held.items():
            setattr(self, name, one)


ACTIVATE = {f.__name__: f for f in ACTIVATIONS} | {
    "gate": lambda x: F.glu(x, 1),
    "shuffle": lambda x: shuffle(2)(None, x),
}
USES = {
    "layer norm": lambda layer, x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "rms": rms,
    "squeeze": squeeze_excite,
    "slide": channel_attention,
    "spatial": spatial_attention,
}
KINDS = (
    "conv",
    "conv",
    "conv",
    "depthwise",
    "transposed",
    "norm",
    "layer norm",
    "rms",
    "sum",
    "identity sum",
    "concatenation",
    "halves",
    "gate",
    "shuffle",
    "squeeze",
    "slide",
    "spatial",
    "attention",
    "pixels",
    "shared",
    *(f.__name__ for f in ACTIVATIONS),
)


def check(seed: int, length: int, share: float) -> None:
    torch.manual_seed(seed)
    model = randomise(Random(seed, length), seed)
    graph = trace(model, EXAMPLE)
    plan = random_plan(graph, share, torch.Generator().manual_seed(seed))
    surgery = operate(model, graph, plan)
    assert surgery.difference <= TOLERANCE
    if surgery.refused:
        # The number of blocks that a shuffle makes is a literal in its code: where other layers tie whole blocks, they have to stay.
        assert any(kind == "shuffle" for kind, _, _ in model.steps), (
            seed,
            length,
            model.steps,
            surgery.refused,
        )
    assert sum(p.numel() for p in surgery.model.parameters()) == graph.params(surgery.plan)
    traced = trace(surgery.model, EXAMPLE)
    assert traced.macs() == graph.macs(surgery.plan)
    if graph.regular:
        assert_same(derive(graph, surgery.plan, surgery.model), traced)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.1, 0.9))
def test_a_random_model_equals_its_masked_original(seed: int, length: int, share: float) -> None:
    check(seed, length, share)


@pytest.mark.slow
def test_a_thousand_random_models() -> None:
    draw = random.Random(0)
    for seed in range(1000):
        check(seed, draw.randrange(1, 16), draw.uniform(0.1, 0.9))
