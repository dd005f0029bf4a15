"""What code demands of sizes is in the graph: whatever `choose` makes of any scores can be carried out, and is proven."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunedge.graph import trace
from prunedge.importance import Scores
from prunedge.models import cost
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import operate
from tests.graph.test_constructs import Between, Does
from tests.small_models import randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Chunks(nn.Module):
    """The scales of EdgeNeXt and Res2Net: chunks, each convolved with the one before added; the last may be smaller."""

    def __init__(self, width: int, scales: int) -> None:
        super().__init__()
        part = -(-width // scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(scales - 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.chunk(len(self.convs) + 1, 1)
        out = []
        before = parts[0]
        for place, conv in enumerate(self.convs):
            before = conv(before if place == 0 else before + parts[place])
            out.append(before)
        return torch.cat([*out, parts[-1]], 1)


class Widening(nn.Module):
    """ReXNet: the first channels get the shortcut, the others are new."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.in_channels, self.conv = ins, nn.Conv2d(ins, outs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.cat([y[:, : self.in_channels] + x, y[:, self.in_channels :]], 1)


class Dual(nn.Module):
    """DPN: a residual part and a dense part, cut at a number that the layer keeps."""

    def __init__(self, width: int, residual: int) -> None:
        super().__init__()
        self.num_1x1_c = residual
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        left, right = y[:, : self.num_1x1_c], y[:, self.num_1x1_c :]
        return torch.cat([x[:, : self.num_1x1_c] + left, right], 1)


class Partial(nn.Module):
    """FasterNet: some channels are convolved, the rest is passed on; the code of the forward is chosen when it is made."""

    def __init__(self, width: int, convolved: int) -> None:
        super().__init__()
        self.dim_conv, self.dim_rest = convolved, width - convolved
        self.conv = nn.Conv2d(convolved, convolved, 3, padding=1)
        self.forward = self.split_and_join  # type: ignore[method-assign]

    def split_and_join(self, x: torch.Tensor) -> torch.Tensor:
        one, two = torch.split(x, [self.dim_conv, self.dim_rest], 1)
        return torch.cat([self.conv(one), two], 1)


class Blur(nn.Module):
    """A filter that the layer makes itself, for a number of channels that it keeps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("filt", torch.ones(channels, 1, 3, 3) / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.filt, groups=self.channels, padding=1)


class Checked(nn.Module):
    """Compares the width of its input with a number that it keeps, as layers of transformers do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_channels, self.projection = channels, nn.Conv2d(channels, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != self.num_channels:
            raise ValueError("make sure that the channels match")
        return self.projection(x)


def ghost(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first = self.primary(x)
    return torch.cat([first, self.cheap(first)], 1)[:, : self.out_chs]


def shuffle_unit(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    y = torch.cat([a, self.conv(b)], 1)
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def maxout(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, c // 2, 2, h, w).amax(2)


def split_attention(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = self.conv(x)
    n, c, h, w = y.shape
    y = y.reshape(n, 2, c // 2, h, w)
    weights = self.gate(y.sum(1).mean((2, 3), keepdim=True)).view(n, 2, c // 2, 1, 1).softmax(1)
    return (y * weights).sum(1)


DEMANDS: dict[str, nn.Module] = {
    "chunks that divide evenly": Between(Chunks(12, 3)),
    "chunks that don't": Between(Chunks(11, 3), 11, 11),
    "four chunks that don't": Between(Chunks(14, 4), 14, 14),
    "a shortcut to the first channels": Between(Widening(8, 13), 13, 8),
    "a residual and a dense part": Between(Dual(12, 7)),
    "a part that is convolved": Between(Partial(12, 5)),
    "a filter of its own": Between(Blur(12)),
    "a checked width": Between(Checked(12), 8),
    "ghosts": Between(
        Does(
            ghost,
            out_chs=12,
            primary=nn.Conv2d(12, 7, 1),
            cheap=nn.Conv2d(7, 7, 3, padding=1, groups=7),
        )
    ),
    "shuffled halves": Between(Does(shuffle_unit, conv=nn.Conv2d(6, 6, 1))),
    "maxout": Between(Does(maxout), 6),
    "split attention": Between(
        Does(split_attention, conv=nn.Conv2d(12, 16, 1), gate=nn.Conv2d(8, 16, 1)), 8
    ),
    "group norm": Between(nn.GroupNorm(3, 12)),
    "pixel shuffle": Between(nn.PixelShuffle(2), 3),
    "gated halves": Between(
        Does(lambda s, x: torch.mul(*s.conv(x).chunk(2, 1)), conv=nn.Conv2d(12, 20, 1)), 10
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("demand", DEMANDS)
def test_whatever_is_chosen_can_be_carried_out(demand: str, seed: int) -> None:
    model = randomise(DEMANDS[demand])
    graph = trace(model, IMAGE)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
        for group in graph.groups
    }
    plan = choose(graph, Scores(scores, "random"), 0.3, constraints=PlanConstraints(max_ratio=0.7))
    surgery = operate(model, graph, plan)
    assert surgery.refused == {}
    assert surgery.plan.removes(graph) > 0
    found = cost(surgery.model, IMAGE)
    assert (found.macs, found.params) == (graph.macs(plan), graph.params(plan))


@pytest.mark.parametrize("middle", [Chunks(11, 3), Widening(11, 13), Partial(11, 5)])
def test_what_is_chosen_twice_can_be_carried_out_twice(middle: nn.Module) -> None:
    made = 13 if isinstance(middle, Widening) else 11
    model: nn.Module = randomise(Between(middle, made, 11))
    for seed in range(2):
        graph = trace(model, IMAGE)
        generator = torch.Generator().manual_seed(seed)
        scores = {
            group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
            for group in graph.groups
        }
        surgery = operate(model, graph, choose(graph, Scores(scores, "random"), 0.2))
        assert surgery.refused == {}
        model = surgery.model.eval()


class OneHead(nn.Module):
    """Attention with a single head, whose scale follows from its width."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(12, 8), nn.Linear(12, 16), nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        q = self.q(x).reshape(n, h * w, 1, -1).transpose(1, 2)
        k, v = self.kv(x).reshape(n, h * w, 2, 1, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(3 * q, k, v)
        return (
            self.proj(y.transpose(1, 2).reshape(n, h * w, -1)).transpose(1, 2).reshape(n, -1, h, w)
        )


@pytest.mark.parametrize("seed", range(3))
def test_the_width_of_a_single_head_can_leave(seed: int) -> None:
    model = randomise(Between(OneHead()))
    graph = trace(model, IMAGE)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
        for group in graph.groups
    }
    surgery = operate(model, graph, choose(graph, Scores(scores, "random"), 0.3))
    assert surgery.refused == {}
    assert "middle.q" in surgery.plan.keep


class Scrambled(nn.Module):
    """Places by channels, read as channels by places: which channels meet depends on the size of the image (smp's MAnet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side, self.last, self.head = (
            nn.Conv2d(i, o, 1) for i, o in ((3, 8), (8, 8), (8, 6), (6, 2))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        side = self.side(x).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.last(x + side.reshape(x.shape)))).mean((2, 3))


def test_a_reshape_that_depends_on_the_size_of_the_image_is_frozen() -> None:
    found = trace(randomise(Scrambled()), torch.randn(1, 3, 2, 2))
    assert {group.name for group in found.groups} == {"last"}
    assert any("size of the image" in frozen.reason for frozen in found.frozen)
