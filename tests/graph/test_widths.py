"""Code that reads how wide its input is and goes by it: loops, comparisons, tables, buffers. No plan is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunedge.graph import trace
from prunedge.surgery import operate, sizes_of
from tests.graph.test_constructs import Between
from tests.graph.test_slices import IMAGE, chosen, conv, does, prune_twice_and_train
from tests.slow_cases import some_slow
from tests.small_models import randomise


def layers(count: int, ins: int, outs: int) -> nn.ModuleList:
    return nn.ModuleList(conv(ins, outs) for _ in range(count))


def by_fours(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [
            layer(x[:, i : i + 4])
            for layer, i in zip(s.layers, range(0, x.shape[1], 4), strict=True)
        ],
        1,
    )


def summed_by_fours(s: Any, x: torch.Tensor) -> torch.Tensor:
    out = x[:, :4]
    for i in range(1, x.size(1) // 4):
        out = torch.relu(out + x[:, 4 * i : 4 * i + 4])
    return out


def cascade(s: Any, x: torch.Tensor) -> torch.Tensor:
    out = [x[:, :4]]
    for place in range(x.shape[1] // 4 - 1):
        out.append(s.layers[place](out[-1] + x[:, 4 * place + 4 : 4 * place + 8]))
    return torch.cat(out, 1)


def numbered_parts(s: Any, x: torch.Tensor) -> torch.Tensor:
    parts = x.split(4, 1)
    return torch.cat([s.layers[i](parts[i]) for i in range(len(parts))], 1)


def split_by_the_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [
            layer(part)
            for layer, part in zip(s.layers, torch.split(x, x.shape[1] // 3, 1), strict=True)
        ],
        1,
    )


def chunked_by_the_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [layer(part) for layer, part in zip(s.layers, x.chunk(x.shape[1] // 4, 1), strict=True)], 1
    )


def divided_by_the_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [
            layer(part)
            for layer, part in zip(s.layers, x.tensor_split(x.shape[1] // 4, 1), strict=True)
        ],
        1,
    )


def split_into_sums(s: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    a, b = x.split([c // 3, c - c // 3], 1)
    return torch.cat([s.a(a), s.b(b)], 1)


def unfolded(s: Any, x: torch.Tensor) -> torch.Tensor:
    return x.unfold(1, 4, 4).mean(-1).repeat_interleave(4, 1) + x


def asserted(s: Any, x: torch.Tensor) -> torch.Tensor:
    assert x.shape[1] == 12, "made for twelve channels"
    return s.a(x)


def asserted_multiple(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    assert c % 4 == 0, "made for fours"
    return s.a(x.view(n, c // 4, 4, h, w).transpose(1, 2).reshape(n, c, h, w))


def compared(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(x * 2 if x.shape[1] > 10 else x)


def compared_with_each_other(s: Any, x: torch.Tensor) -> torch.Tensor:
    y = s.a(x)
    return x + y if x.shape == y.shape and x.shape[1] == s.a.out_channels else y


def halved_until_small(s: Any, x: torch.Tensor) -> torch.Tensor:
    while x.size(1) > 3:
        a, b = x.chunk(2, 1)
        x = torch.relu(a + b)
    return x


def looked_up(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.layers[str(x.shape[1])](x)


def repeated_to_a_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(x.repeat(1, 24 // x.shape[1], 1, 1))


def widened_to_a_multiple(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % 8)))


def zeros_up_to_a_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return s.a(torch.cat([x, x.new_zeros(n, 16 - c, h, w)], 1))


def ramp(s: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    return s.a(x * torch.arange(1, c + 1, device=x.device).view(1, c, 1, 1) / c)


def signs(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(x * torch.tensor([1.0, -1.0]).repeat(x.shape[1] // 2).view(1, -1, 1, 1))


def one_hot(s: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    turned = F.one_hot((torch.arange(c) + 1) % c, num_classes=c).to(x.dtype)
    return s.a(torch.einsum("nchw,cd->ndhw", x, turned))


def turned_by_an_index(s: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    return s.a(x[:, (torch.arange(c) + c // 3) % c] + x)


def literal_blocks(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    return s.a(x.reshape(n, 3, 4, h, w).permute(0, 2, 1, 3, 4).reshape(n, 12, h, w))


def folded_into_the_batch(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return s.a(x.reshape(n * (c // 4), 4, h, w)).reshape(n, -1, h, w)


def literal_fold(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return s.a(x.reshape(-1, 4, h, w)).reshape(n, c, h, w)


def divmod_blocks(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    width, rest = divmod(c, 3)
    if rest:
        raise ValueError(f"{c} channels are no three blocks")
    return s.a(x.view(n, 3, width, h, w).transpose(1, 2).reshape(n, c, h, w))


def blocks_in_training(s: Any, x: torch.Tensor) -> torch.Tensor:
    if s.training:
        n, c, h, w = x.shape
        blocks = x.view(n, c // 4, 4, h, w)
        x = (blocks * F.dropout(blocks.new_ones(n, 1, 1, 1, 1), 0.5)).view(n, c, h, w)
    return s.a(x)


def shuffled_in_training(s: Any, x: torch.Tensor) -> torch.Tensor:
    if s.training:
        n, c, h, w = x.shape
        x = x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
    return s.a(x)


def loop_in_training(s: Any, x: torch.Tensor) -> torch.Tensor:
    if s.training:
        return torch.cat([s.a(x[:, i : i + 4]) for i in range(0, x.shape[1], 4)], 1)
    return torch.cat([s.a(part) for part in (x[:, :4], x[:, 4:8], x[:, 8:])], 1)


def asserted_in_training(s: Any, x: torch.Tensor) -> torch.Tensor:
    assert not s.training or x.shape[1] == 12
    return torch.cat([s.a(x[:, :7]), s.b(x[:, 7:])], 1)


def by_filters(s: Any, x: torch.Tensor) -> torch.Tensor:
    step = len(s.a.weight) // 3
    return torch.cat(
        [F.conv2d(x, s.a.weight[i : i + step]) for i in range(0, len(s.a.weight), step)], 1
    )


def groups_of_four(s: Any, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, s.w, groups=x.shape[1] // 4)


def norm_of_fours(s: Any, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, x.shape[1] // 4, s.w, s.b)


def norm_of_threes(s: Any, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, math.gcd(x.shape[1], 9), s.w, s.b)


def heads_by_the_width(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    q, k, v = s.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
    out = []
    for i in range(q.shape[-1] // 4):
        one = slice(4 * i, 4 * i + 4)
        out.append(F.scaled_dot_product_attention(q[..., one], k[..., one], v[..., one]))
    return s.proj(torch.cat(out, -1)).transpose(1, 2).reshape(n, -1, h, w)


def last_quarter(s: Any, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    return torch.cat([s.a(x[:, c - c // 4 :]), x[:, : c - c // 4]], 1)


def scaled_by_the_root(s: Any, x: torch.Tensor) -> torch.Tensor:
    return s.a(x / math.sqrt(x.shape[1]))


def every_pair(s: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:, 2 * i] * x[:, 2 * i + 1] for i in range(x.shape[1] // 2)], 1)


def butterfly(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    for step in range(int(math.log2(c))):
        a, b = x.view(n, -1, 2, 2**step, h, w).unbind(2)
        x = torch.stack([a + b, a - b], 2).reshape(n, c, h, w)
    return x


def blocks_one_by_one(s: Any, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    blocks = x.view(n, c // 4, 4, h, w)
    return torch.cat([s.layers[i](blocks[:, i]) for i in range(blocks.shape[1])], 1)


class Checks(nn.Module):
    """Compares the width with a number that it keeps, and goes by it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_channels, self.layers = 12, layers(3, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != self.num_channels:
            raise ValueError(f"made for {self.num_channels} channels")
        return torch.cat([self.layers[i // 4](x[:, i : i + 4]) for i in range(0, x.shape[1], 4)], 1)


class Told(nn.Module):
    """Gets the width from the module around it."""

    def forward(self, x: torch.Tensor, c: int) -> torch.Tensor:
        n, _, h, w = x.shape
        return torch.cat(
            [part.reshape(n, -1, h, w) for part in (x[:, i : i + 4] for i in range(0, c, 4))], 1
        )


class Remembers(nn.Module):
    """Keeps the width of what it saw, and goes by that later."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(3, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.shape
        return torch.cat(
            [self.layers[i // 4](x[:, i : i + 4]) for i in range(0, self.seen[1], 4)], 1
        )


def vector() -> nn.Parameter:
    return nn.Parameter(torch.rand(12) + 0.5)


WIDTHS: dict[str, Any] = {
    "slices of four, each with a layer": lambda: Between(does(by_fours, layers=layers(3, 4, 4))),
    "slices of four, summed up": lambda: Between(does(summed_by_fours), 4),
    "slices of four, one after the other": lambda: Between(does(cascade, layers=layers(2, 4, 4))),
    "parts by their number": lambda: Between(does(numbered_parts, layers=layers(3, 4, 4))),
    "a split by the width": lambda: Between(does(split_by_the_width, layers=layers(3, 4, 4))),
    "chunks by the width": lambda: Between(does(chunked_by_the_width, layers=layers(3, 4, 4))),
    "tensor_split by the width": lambda: Between(
        does(divided_by_the_width, layers=layers(3, 4, 4))
    ),
    "a split into parts of the width": lambda: Between(
        does(split_into_sums, a=conv(4, 6), b=conv(8, 6))
    ),
    "an asserted width": lambda: Between(does(asserted, a=conv(12, 12))),
    "an asserted multiple": lambda: Between(does(asserted_multiple, a=conv(12, 12))),
    "a width compared with a number": lambda: Between(does(compared, a=conv(12, 12))),
    "widths compared with each other": lambda: Between(
        does(compared_with_each_other, a=conv(12, 12))
    ),
    "halved until it is small": lambda: Between(does(halved_until_small), 3),
    "a layer looked up by the width": lambda: Between(
        does(looked_up, layers=nn.ModuleDict({"12": conv(12, 12)}))
    ),
    "repeated up to a width": lambda: Between(does(repeated_to_a_width, a=conv(24, 12))),
    "zeros up to a multiple": lambda: Between(does(widened_to_a_multiple, a=conv(16, 12))),
    "zeros up to a width": lambda: Between(does(zeros_up_to_a_width, a=conv(16, 12))),
    "turned by a made index": lambda: Between(does(turned_by_an_index, a=conv(12, 12))),
    "blocks by literal sizes": lambda: Between(does(literal_blocks, a=conv(12, 12))),
    "blocks folded into the batch": lambda: Between(does(folded_into_the_batch, a=conv(4, 4))),
    "blocks folded by a literal size": lambda: Between(does(literal_fold, a=conv(4, 4))),
    "blocks by divmod": lambda: Between(does(divmod_blocks, a=conv(12, 12))),
    "blocks in training": lambda: Between(does(blocks_in_training, a=conv(12, 12))),
    "a loop in training": lambda: Between(does(loop_in_training, a=conv(4, 4))),
    "an asserted width in training": lambda: Between(
        does(asserted_in_training, a=conv(7, 5), b=conv(5, 7))
    ),
    "filters by thirds": lambda: Between(does(by_filters, a=conv(12, 12))),
    "groups of four": lambda: Between(
        does(groups_of_four, w=nn.Parameter(torch.randn(12, 4, 1, 1)))
    ),
    "a norm of fours": lambda: Between(does(norm_of_fours, w=vector(), b=vector())),
    "a norm of threes": lambda: Between(does(norm_of_threes, w=vector(), b=vector())),
    "heads by the width": lambda: Between(
        does(heads_by_the_width, qkv=nn.Linear(12, 36), proj=nn.Linear(12, 12))
    ),
    "the last quarter": lambda: Between(does(last_quarter, a=conv(3, 3))),
    "scaled by the root": lambda: Between(does(scaled_by_the_root, a=conv(12, 12))),
    "blocks one by one": lambda: Between(does(blocks_one_by_one, layers=layers(3, 4, 4))),
    "a width that is handed on": lambda: Between(
        does(lambda s, x: s.told(x, x.shape[1]), told=Told())
    ),
    "a width that is kept": lambda: Between(Remembers()),
    "a loop beside a checked width": lambda: Between(Checks()),
    "windows of channels": lambda: Between(does(unfolded)),
}

STAY: dict[str, Any] = {
    "a ramp": lambda: Between(does(ramp, a=conv(12, 12))),
    "signs": lambda: Between(does(signs, a=conv(12, 12))),
    "a table of ones": lambda: Between(does(one_hot, a=conv(12, 12))),
    "another order in training": lambda: Between(does(shuffled_in_training, a=conv(12, 12))),
    "pairs by number": lambda: Between(does(every_pair), 6),
    "a butterfly": lambda: Between(does(butterfly), 16, 16),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
@pytest.mark.parametrize("width", WIDTHS)
def test_code_that_goes_by_the_width_loses_channels(width: str, share: float, seed: int) -> None:
    torch.manual_seed(0)
    prune_twice_and_train(randomise(WIDTHS[width]()), share, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
@pytest.mark.parametrize("width", STAY)
def test_what_is_made_of_the_width_keeps_its_channels(width: str, share: float, seed: int) -> None:
    torch.manual_seed(0)
    prune_twice_and_train(randomise(STAY[width]()), share, seed, prunable=0.0)


class Measured(nn.Module):
    """One place reads the same dimension of tokens, where it counts places, and of images, where it counts channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(3, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places, width = (one.size(1) for one in (x.flatten(2).transpose(1, 2), x))
        return (
            torch.cat([self.layers[i // 4](x[:, i : i + 4]) for i in range(0, width, 4)], 1)
            / places
        )


def test_a_place_in_code_that_reads_places_and_channels_is_not_told_a_width() -> None:
    graph = trace(randomise(Between(Measured())), IMAGE)
    assert graph.reads == ()


def test_the_widths_from_before_are_saved_and_told_again_after_a_second_cut() -> None:
    model = randomise(Between(does(by_fours, layers=layers(3, 4, 4))))
    for seed in range(2):
        graph = trace(model, IMAGE)
        model = operate(model, graph, chosen(graph, 0.3, seed)).model.eval()
        ((dim, now, own),) = next(iter(sizes_of(model)["middle()"]["reads"].values()))
        assert (dim, now, own) == (1, model.first.out_channels, 12)
