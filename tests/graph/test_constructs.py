"""Every construct that the channel graph must understand, one small model each: prunable, and equal to its masked original."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from prunedge.graph import call, trace
from prunedge.graph.plan import Plan
from prunedge.models import cost
from prunedge.pruning.select import random_plan
from prunedge.surgery import adopt, operate, sizes_of
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A convolution, the construct, a convolution and a head."""

    def __init__(self, middle: nn.Module, made: int = 12, width: int = 12) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, width, 3, padding=1), middle
        self.last, self.head = nn.Conv2d(made, 8, 1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.last(self.middle(self.first(x)))).mean((2, 3)))


class Does(nn.Module):
    """A function of the activation, with the layers that it uses."""

    def __init__(self, function: Callable[..., torch.Tensor], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


class Attention(nn.Module):
    """Attention by hand over the places, with a fused projection."""

    def __init__(self, fused: bool, heads: int = 3, width: int = 4, norm: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused = heads, width, fused
        self.qkv, self.proj = nn.Linear(12, 3 * heads * width), nn.Linear(heads * width, 12)
        self.q_norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.scale = width**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (
            self.qkv(x)
            .reshape(n, h * w, 3, self.num_heads, self.head_dim)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        q = self.q_norm(q)
        y = (
            F.scaled_dot_product_attention(q, k, v)
            if self.fused
            else (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        )
        return (
            self.proj(y.transpose(1, 2).reshape(n, h * w, -1)).transpose(1, 2).reshape(n, -1, h, w)
        )


def shuffle(blocks: int) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.view(n, blocks, c // blocks, h, w).transpose(1, 2).reshape(n, c, h, w)

    return run


def rms(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6) * self.scale


def layer_norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def squeeze_excite(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))


def channel_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(self.slide(x.mean((2, 3)).unsqueeze(1))).squeeze(1)[:, :, None, None]


def spatial_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * torch.sigmoid(self.look(maps))


def tokens(self: Any, x: torch.Tensor) -> torch.Tensor:
    n, _c, h, w = x.shape
    y = torch.cat([self.token.expand(n, -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.place
    return self.norm(y)[:, 1:].transpose(1, 2).reshape(n, -1, h, w)


def standardised(self: Any, x: torch.Tensor) -> torch.Tensor:
    weight = self.conv.weight
    mean, var = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), keepdim=True)
    return F.conv2d(x, (weight - mean) / (var + 1e-6).sqrt() * self.gain, self.conv.bias, padding=1)


def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.conv(torch.relu(self.conv(x)))


CONSTRUCTS: dict[str, nn.Module] = {
    "sum": Between(Does(lambda s, x: x + s.conv(x), conv=nn.Conv2d(12, 12, 1))),
    "concatenation": Between(
        Does(lambda s, x: torch.cat([x, s.conv(x)], 1), conv=nn.Conv2d(12, 6, 1)), 18
    ),
    "stack": Between(
        Does(lambda s, x: torch.stack([x, s.conv(x)], 1).sum(1), conv=nn.Conv2d(12, 12, 1))
    ),
    "interleaved": Between(
        Does(lambda s, x: torch.stack([x[:, 1::2], -x[:, ::2]], 2).flatten(1, 2))
    ),
    "pooled in the channels-last layout": Between(
        Does(
            lambda s, x: (
                x + F.adaptive_avg_pool2d(x.contiguous(memory_format=torch.channels_last), 1)
            )
        )
    ),
    "split": Between(
        Does(
            lambda s, x: torch.cat([x.chunk(2, 1)[1], s.conv(x.chunk(2, 1)[0])], 1),
            conv=nn.Conv2d(6, 6, 1),
        ),
        12,
    ),
    "gated halves": Between(Does(lambda s, x: F.glu(x, 1)), 6),
    "grouped": Between(nn.Conv2d(12, 12, 3, padding=1, groups=3)),
    "depthwise": Between(nn.Conv2d(12, 24, 3, padding=1, groups=12), 24),
    "transposed": Between(nn.ConvTranspose2d(12, 12, 2, stride=2)),
    "channel shuffle": Between(Does(shuffle(3))),
    "grouped and shuffled": Between(
        nn.Sequential(
            nn.Conv2d(12, 12, 1, groups=2),
            Does(shuffle(2)),
            nn.Conv2d(12, 12, 3, padding=1, groups=12),
        )
    ),
    "squeeze and excitation": Between(
        Does(squeeze_excite, down=nn.Conv2d(12, 4, 1), up=nn.Conv2d(4, 12, 1))
    ),
    "efficient channel attention": Between(
        Does(channel_attention, slide=nn.Conv1d(1, 1, 3, padding=1, bias=False))
    ),
    "spatial attention": Between(Does(spatial_attention, look=nn.Conv2d(2, 1, 3, padding=1))),
    "layer scale": Between(
        Does(lambda s, x: x * s.gamma, gamma=nn.Parameter(torch.rand(12, 1, 1) + 0.5))
    ),
    "group norm": Between(nn.GroupNorm(3, 12)),
    "small group norm": Between(nn.GroupNorm(6, 12)),
    "layer norm": Between(Does(layer_norm, norm=nn.LayerNorm(12))),
    "instance norm": Between(nn.InstanceNorm2d(12, affine=True)),
    "rms norm": Between(Does(rms, scale=nn.Parameter(torch.rand(12, 1, 1) + 0.5))),
    "torch rms norm": Between(Does(layer_norm, norm=nn.RMSNorm(12))),
    "softmax over channels": Between(Does(lambda s, x: x.softmax(1))),
    "centred": Between(Does(lambda s, x: x - x.mean(1, keepdim=True))),
    "pixel shuffle": Between(nn.PixelShuffle(2), 3),
    "pixel unshuffle": Between(nn.PixelUnshuffle(2), 48),
    "unfold": Between(Does(lambda s, x: F.unfold(x, 2, stride=2).view(len(x), -1, 4, 4)), 48),
    "attention by hand": Between(Attention(False)),
    "fused attention": Between(Attention(True)),
    "attention with normalised queries": Between(Attention(True, norm=True)),
    "class token and positions": Between(
        Does(
            tokens,
            token=nn.Parameter(torch.randn(1, 1, 12)),
            place=nn.Parameter(torch.randn(1, 65, 12)),
            norm=nn.LayerNorm(12),
        )
    ),
    "standardised weights": Between(
        Does(
            standardised,
            conv=nn.Conv2d(12, 10, 3),
            gain=nn.Parameter(torch.rand(10, 1, 1, 1) + 0.5),
        ),
        10,
    ),
    "weight norm": Between(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(12, 10, 3, padding=1)), 10
    ),
    "called twice": Between(Does(twice, conv=nn.Conv2d(12, 12, 3, padding=1))),
    "in place": Between(Does(lambda s, x: s.conv(x).add_(x).relu_(), conv=nn.Conv2d(12, 12, 1))),
    "checkpoint": Between(
        Does(
            lambda s, x: checkpoint(s.conv, x, use_reentrant=False),
            conv=nn.Conv2d(12, 12, 3, padding=1),
        )
    ),
    "bare parameter": Between(
        Does(lambda s, x: F.conv2d(x, s.weight), weight=nn.Parameter(torch.randn(10, 12, 1, 1))), 10
    ),
    "prelu": Between(nn.PReLU(12)),
}
# At least these groups' layers must be prunable: the construct hides no channel.
WHOLE = set(CONSTRUCTS)


def prune_and_compare(model: nn.Module, example: Any, **options: Any) -> None:
    graph = trace(model, example, **options)
    before = call(model.eval(), example)
    for share in (0.3, 0.7):
        plan = random_plan(graph, share, torch.Generator().manual_seed(1))
        surgery = operate(model, graph, plan)
        assert surgery.refused == {}
        assert surgery.difference <= 1e-4
        after = call(surgery.model.eval(), example)
        assert not torch.allclose(before, after, rtol=1e-3)  # what was removed mattered
        again = trace(surgery.model, example, **options)
        assert (
            again.params()
            == graph.params(plan)
            == sum(p.numel() for p in surgery.model.parameters())
        )
        assert again.macs() == graph.macs(plan)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_a_construct_is_prunable_and_equals_its_masked_original(name: str) -> None:
    torch.manual_seed(0)
    model = randomise(CONSTRUCTS[name])
    graph = trace(model, IMAGE)
    assert {"first", "last"} <= {group.name for group in graph.groups}, graph.frozen
    assert graph.macs() == cost(model, IMAGE).macs
    prune_and_compare(model, IMAGE)


@pytest.mark.parametrize(
    "name", ["attention by hand", "fused attention", "attention with normalised queries"]
)
@pytest.mark.parametrize("attention", ["heads", "width"])
def test_attention_loses_heads_or_width(name: str, attention: str) -> None:
    model = randomise(CONSTRUCTS[name])
    graph = trace(model, IMAGE, attention=attention)
    assert graph.group("middle.qkv").size == (3 if attention == "heads" else 4)
    small = operate(model, graph, Plan({"middle.qkv": (0, 2)})).model
    assert (small.middle.num_heads, small.middle.head_dim) == (
        (2, 4) if attention == "heads" else (3, 2)
    )
    prune_and_compare(model, IMAGE, attention=attention)


class Encoder(nn.Module):
    """Patches through torch's own transformer layer or attention."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.head = nn.Conv2d(3, 12, 2, stride=2), layer, nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).flatten(2).transpose(1, 2)
        x = (
            self.layer(x)
            if isinstance(self.layer, nn.TransformerEncoderLayer)
            else self.layer(x, x, x)[0] + x
        )
        return self.head(x.mean(1))


@pytest.mark.parametrize("attention", ["heads", "width"])
@pytest.mark.parametrize(
    "layer",
    [
        nn.TransformerEncoderLayer(12, 3, 16, batch_first=True),
        nn.MultiheadAttention(12, 3, batch_first=True),
    ],
)
def test_torchs_own_attention_loses_heads_and_embedding(layer: nn.Module, attention: str) -> None:
    model = randomise(Encoder(copy.deepcopy(layer)))
    sizes = {group.name: group.size for group in trace(model, IMAGE, attention=attention).groups}
    inner = "layer.self_attn" if isinstance(layer, nn.TransformerEncoderLayer) else "layer"
    assert sizes["first"] == 12
    assert sizes[inner] == (3 if attention == "heads" else 4)
    prune_and_compare(model, IMAGE, attention=attention)
    graph = trace(model, IMAGE, attention=attention)
    small = operate(model, graph, Plan({"first": (0, 3, 4, 7, 9), inner: (0, 2)})).model
    again = adopt(copy.deepcopy(model), small.state_dict(), sizes_of(small)).eval()
    torch.testing.assert_close(again(IMAGE), small.eval()(IMAGE))


def test_several_inputs_and_outputs_nested() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 3, padding=1)
            self.one, self.two = nn.Conv2d(6, 2, 1), nn.Conv2d(6, 4, 1)

        def forward(self, left: torch.Tensor, more: dict[str, torch.Tensor]) -> dict[str, Any]:
            x = torch.relu(self.a(left)) + torch.relu(self.b(more["right"]))
            return {"maps": (self.one(x), [self.two(x)])}

    model = randomise(Two())
    example = {"left": IMAGE, "more": {"right": IMAGE.flip(0)}}
    graph = trace(model, example)
    assert [group.name for group in graph.groups] == ["a"]
    surgery = operate(model, graph, Plan({"a": (1, 4)}))
    assert surgery.difference <= 1e-4
    assert not surgery.refused
    assert (
        operate(model, trace(model, (IMAGE, {"right": IMAGE})), Plan({"a": (1, 4)})).refused == {}
    )


def test_half_precision_is_proven_in_float32() -> None:
    model = randomise(CONSTRUCTS["squeeze and excitation"]).bfloat16()
    graph = trace(model, IMAGE.bfloat16())
    surgery = operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0)))
    assert not surgery.refused
    assert {p.dtype for p in surgery.model.parameters()} == {torch.bfloat16}


def test_a_size_baked_into_code_is_reported_not_broken() -> None:
    def fixed(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((2, 3)) / len(x[0]))[:, :, None, None]

    model = randomise(Between(Does(fixed, linear=nn.Linear(12, 12))))
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0)))
    assert "does not run" in surgery.refused["first"] or "differs" in surgery.refused["first"]
    assert surgery.model.last.in_channels < 12 or surgery.model.last.out_channels < 8
    torch.testing.assert_close(surgery.model.eval()(IMAGE).shape, model(IMAGE).shape)


def test_an_auxiliary_head_that_needs_a_batch_is_traced_from_one_image() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)
            self.extra = nn.Sequential(
                nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 2)
            )

        def forward(self, x: torch.Tensor) -> Any:
            x = torch.relu(self.a(x)).mean((2, 3))
            return (self.b(x), self.extra(x)) if self.training else self.b(x)

    model = randomise(Auxiliary())
    graph = trace(model, IMAGE[:1])
    assert {group.name: group.size for group in graph.groups} == {"a": 6, "extra.0": 9}
    small = operate(model, graph, Plan({"a": (0, 3), "extra.0": (1, 2, 8)})).model.train()
    assert [tuple(x.shape) for x in small(IMAGE)] == [(2, 2), (2, 2)]
