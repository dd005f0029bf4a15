"""Numbers of channels, blocks and groups that stand in code, or in torch's own layers: pinned, mended, or the channels stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.pruning.select import random_plan
from prunedge.surgery import adopt, operate, sizes_of
from prunedge.surgery.verify import Proof
from tests.graph.test_constructs import Between
from tests.graph.test_slices import IMAGE, chosen, conv, does, prune_twice_and_train
from tests.slow_cases import some_slow
from tests.small_models import randomise


def last(norm: Any) -> Any:
    return lambda s, x: norm(x.movedim(1, -1), (12,), s.w).movedim(-1, 1)


def spread(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(x[:, :, None].expand(len(x), 12, 2, *x.shape[2:]).reshape(len(x), 24, *x.shape[2:]))


def grouped_queries(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    q = s.q(tokens).view(n, -1, 4, 8).transpose(1, 2)
    k, v = (layer(tokens).view(n, -1, 2, 8).transpose(1, 2) for layer in (s.k, s.v))
    y = (
        F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        .transpose(1, 2)
        .reshape(n, h * w, 32)
    )
    return s.proj(y).transpose(1, 2).reshape(n, -1, h, w)


class Attended(nn.Module):
    """torch's own attention over patches."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 12, 2, stride=2), nn.Linear(12, 2)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))


class Translated(nn.Module):
    """torch's own transformer from patches to learned queries."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 12, 2, stride=2), nn.Linear(12, 2)
        self.transformer = nn.Transformer(12, 3, 1, 1, 16, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, 5, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(
            self.transformer(
                self.first(x).flatten(2).transpose(1, 2), self.queries.expand(len(x), -1, -1)
            )
        )


def vector() -> nn.Parameter:
    return nn.Parameter(torch.rand(12) + 0.5)


NUMBERS: dict[str, Any] = {
    "the module that shuffles": lambda: Between(nn.ChannelShuffle(3)),
    "a shuffle": lambda: Between(does(lambda s, x: F.channel_shuffle(x, 4))),
    "an expansion": lambda: Between(does(spread, a=conv(24, 12))),
    "a layer norm": lambda: Between(does(last(F.layer_norm), w=vector())),
    "an RMS norm": lambda: Between(does(last(F.rms_norm), w=vector())),
    "a group norm of few channels": lambda: Between(
        does(lambda s, x: F.group_norm(x, 6, s.w, s.b), w=vector(), b=vector())
    ),
    "a group norm of many": lambda: Between(
        does(lambda s, x: F.group_norm(x, 3, s.w, s.b), w=vector(), b=vector())
    ),
    "a depthwise filter": lambda: Between(
        does(
            lambda s, x: F.conv2d(x, s.w, groups=12, padding=1),
            w=nn.Parameter(torch.randn(12, 1, 3, 3)),
        )
    ),
    "queries in groups": lambda: Between(
        does(
            grouped_queries,
            q=nn.Linear(12, 32),
            k=nn.Linear(12, 16),
            v=nn.Linear(12, 16),
            proj=nn.Linear(32, 12),
        )
    ),
    "attention with a learned key": lambda: Attended(add_bias_kv=True),
    "attention with a key of zeros": lambda: Attended(add_zero_attn=True),
    "torch's transformer": Translated,
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_in_code_follow_the_channels(number: str, share: float, seed: int) -> None:
    torch.manual_seed(0)
    prune_twice_and_train(randomise(NUMBERS[number]()), share, seed)


class Turned(torch.autograd.Function):
    """The first half, with a backward that knows how many that are."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x[:, :6]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return F.pad(grads[0], (0, 0, 0, 0, 0, 6))


def halves_change_places(module: nn.Module, args: Any) -> Any:
    return (torch.cat([args[0][:, 6:], args[0][:, :6]], 1),)


def test_numbers_in_hooks_and_autograd_functions_keep_their_channels() -> None:
    hooked = Between(conv(12, 12))
    hooked.middle.register_forward_pre_hook(halves_change_places)
    for model, why in (
        (hooked, "in a hook"),
        (Between(does(lambda s, x: Turned.apply(x)), 6), "autograd function"),
    ):
        graph = trace(randomise(model), IMAGE)
        assert any(why in frozen.reason for frozen in graph.frozen), graph.frozen
        small = operate(model, graph, chosen(graph, 0.5, 0))
        assert small.refused == {}
        small.model.train()(IMAGE).square().mean().backward()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_answer_of_nested_tensors_is_compared() -> None:
    class Nests(nn.Module):
        def __init__(self, scaled: bool) -> None:
            super().__init__()
            self.first, self.head, self.scaled = conv(3, 12), conv(12, 2), scaled

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x))
            z = self.head(y / y.shape[1] if self.scaled else y)
            return torch.nested.nested_tensor([z[0], z[1, :, :3]])

    for scaled in (False, True):
        model = randomise(Nests(scaled))
        graph = trace(model, IMAGE)
        surgery = operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0)))
        assert list(surgery.refused) == (["first"] if scaled else [])


class Folded(nn.Module):
    """Heads by number, folded into the batch; and a head for training alone, whose batch is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.values, self.gates = conv(3, 12), conv(12, 12), conv(12, 4)
        self.last, self.extra = (
            conv(12, 2),
            nn.Sequential(nn.Conv2d(12, 6, 8), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)),
        )

    def forward(self, x: torch.Tensor) -> Any:
        x = self.first(x)
        n, _, h, w = x.shape
        values = self.values(x).reshape(n * 4, 3, h, w)
        gates = torch.sigmoid(self.gates(x)).reshape(n * 4, 1, h, w)
        y = self.last((values * gates).reshape(n, 12, h, w))
        return (y, self.extra(x)) if self.training else y


@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
def test_heads_that_are_folded_into_the_batch_of_one_or_two_can_be_removed(share: float) -> None:
    model = randomise(Folded())
    graph = trace(model, IMAGE[:1])
    assert "values" in {group.name for group in graph.groups}
    surgery = operate(model, graph, random_plan(graph, share, torch.Generator().manual_seed(0)))
    assert surgery.refused == {}
    assert [tuple(one.shape) for one in surgery.model.train()(IMAGE)] == [
        (2, 2, 8, 8),
        (2, 2, 1, 1),
    ]


class Ranks(nn.Module):
    """Answers with the places of the highest scores, which are so near to each other that rounding decides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.score = conv(3, 256), conv(256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(torch.relu(self.first(x))).flatten(1).topk(20).indices.to(x.dtype)


def test_an_answer_that_rounding_tears_is_compared_in_double_precision() -> None:
    model = randomise(Ranks())
    for example, is_torn in ((1 + 1e-6 * IMAGE, True), (IMAGE, False)):
        graph = trace(model, example)
        plan = random_plan(graph, 0.5, torch.Generator().manual_seed(0))
        assert Proof(model, graph).is_torn(plan) is is_torn
        assert operate(model, graph, plan).refused == {}


class Compares(nn.Module):
    """Attention whose code compares what came out with a number of heads that it keeps, and works a width out from another."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.qkv, self.proj = 3, nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            part.view(n, h * w, self.num_heads, c // self.num_heads).transpose(1, 2)
            for part in self.qkv(tokens).chunk(3, -1)
        )
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        if weights.shape != (n, self.num_heads, h * w, h * w):
            raise ValueError(f"there should be {self.num_heads} heads")
        return (
            self.proj((weights @ v).transpose(1, 2).reshape(n, h * w, -1))
            .transpose(1, 2)
            .reshape(n, -1, h, w)
        )


class Masked(nn.Module):
    """torch's attention with a mask for each of a fixed number of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mask = (
            (tokens.mean(-1, keepdim=True).detach().sigmoid() < 0.3)
            .transpose(1, 2)
            .repeat(1, 3, tokens.shape[1])
            .flatten()
        )
        mask = mask.view(-1, tokens.shape[1], tokens.shape[1]) & ~torch.eye(
            tokens.shape[1], dtype=torch.bool
        )
        return (
            self.attention(tokens, tokens, tokens, attn_mask=mask)[0]
            .transpose(1, 2)
            .reshape(x.shape)
        )


def test_a_number_of_heads_that_is_compared_is_mended_beside_the_pins() -> None:
    model = randomise(Between(Compares()))
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, Plan({"first": (0, 1, 3, 4, 6, 8, 11), "middle.qkv": (0, 2)}))
    assert surgery.refused == {}
    assert surgery.model.middle.num_heads == 2
    assert "middle()" in sizes_of(surgery.model)
    again = adopt(model, surgery.model.state_dict(), sizes_of(surgery.model)).eval()
    torch.testing.assert_close(again(IMAGE), surgery.model.eval()(IMAGE))


def test_heads_that_meet_a_mask_of_a_fixed_number_stay() -> None:
    model = randomise(Between(Masked()))
    graph = trace(model, IMAGE)
    assert any("fixed size" in frozen.reason for frozen in graph.frozen)
    assert (
        operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0))).refused
        == {}
    )
