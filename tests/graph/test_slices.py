"""Channels that code picks by numbers: slices, splits, lists of channels, and writes into them. Pieces are followed by themselves."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunedge.errors import GraphError
from prunedge.graph import trace
from prunedge.graph.channels import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import adopt, masked_outputs, operate, sizes_of
from tests.graph.test_constructs import Between, Does
from tests.slow_cases import some_slow
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def conv(ins: int, outs: int) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 1)


def into_slice(s: Any, x: torch.Tensor) -> torch.Tensor:
    h = s.a(x)
    h[:, :4] = s.b(x)
    return h


def added_into_slices(s: Any, x: torch.Tensor) -> torch.Tensor:
    h = s.a(x).clone()
    h[:, s.n :] += s.b(x)
    h[:, : s.n].mul_(0.5)
    return h


def into_zeros(s: Any, x: torch.Tensor) -> torch.Tensor:
    out = x.new_zeros(len(x), 12, *x.shape[2:])
    out[:, :5] = s.a(x)
    out[:, 5:] = s.b(x)
    return out


def every_other_in_place(s: Any, x: torch.Tensor) -> torch.Tensor:
    h = s.a(x).clone()
    view = h[:, ::2]
    view.mul_(3)
    return h


def shifted(s: Any, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[:, :4, :, 1:] = x[:, :4, :, :-1]
    out[:, 4:8, 1:] = x[:, 4:8, :-1]
    out[:, 8:] = x[:, 8:]
    return out


def dense(s: Any, x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(len(x), 16, *x.shape[2:])
    out[:, :6] = s.a(x)
    out[:, 6:11] = s.b(out[:, :6].clone())
    out[:, 11:] = s.c(out[:, :11].clone())
    return out


def mixers(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([layer(x[:, 4 * i : 4 * i + 4]) for i, layer in enumerate(s.layers)], 1)


def in_a_sequence(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x.flatten(2).transpose(1, 2))
    y = torch.cat([y[..., :5] * torch.sigmoid(y[..., 5:10]), y[..., 10:]], -1)
    return y.transpose(1, 2).unflatten(2, x.shape[2:])


def listed(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([s.a(x[:, [0, 2, 5, 7]]), s.b(x[:, [1, 3, 4, 6, 8, 9, 10, 11]])], 1)


def put(s: Any, x: torch.Tensor) -> torch.Tensor:
    h = x.clone()
    h[:, [1, 4, 7]] = s.a(x)
    return h


def added_by_index(s: Any, x: torch.Tensor) -> torch.Tensor:
    return x.index_add(1, s.numbers, s.a(x))


def by_mask(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([s.a(x[:, s.mask]), x[:, ~s.mask]], 1)


def sliced_weight(s: Any, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, s.a.weight[:7], s.a.bias[:7])


def by_heads(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    y = x.flatten(2).transpose(1, 2)
    qkv = s.qkv(y)
    q, k, v = qkv[:, :, :16], qkv[:, :, 16:32], qkv[:, :, 32:]
    q, k, v = (one.view(n, h * w, 4, 4).transpose(1, 2) for one in (q, k, v))
    near = F.scaled_dot_product_attention(q[:, :2], k[:, :2], v[:, :2])
    far = F.scaled_dot_product_attention(q[:, 2:], k[:, 2:], v[:, 2:])
    y = torch.cat([near, far], 1).transpose(1, 2).reshape(n, h * w, -1)
    return s.proj(y).transpose(1, 2).reshape(n, -1, h, w)


class First(nn.Module):
    """The first channels of whatever comes in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


class PickedTwice(nn.Module):
    """One module that picks from tensors of two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.pick, self.a, self.b, self.c, self.d = (
            First(),
            conv(12, 8),
            conv(12, 10),
            conv(3, 12),
            conv(3, 12),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(x)
        return torch.cat([self.c(self.pick(a)) + self.d(self.pick(b)), a, b], 1)


def gathered(s: Any, x: torch.Tensor) -> torch.Tensor:
    index = s.numbers.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])
    return s.a(x.gather(1, index))


def does(function: Callable[..., torch.Tensor], **layers: Any) -> Does:
    return Does(function, **layers)


NUMBERS = torch.tensor([3, 1, 8, 10])
MASK = torch.arange(12) % 3 == 0

SLICES: dict[str, nn.Module] = {
    "the first four": Between(does(lambda s, x: s.a(x[:, :4]), a=conv(4, 12))),
    "the others": Between(does(lambda s, x: s.a(x[:, 4:]), a=conv(8, 12))),
    "both, each convolved": Between(
        does(lambda s, x: torch.cat([s.a(x[:, :4]), s.b(x[:, 4:])], 1), a=conv(4, 6), b=conv(8, 6))
    ),
    "both, turned round": Between(does(lambda s, x: torch.cat([x[:, 4:], x[:, :4]], 1))),
    "the last": Between(does(lambda s, x: torch.cat([s.a(x[:, -5:]), x[:, :-5]], 1), a=conv(5, 5))),
    "some of the middle": Between(
        does(lambda s, x: torch.cat([x, s.a(x[:, 3:9])], 1), a=conv(6, 4)), 16
    ),
    "a pooled part": Between(
        does(
            lambda s, x: torch.cat(
                [F.max_pool2d(x[:, :2], 3, 1, 1), F.avg_pool2d(x[:, 2:], 3, 1, 1)], 1
            )
        )
    ),
    "every other": Between(
        does(lambda s, x: s.a(x[:, ::2]) + s.b(x[:, 1::2]), a=conv(6, 12), b=conv(6, 12))
    ),
    "every third": Between(
        does(lambda s, x: torch.cat([s.a(x[:, 1::3]), x], 1), a=conv(4, 12)), 24
    ),
    "narrow": Between(
        does(
            lambda s, x: torch.cat([torch.narrow(x, 1, 0, 5), s.a(x.narrow(1, 5, 7))], 1),
            a=conv(7, 7),
        )
    ),
    "narrow by keywords": Between(
        does(lambda s, x: s.a(torch.narrow(x, dim=1, start=2, length=7)), a=conv(7, 12))
    ),
    "all of it by number": Between(
        does(lambda s, x: torch.narrow(s.a(x), 1, 0, 12), a=conv(12, 12))
    ),
    "split into sizes": Between(
        does(lambda s, x: torch.cat([torch.relu(part) for part in x.split([4, 8], 1)], 1))
    ),
    "split, one convolved": Between(
        does(
            lambda s, x: (lambda a, b: torch.cat([s.a(a), b], 1))(*x.split([4, 8], 1)), a=conv(4, 4)
        )
    ),
    "split by an attribute": Between(
        does(
            lambda s, x: (lambda a, b, c: torch.cat([a, s.a(b), c], 1))(*torch.split(x, s.part, 1)),
            part=4,
            a=conv(4, 4),
        )
    ),
    "halves": Between(
        does(lambda s, x: (lambda a, b: torch.cat([a, s.a(b)], 1))(*x.chunk(2, 1)), a=conv(6, 6))
    ),
    "tensor_split": Between(
        does(
            lambda s, x: (lambda a, b, c: torch.cat([a, s.a(b), c], 1))(*x.tensor_split((3, 8), 1)),
            a=conv(5, 5),
        )
    ),
    "tensor_split into three": Between(does(lambda s, x: sum(x.tensor_split(3, dim=1))), 4),
    "hsplit": Between(
        does(
            lambda s, x: (lambda a, b: torch.cat([s.a(a), b], 1))(*torch.hsplit(x, [5])),
            a=conv(5, 5),
        )
    ),
    "rolled": Between(does(lambda s, x: x + torch.roll(x, 2, 1))),
    "index_select": Between(
        does(lambda s, x: s.a(x.index_select(1, s.numbers)), a=conv(4, 12), numbers=NUMBERS)
    ),
    "numbers that are made": Between(
        does(
            lambda s, x: s.a(torch.index_select(x, 1, torch.arange(11, 4, -1, device=x.device))),
            a=conv(7, 12),
        )
    ),
    "lists": Between(does(listed, a=conv(4, 6), b=conv(8, 6))),
    "turned round": Between(
        does(lambda s, x: x[:, torch.arange(11, -1, -1)] + s.a(x), a=conv(12, 12))
    ),
    "a mask of channels": Between(does(by_mask, a=conv(4, 4), mask=MASK)),
    "written into a slice": Between(does(into_slice, a=conv(12, 12), b=conv(12, 4))),
    "added into slices": Between(does(added_into_slices, n=7, a=conv(12, 12), b=conv(12, 5))),
    "written into zeros": Between(does(into_zeros, a=conv(12, 5), b=conv(12, 7))),
    "written into a list of channels": Between(does(put, a=conv(12, 3))),
    "added by number": Between(does(added_by_index, a=conv(12, 4), numbers=NUMBERS)),
    "every other, in place": Between(does(every_other_in_place, a=conv(12, 12))),
    "shifted by quarters": Between(does(shifted)),
    "a dense block in one tensor": Between(
        does(dense, a=conv(12, 6), b=conv(6, 5), c=conv(11, 5)), 16
    ),
    "parts for each layer": Between(
        does(mixers, layers=nn.ModuleList(conv(4, 3) for _ in range(3))), 9
    ),
    "parts of the last dimension": Between(does(in_a_sequence, a=nn.Linear(12, 18)), 13),
    "a part of a weight": Between(does(sliced_weight, a=conv(12, 12)), 7),
    "some of the heads": Between(does(by_heads, qkv=nn.Linear(12, 48), proj=nn.Linear(16, 12))),
    "a part of a part": Between(
        does(lambda s, x: torch.cat([s.a(x[:, 2:][:, :6]), x[:, 8:]], 1), a=conv(6, 4)), 8
    ),
    "with places": Between(
        does(
            lambda s, x: s.a(x[:, :5, 1:, ::2]) + s.b(x[..., 1:, ::2]),
            a=conv(5, 12),
            b=conv(12, 12),
        )
    ),
    "one layer for two widths": Between(PickedTwice(), 30),
    "gathered by fixed numbers": Between(does(gathered, a=conv(4, 12), numbers=NUMBERS)),
    "slice_scatter": Between(
        does(lambda s, x: torch.slice_scatter(x, s.a(x[:, 2:]), 1, 3, 7), a=conv(10, 4))
    ),
    "cut off by a pad": Between(
        does(lambda s, x: s.a(F.pad(x, (0, 0, 0, 0, -2, -3))), a=conv(7, 12))
    ),
    "cut off and widened by a pad": Between(
        does(lambda s, x: s.a(F.pad(x, (1, 1, 0, 0, -2, 3))), a=conv(13, 12))
    ),
    "a bound that follows the width": Between(
        does(lambda s, x: s.a(x[:, : x.shape[1] // 3]), a=conv(4, 12))
    ),
}


def chosen(graph: ChannelGraph, share: float, seed: int) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    scores = {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
        for group in graph.groups
    }
    return choose(
        graph, Scores(scores, "random"), share, constraints=PlanConstraints(max_ratio=0.9)
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
@pytest.mark.parametrize("construct", SLICES)
def test_channels_that_are_picked_by_numbers_can_be_removed(
    construct: str, share: float, seed: int
) -> None:
    prune_twice_and_train(randomise(SLICES[construct]), share, seed)


def prune_twice_and_train(model: nn.Module, share: float, seed: int, prunable: float = 0.5) -> None:
    """Everything that a user does with a pruned model; no plan may be refused."""
    graph = trace(model, IMAGE)
    assert graph.prunable_share() > prunable, graph.frozen
    plan = chosen(graph, share, seed)
    surgery = operate(model, graph, plan)
    assert surgery.refused == {}
    assert surgery.plan.removes(graph) > 0
    small = surgery.model.eval()
    if seed:
        return
    (wanted,) = masked_outputs(model, graph, plan, example=OTHER)
    torch.testing.assert_close(small(OTHER), wanted, rtol=1e-4, atol=1e-5)

    rebuilt = adopt(model, small.state_dict(), sizes_of(small))
    torch.testing.assert_close(rebuilt.eval()(IMAGE), small(IMAGE))

    graph = trace(small, IMAGE)
    again = operate(small, graph, chosen(graph, 0.3, seed))
    assert again.refused == {}
    again.model.train()
    again.model(IMAGE).square().mean().backward()


def test_a_model_that_picks_by_numbers_is_pickled_with_what_it_picks() -> None:
    model = randomise(Between(PickedTwice(), 30))
    graph = trace(model, IMAGE)
    picked = next(
        group.name for group in graph.groups if group.size == 3 and group.name == "middle.a"
    )
    small = operate(model, graph, Plan({picked: (0, 2)})).model.eval()
    assert list(sizes_of(small)) == ["middle.pick()"]
    torch.testing.assert_close(pickle.loads(pickle.dumps(small))(IMAGE), small(IMAGE))


FROZEN: dict[str, tuple[nn.Module, str]] = {
    "a random order": (Between(does(lambda s, x: x[:, torch.randperm(12)])), "on chance"),
    "the strongest": (
        Between(
            does(
                lambda s, x: s.a(x[:, s.b(x).mean((0, 2, 3)).topk(2).indices]),
                a=conv(2, 12),
                b=conv(12, 3),
            )
        ),
        "on the input",
    ),
    "one": (Between(does(lambda s, x: x * torch.sigmoid(x[:, 3]).unsqueeze(1))), "by its number"),
    "of each example": (
        Between(does(lambda s, x: torch.vmap(lambda y: y[:6].repeat(2, 1, 1))(x))),
        "inside of a vmap",
    ),
    "each by itself": (Between(does(lambda s, x: torch.stack(x.unbind(1), 1))), "by its number"),
    "tables": (
        Between(does(lambda s, x: x[:, torch.tensor([[0, 1], [2, 3]])].flatten(1, 2)), 4),
        "can't be followed",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_can_not_be_picked_anew_stays_with_the_reason(name: str) -> None:
    model, why = FROZEN[name]
    torch.manual_seed(0)
    graph = trace(randomise(model), IMAGE)
    assert any(why in frozen.reason for frozen in graph.frozen), graph.frozen
    assert operate(model, graph, chosen(graph, 0.5, 0)).refused == {}


class Changing(nn.Module):
    """Picks other channels when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.some, self.all, self.start = conv(3, 12), conv(4, 2), conv(12, 2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.some(y[:, self.start : self.start + 4]) + self.all(y)


def test_a_pruned_layer_that_picks_by_other_numbers_than_before_says_so() -> None:
    model = randomise(Changing())
    graph = trace(model, IMAGE)
    small = operate(model, graph, Plan({"first": (1, 3), "first#2": (0, 2, 5)})).model.eval()
    small(IMAGE)
    small.start = 1
    with pytest.raises(GraphError, match="picked channels by the numbers"):
        small(IMAGE)
