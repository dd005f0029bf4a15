"""Operations beside the usual layers: each is followed where that is exact, and frozen with a reason where it is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d, roi_align, roi_pool

from prunedge.graph import derive, trace
from prunedge.graph.plan import Plan
from prunedge.models import cost
from prunedge.pruning.select import random_plan
from prunedge.surgery import TOLERANCE, adopt, masked_outputs, operate, sizes_of
from tests.graph.test_constructs import Between, Does
from tests.graph.test_derive import assert_same
from tests.slow_cases import some_slow
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LARGER = torch.randn(3, 3, 11, 10, generator=torch.Generator().manual_seed(1))


def tokens_of(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def maps_of(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])


def shifted(self: Any, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[:, :, 1:] = x[:, :, :-1]
    return out


def framed(self: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, h + 2, w + 2)
    out[:, :, 1:-1, 1:-1] = x
    return out


def written_into_twelve(self: Any, x: torch.Tensor) -> torch.Tensor:
    out = x.new_zeros(len(x), 12, x.shape[2] + 1, x.shape[3])
    out[:, :, 1:] = x
    return out


def added_along(self: Any, x: torch.Tensor) -> torch.Tensor:
    y, places = self.conv(x), torch.tensor([0, 3])
    return (
        x.index_add(2, places, y[:, :, :2])
        .index_copy(2, torch.tensor([1]), y[:, :, :1])
        .index_fill(3, places, 0.0)
    )


def joined_in_place(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = self.conv(x)
    out = x.new_empty(len(x), x.shape[1] + y.shape[1], *x.shape[2:])
    out[:, : x.shape[1]] = x
    out[:, x.shape[1] :] = y
    return out


def added_to_places(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = self.conv(x)
    x = x.clone()
    x[..., 0] += y[..., 1]
    x[:, :, 2:4] = y[:, :, 2:4]
    x[:, :, 0, 0] = 0
    return x


def seen_through_a_view(self: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    out = torch.zeros(n, h * w, c)
    flat = out.view(n, h, w, c)
    flat[:, : h // 2] = x.permute(0, 2, 3, 1)[:, : h // 2]
    out[:, : h // 2 * w] += tokens_of(self.conv(x))[:, : h // 2 * w]
    return maps_of(out, x)


def index_put(self: Any, x: torch.Tensor) -> torch.Tensor:
    y, some = tokens_of(x).clone(), torch.tensor([1, 3])
    y[:, some] = self.linear(y[:, some])
    return maps_of(y, x)


def mask_put(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = x.permute(0, 2, 3, 1).clone()
    even = torch.arange(y.shape[1]) % 2 == 0
    y[:, even] = self.linear(y[:, even])
    y[even.expand(len(y), -1)] = 0
    return y.permute(0, 3, 1, 2)


def put_into_nothing(self: Any, x: torch.Tensor) -> torch.Tensor:
    y, some = tokens_of(x), torch.tensor([1, 3, 8])
    out = y.new_zeros(y.shape)
    out[:, some] = self.linear(y[:, some])
    return maps_of(out, x)


def padded_channels(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The shortcut of a ResNet for small images."""
    return (self.conv(x) + F.pad(x, (0, 0, 0, 0, 2, 2))).relu()


def joined_with_zeros(self: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    return self.conv(x) + torch.cat([x, torch.zeros(n, 4, h, w)], 1)


def joined_with_ones(self: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    return self.conv(x) + torch.cat(
        [x.new_zeros((n, 2, h, w)), x, torch.ones(size=(n, 2, h, w))], 1
    )


def best_places(x: torch.Tensor, count: int = 16) -> torch.Tensor:
    """The numbers of the places with the largest means, for each channel: (n, count, channels)."""
    return x.mean(2).topk(count, 1).indices.unsqueeze(-1).expand(-1, -1, x.shape[2])


def gathered(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = tokens_of(x)
    return torch.gather(y, 1, best_places(y)).transpose(1, 2).unflatten(2, (4, 4))


def gathered_by_channel(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = x.flatten(2)
    return torch.gather(y, 2, y.argsort(2)).unflatten(2, x.shape[2:])


def scattered(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = tokens_of(x)
    places = best_places(y)
    return maps_of(
        torch.zeros_like(y).scatter(1, places, self.linear(torch.gather(y, 1, places))), x
    )


def scattered_into_nothing(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = tokens_of(x)
    places = best_places(y)
    out = y.new_zeros(y.shape)
    out.scatter_add_(1, places, self.linear(torch.gather(y, 1, places)))
    return maps_of(out, x)


def table_of_tokens(self: Any, x: torch.Tensor) -> torch.Tensor:
    table = self.place.reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    return x + F.interpolate(table, size=x.shape[-2:], mode="bilinear")


def tables_of_layers(self: Any, x: torch.Tensor) -> torch.Tensor:
    """A table of positions for each of two layers, resized together."""
    for table in F.interpolate(
        self.places.transpose(2, 3).view(2, -1, 4, 4), size=x.shape[-2:], mode="bicubic"
    ):
        x = torch.relu(self.conv(x + table))
    return x


def deformed(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.conv(x, self.offset(x), torch.sigmoid(self.weigh(x)))


def embedded(self: Any, x: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(x.shape[2])
    return x + self.rows(rows).t()[None, :, :, None] + self.kinds(rows % 3).t()[None, :, :, None]


def grid_sampled(self: Any, x: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(x, torch.tanh(self.grid(x)).permute(0, 2, 3, 1), align_corners=False)


def of_regions(pool: Any) -> Callable[..., torch.Tensor]:
    return lambda self, x: pool(x, [torch.tensor([[0.0, 0, 6, 6], [1, 1, 5, 7]])] * len(x), (4, 4))


def picked_by_number(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = tokens_of(x)
    where = y.mean(2).argmax(1)
    return y[torch.arange(len(y)), where][:, :, None, None] + x


def unpooled(self: Any, x: torch.Tensor) -> torch.Tensor:
    y, where = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(self.conv(y), where, 2)


def recurrent(self: Any, x: torch.Tensor) -> torch.Tensor:
    return maps_of(self.layer(tokens_of(x))[0], x)


def cell(self: Any, x: torch.Tensor) -> torch.Tensor:
    state = x.mean((2, 3))
    for row in range(2):
        state = self.layer(x[:, :, row].mean(2), state)
    return state[:, :, None, None] + x


def with_state(self: Any, x: torch.Tensor) -> torch.Tensor:
    y, _ = self.layer(tokens_of(x), x.mean((2, 3))[None].expand(2, -1, -1).contiguous())
    return maps_of(y, x)


def heads_that_sample(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Deformable attention: each head samples its own maps at its own places, and weighs what it finds."""
    n, _, h, w = x.shape
    y = tokens_of(x)
    value = (
        self.value(y)
        .view(n, h * w, self.num_heads, -1)
        .permute(0, 2, 3, 1)
        .reshape(n * self.num_heads, -1, h, w)
    )
    grid = self.places(y).view(n, h * w, self.num_heads, 2, 2).tanh().transpose(1, 2).flatten(0, 1)
    found = F.grid_sample(value, grid, align_corners=False)  # (n * heads, width, places, points)
    weigh = (
        self.weigh(y)
        .view(n, h * w, self.num_heads, 2)
        .softmax(-1)
        .transpose(1, 2)
        .flatten(0, 1)
        .unsqueeze(1)
    )
    out = (found * weigh).sum(-1).view(n, -1, h * w)
    return self.out(out.transpose(1, 2)).transpose(1, 2).unflatten(2, (h, w))


def biased_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention with a table of biases by heads, summed with a mask of a fixed size."""
    y = tokens_of(x[:, :, :4, :4])
    n, t, _ = y.shape
    q, k, v = (
        one(y).view(n, t, self.num_heads, -1).transpose(1, 2) for one in (self.q, self.k, self.v)
    )
    apart = (torch.arange(t)[:, None] - torch.arange(t)).abs()
    mask = (
        self.bias[apart].permute(2, 0, 1).unsqueeze(0)
        + torch.zeros(2, 1, t, t).repeat(1, 1, 1, 1)[: 1 + n % 2 * 0]
    )
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return self.out(out.transpose(1, 2).reshape(n, t, -1)).transpose(1, 2).unflatten(2, (4, 4))


def relative_positions(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention whose scores are summed with the queries' products with tables of relative positions, shared by the heads."""
    x = x[:, :, :4, :4]
    n, _, h, w = x.shape
    q, k, v = (
        self.qkv(x.permute(0, 2, 3, 1))
        .reshape(n, h * w, 3, self.num_heads, -1)
        .permute(2, 0, 3, 1, 4)
        .reshape(3, -1, h * w, 4)
        .unbind(0)
    )
    apart = torch.arange(4)[:, None] - torch.arange(4) + 3
    places = q.reshape(-1, h, w, 4)
    rows = torch.einsum("bhwc,hkc->bhwk", places, self.rows[apart])
    columns = torch.einsum("bhwc,wkc->bhwk", places, self.columns[apart])
    scores = (
        (q @ k.transpose(-2, -1)).view(-1, h, w, h, w)
        + rows[:, :, :, :, None]
        + columns[:, :, :, None, :]
    )
    out = scores.view(-1, h * w, h * w).softmax(-1) @ v
    out = out.view(n, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(n, h, w, -1)
    return self.out(out).permute(0, 3, 1, 2)


def unfolded_and_folded(self: Any, x: torch.Tensor) -> torch.Tensor:
    return F.fold(F.unfold(x, 3, padding=1).sigmoid(), x.shape[2:], 3, padding=1)


def does(
    function: Callable[..., torch.Tensor], made: int = 12, **layers: Any
) -> Callable[[], nn.Module]:
    return lambda: Between(
        Does(
            function, **{name: make() if callable(make) else make for name, make in layers.items()}
        ),
        made,
    )


def layer(make: Callable[[], nn.Module], made: int = 12) -> Callable[[], nn.Module]:
    return lambda: Between(make(), made)


def table(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(*shape))


def spectral(
    make: Callable[[], nn.Module], norm: Callable[[nn.Module], nn.Module]
) -> Callable[[], nn.Module]:
    return layer(lambda: norm(make()), 10)


def conv(made: int = 12, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(12, made, 1, **options)


def linear(made: int = 12) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(12, made)


# What goes between two convolutions: how to make it, and which groups there are besides theirs, with their sizes.
FOLLOWED: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "constant padding": (does(lambda s, x: F.pad(x, (1, 2, 1, 0))), {}),
    "reflected padding": (does(lambda s, x: F.pad(x, (1, 2, 1, 0), "reflect")), {}),
    "replicated padding": (does(lambda s, x: F.pad(x, (1, 2, 1, 0), "replicate")), {}),
    "circular padding": (does(lambda s, x: F.pad(x, (1, 2, 1, 0), "circular")), {}),
    "padding with ones": (does(lambda s, x: F.pad(x, (1, 2, 1, 0), value=1.5)), {}),
    "cropping": (does(lambda s, x: F.pad(x, (-1, 2, 0, -1))), {}),
    "zero padding": (layer(lambda: nn.ZeroPad2d(1)), {}),
    "circular convolution": (
        layer(lambda: nn.Conv2d(12, 12, 3, padding=1, padding_mode="circular")),
        {"middle": 12},
    ),
    "padded tokens": (
        does(lambda s, x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 0, 1)).permute(0, 3, 1, 2)),
        {},
    ),
    "shifted by slices": (does(shifted), {}),
    "written into zeros": (does(framed), {}),
    "written into zeros of a written number": (does(written_into_twelve), {}),
    "joined by writing": (does(joined_in_place, 18, conv=conv(6)), {"middle.conv": 6}),
    "added to some places": (does(added_to_places, conv=conv()), {}),
    "written through a view": (does(seen_through_a_view, conv=conv()), {}),
    "index put": (does(index_put, linear=linear()), {}),
    "mask put": (does(mask_put, linear=linear()), {}),
    "index put into zeros": (does(put_into_nothing, linear=linear()), {"middle.linear": 12}),
    "padded channels": (does(padded_channels, 16, conv=conv(16)), {"middle.conv": 4}),
    "channels cut off": (
        does(lambda s, x: F.pad(x, (0, 0, 0, 0, -2, 2)) + s.conv(x), conv=conv()),
        {"middle.conv": 2, "first": 2, "first#2": 10},
    ),
    "channels joined with zeros": (does(joined_with_zeros, 16, conv=conv(16)), {"middle.conv": 4}),
    "channels joined with ones": (does(joined_with_ones, 16, conv=conv(16)), {"middle.conv": 4}),
    "added along places": (does(added_along, conv=conv()), {}),
    "a linear layer by einsum": (
        does(lambda s, x: torch.einsum("nchw,oc->nohw", x, s.weight), 10, weight=table(10, 12)),
        {"middle": 10},
    ),
    "turned and triangular": (does(lambda s, x: torch.rot90(x, 1, (2, 3)).tril()), {}),
    "masked fill": (does(lambda s, x: x.masked_fill(x.mean(1, keepdim=True) > 0, -1)), {}),
    "gather": (does(gathered), {}),
    "gather by channel": (does(gathered_by_channel), {}),
    "scatter": (does(scattered, linear=linear()), {}),
    "scatter into zeros": (does(scattered_into_nothing, linear=linear()), {"middle.linear": 12}),
    "sort and topk over places": (
        does(lambda s, x: x.sort(-1).values + x.flatten(2).topk(8).values.mean(2)[..., None, None]),
        {},
    ),
    "running sum over places": (does(lambda s, x: x.cumsum(-1)), {}),
    "unsqueezed in place": (
        does(lambda s, x: x.mean((2, 3)).unsqueeze_(-1).unsqueeze_(-1) + x),
        {},
    ),
    "resized table": (
        does(
            lambda s, x: x + F.interpolate(s.place, size=x.shape[-2:], mode="bicubic"),
            place=table(1, 12, 4, 4),
        ),
        {},
    ),
    "resized tables of several layers": (
        does(tables_of_layers, conv=conv(), places=table(2, 1, 16, 12)),
        {},
    ),
    "resized table of tokens": (does(table_of_tokens, place=table(1, 16, 12)), {}),
    "embedding": (
        does(embedded, rows=lambda: nn.Embedding(12, 12), kinds=lambda: nn.Embedding(3, 12)),
        {},
    ),
    "deformable convolution": (
        does(
            deformed,
            10,
            conv=lambda: DeformConv2d(12, 10, 3, padding=1),
            offset=conv(18),
            weigh=conv(9),
        ),
        {"middle.conv": 10},
    ),
    "deformable convolution in groups": (
        does(
            deformed,
            conv=lambda: DeformConv2d(12, 12, 3, padding=1, groups=2),
            offset=conv(36),
            weigh=conv(18),
        ),
        {"first": 6, "middle.conv": 6},
    ),
    "depthwise deformable convolution": (
        does(
            deformed,
            conv=lambda: DeformConv2d(12, 12, 3, padding=1, groups=12),
            offset=conv(18),
            weigh=conv(9),
        ),
        {},
    ),
    "grid sample": (does(grid_sampled, grid=conv(2)), {}),
    "heads that sample": (
        does(
            heads_that_sample,
            value=linear(),
            places=linear(12),
            weigh=linear(6),
            out=linear(),
            num_heads=3,
        ),
        {"middle.value": 3, "middle.out": 12},
    ),
    "regions": (does(of_regions(roi_align)), {}),
    "regions' maxima": (does(of_regions(roi_pool)), {}),
    "picked by number": (does(picked_by_number), {}),
    "unpooled": (does(unpooled, conv=conv(groups=12)), {}),
    "spectral norm": (
        spectral(conv(10), nn.utils.parametrizations.spectral_norm),
        {"middle.parametrizations.weight": 10},
    ),
    "spectral norm of a transposed convolution": (
        spectral(lambda: nn.ConvTranspose2d(12, 10, 2), nn.utils.parametrizations.spectral_norm),
        {"middle.parametrizations.weight": 10},
    ),
    "spectral norm by a hook": (spectral(conv(10), nn.utils.spectral_norm), {"middle": 10}),
    "LSTM": (
        does(recurrent, 6, layer=lambda: nn.LSTM(12, 6, batch_first=True)),
        {"middle.layer": 6},
    ),
    "LSTM of two layers and directions": (
        does(recurrent, layer=lambda: nn.LSTM(12, 6, 2, batch_first=True, bidirectional=True)),
        {"middle.layer": 6},
    ),
    "LSTM without biases": (
        does(recurrent, 6, layer=lambda: nn.LSTM(12, 6, 2, batch_first=True, bias=False)),
        {"middle.layer": 6},
    ),
    "GRU": (
        does(recurrent, layer=lambda: nn.GRU(12, 6, 2, batch_first=True, bidirectional=True)),
        {},
    ),
    "RNN": (does(recurrent, 6, layer=lambda: nn.RNN(12, 6, batch_first=True)), {}),
    "GRU cell whose state has channels": (does(cell, layer=lambda: nn.GRUCell(12, 12)), {}),
    "GRU whose state has channels": (
        does(with_state, layer=lambda: nn.GRU(12, 12, 2, batch_first=True)),
        {},
    ),
    "tables of relative positions": (
        does(
            relative_positions,
            qkv=linear(36),
            out=linear(),
            rows=table(7, 4),
            columns=table(7, 4),
            num_heads=3,
        ),
        {"middle.qkv": 3, "middle.out": 12},
    ),
    "fold": (does(unfolded_and_folded), {}),
    "normalised channels": (does(lambda s, x: F.normalize(x, dim=1)), {}),
    "attention with biases by heads": (
        does(
            biased_attention,
            q=linear(),
            k=linear(),
            v=linear(),
            out=linear(),
            bias=table(16, 3),
            num_heads=3,
        ),
        {"middle.q": 3, "middle.out": 12},
    ),
}


@pytest.mark.parametrize("name", some_slow(FOLLOWED, ["GRU", "GRU whose state has channels"]))
def test_an_operation_is_followed_and_equals_its_masked_original_at_any_size(name: str) -> None:
    torch.manual_seed(0)
    make, more = FOLLOWED[name]
    model = randomise(make()).eval()
    graph = trace(model, IMAGE)
    assert {group.name: group.size for group in graph.groups} == {"first": 12, "last": 8, **more}, (
        graph.frozen
    )
    assert graph.macs() == cost(model, IMAGE).macs
    for share in (0.3, 0.6):
        plan = random_plan(graph, share, torch.Generator().manual_seed(1))
        surgery = operate(model, graph, plan)
        assert surgery.refused == {}
        assert surgery.difference <= TOLERANCE
        small = surgery.model.eval()
        for other in (LARGER, IMAGE[:1]):
            wanted = masked_outputs(model, replace(graph, example=other), plan)
            torch.testing.assert_close(
                small(other), wanted[0], rtol=1e-4, atol=1e-4 * float(wanted[0].abs().max())
            )
        again = trace(small, IMAGE)
        assert (again.params(), again.macs()) == (graph.params(plan), graph.macs(plan))
        if graph.regular:
            assert_same(derive(graph, plan, small), again)
        second = operate(small, again, random_plan(again, 0.3, torch.Generator().manual_seed(2)))
        assert second.refused == {}


def gathered_channels(self: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.gather(x, 1, torch.zeros_like(x[:, :6], dtype=torch.long))


def scattered_channels(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x.scatter(1, torch.zeros(len(x), 1, 8, 8, dtype=torch.long), 0.0)


def put_along_channels(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x.index_put((torch.arange(len(x)), torch.tensor([3] * len(x))), torch.tensor(0.0))


def changed_noise(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x + torch.zeros(1, 12, 1, 1).bernoulli_(0.5).add_(torch.arange(12.0).view(1, 12, 1, 1))


def fixed_values_written(self: Any, x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[..., 0] = torch.arange(12.0)[:, None]
    return x


def written_into_fixed_values(self: Any, x: torch.Tensor) -> torch.Tensor:
    out = torch.arange(12.0)[None, :, None, None].expand(x.shape).clone()
    out[..., 0] = x[..., 0]
    return out


def embedded_rows(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x + self.rows(torch.arange(8)).t()[None, :, :, None]


FROZEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "gathered channels": (does(gathered_channels, 6), "depend on the input"),
    "scattered channels": (does(scattered_channels), "scatter"),
    "put along channels": (does(put_along_channels), "index_put"),
    "meets what was random and then changed": (does(changed_noise), "fixed size"),
    "written with values of a fixed size": (does(fixed_values_written), "fixed size"),
    "written into values of a fixed size": (does(written_into_fixed_values), "part of"),
    "embedding whose rows are renormalised": (
        does(embedded_rows, rows=lambda: nn.Embedding(12, 12, max_norm=1.0)),
        "embedding_renorm",
    ),
    "running maxima over channels": (does(lambda s, x: x.cummax(1).values), "cummax"),
    "offsets of each channel": (
        does(
            deformed,
            conv=lambda: DeformConv2d(12, 12, 3, padding=1, groups=12),
            offset=conv(216),
            weigh=conv(108),
        ),
        "offsets of its own",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_not_exact_is_frozen_with_the_reason(name: str) -> None:
    torch.manual_seed(0)
    make, why = FROZEN[name]
    graph = trace(randomise(make()), IMAGE)
    assert why in {frozen.name: frozen.reason for frozen in graph.frozen}["first"]


def test_constants_beside_channels_are_pinned_and_come_back_with_the_saved_sizes() -> None:
    model = randomise(FOLLOWED["padded channels"][0]()).eval()
    graph = trace(model, IMAGE)
    plan = Plan({"first": (0, 3, 4, 7, 9), "middle.conv": (1, 2, 3)})
    small = operate(model, graph, plan).model.eval()
    assert (small.first.out_channels, small.middle.conv.out_channels) == (5, 8)
    again = adopt(copy.deepcopy(model), small.state_dict(), sizes_of(small)).eval()
    torch.testing.assert_close(again(LARGER), small(LARGER))


def test_constants_are_known_by_their_place_where_another_call_comes_before_them() -> None:
    def padded(self: Any, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] % 2:
            x = F.pad(x, (0, 0, 0, 1))
        return self.conv(x) + F.pad(x, (0, 0, 0, 0, 2, 2))

    model = randomise(Between(Does(padded, conv=nn.Conv2d(12, 16, 1)), 16)).eval()
    graph, plan = trace(model, IMAGE), Plan({"middle.conv": (1, 2, 3)})
    small = operate(model, graph, plan).model.eval()
    for image in (IMAGE, LARGER):
        (wanted,) = masked_outputs(model, graph, plan, example=image)
        torch.testing.assert_close(small(image), wanted)


def test_an_lstm_loses_the_same_units_in_all_its_gates_layers_and_directions() -> None:
    model = randomise(FOLLOWED["LSTM of two layers and directions"][0]()).eval()
    graph = trace(model, IMAGE)
    parts = {
        (part.tensor.removeprefix("middle.layer."), part.dim): part.indices
        for part in graph.group("middle.layer").slices
    }
    assert parts["weight_ih_l0", 0][2].tolist() == [2, 8, 14, 20]
    assert parts["weight_hh_l1_reverse", 1][2].tolist() == [2]
    assert parts["weight_ih_l1", 1][2].tolist() == [2, 8]
    small = operate(model, graph, Plan({"first": (0, 1, 5), "middle.layer": (0, 3, 4, 5)})).model
    assert (small.middle.layer.input_size, small.middle.layer.hidden_size) == (3, 4)
    again = adopt(copy.deepcopy(model), small.state_dict(), sizes_of(small)).eval()
    torch.testing.assert_close(again(LARGER), small.eval()(LARGER))


def test_a_state_that_starts_with_values_of_a_fixed_size_stays() -> None:
    def started(self: Any, x: torch.Tensor) -> torch.Tensor:
        start = torch.linspace(0, 1, 6).expand(1, len(x), 6).contiguous()
        return maps_of(self.layer(tokens_of(x), (start, start))[0], x)

    model = Between(Does(started, layer=nn.LSTM(12, 6, batch_first=True)), 6)
    graph = trace(model, IMAGE)
    assert {group.name for group in graph.groups} == {"first", "last"}
    assert any("starts with values of a fixed size" in frozen.reason for frozen in graph.frozen)
