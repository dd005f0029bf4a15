"""A pruned model is as good to prune as any: round after round, down to one head, one group, one channel of a width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from prunedge.graph import ChannelGraph, trace
from prunedge.graph.masking import masking
from prunedge.graph.plan import Plan
from prunedge.pruning.select import random_plan
from prunedge.surgery import adopt, operate, sizes_of
from prunedge.surgery.slicing import leaving_slices
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Heads(nn.Module):
    """Attention over places whose heads and widths stand in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 2, 8
        self.stem, self.qkv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 48, 1)
        self.project, self.head = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, self.heads, 3 * self.width, h * w).split([self.width] * 3, 2)
        y = v @ (q.transpose(-2, -1) @ k).softmax(-1).transpose(-2, -1)
        return self.head(self.project(y.reshape(b, c, h, w)).mean((2, 3), keepdim=True))


class Divided(nn.Module):
    """Heads divided as ViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv, self.proj, self.head = (
            nn.Conv2d(3, 12, 2, stride=2),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.Linear(12, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 3, c // 3).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return self.head(self.proj(y.transpose(1, 2).reshape(b, n, c)).mean(1))


class Shuffled(nn.Module):
    """Groups that exchange their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.Linear(8, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, 4, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(torch.relu(self.b(x)).mean((2, 3)))


class Chunks(nn.Module):
    """Chunks of a width that is written down, the middle one filtered."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(12, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, middle, right = torch.split(self.a(x), [4, 4, 4], 1)
        return self.head(torch.relu(torch.cat((left, self.b(middle), right), 1)).mean((2, 3)))


class Tokens(nn.Module):
    """A class token and tokens of a width that is written down in several places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.out, self.head = (
            nn.Conv2d(3, 8, 4, stride=4),
            nn.Linear(8, 6),
            nn.Linear(6, 8),
            nn.Linear(8, 2),
        )
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = len(x)
        x = torch.cat(
            (self.token.expand(b, -1, -1), self.first(x).view(b, 8, -1).transpose(1, 2)), 1
        )
        x = x + self.out(torch.relu(self.inner(x).view(b, -1, 3, 2)).reshape(b, -1, 6))
        return self.head(x[:, 0])


def masked(model: nn.Module, graph: ChannelGraph, plan: Plan, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), masking(leaving_slices(model, graph, plan)):
        return model.eval()(image)


def halves(graph: ChannelGraph) -> Plan:
    """The first half of each group that has more than one channel."""
    return Plan(
        {
            group.name: tuple(range(max(1, group.size // 2)))
            for group in graph.groups
            if group.size > 1
        }
    )


def ones(graph: ChannelGraph) -> Plan:
    return Plan({group.name: (group.size - 1,) for group in graph.groups})


def narrow_first(graph: ChannelGraph) -> Plan:
    """All but one channel of the smallest group."""
    least = min(graph.groups, key=lambda group: group.size)
    return Plan({least.name: (0,)})


@pytest.mark.parametrize("attention", ["heads", "width"])
@pytest.mark.parametrize("choose", [halves, ones, narrow_first])
@pytest.mark.parametrize("kind", [Heads, Divided, Shuffled, Chunks, Tokens])
def test_three_rounds_each_equal_the_masked_model(
    kind: type[nn.Module], choose: Callable[[ChannelGraph], Plan], attention: str
) -> None:
    torch.manual_seed(0)
    model = randomise(kind())
    for number in range(3):
        graph = trace(model, IMAGE, attention=attention)
        if not graph.groups:
            assert number
            break
        surgery = operate(model, graph, choose(graph))
        assert surgery.refused == {}
        torch.testing.assert_close(
            surgery.model.eval()(IMAGE),
            masked(model, graph, surgery.plan, IMAGE),
            rtol=1e-4,
            atol=1e-5,
        )
        model = surgery.model
        model.train()(IMAGE).sum().backward()
        model.zero_grad()
        assert model.eval()(IMAGE[:1]).shape[0] == 1
    again = adopt(kind(), model.state_dict(), sizes_of(model)).eval()
    assert torch.equal(again(IMAGE), model(IMAGE))


@pytest.mark.parametrize("kind", [Heads, Divided, Shuffled, Chunks, Tokens])
def test_two_rounds_come_to_the_same_as_one(kind: type[nn.Module]) -> None:
    model = randomise(kind())
    graph = trace(model, IMAGE)
    first = random_plan(graph, 0.4, torch.Generator().manual_seed(1), least=2)
    checkpoint = operate(model, graph, first).model
    again = trace(checkpoint, IMAGE)
    second = random_plan(again, 0.4, torch.Generator().manual_seed(2))
    twice = operate(checkpoint, again, second)
    assert twice.refused == {}
    if {(one.name, one.size) for one in again.groups} == {
        (one.name, len(first.keep.get(one.name, range(one.size)))) for one in graph.groups
    }:
        once = operate(model, graph, first.then(second)).model.eval()
        torch.testing.assert_close(twice.model.eval()(IMAGE), once(IMAGE))
