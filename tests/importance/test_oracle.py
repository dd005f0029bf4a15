"""The oracle against zeroing by hand, whatever the model does between its layers."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from prunedge.graph import ChannelGraph, trace
from prunedge.importance.oracle import Partial, oracle, sample
from prunedge.importance.replay import Replay
from tests.slow_cases import some_slow
from tests.small_models import CONSTRUCTS, Residual, randomise

GENERATOR = torch.Generator().manual_seed(0)
EXAMPLE = torch.randn(6, 3, 12, 12, generator=GENERATOR)
LABELS = torch.randint(0, 2, (6,), generator=GENERATOR)
BATCHES = [(EXAMPLE[:4], LABELS[:4]), (EXAMPLE[4:], LABELS[4:])]


class InPlace(nn.Module):
    """Changes what its layers give, in its own code and in theirs, on a way past them and on one through them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
        )
        self.act, self.head = nn.Hardswish(inplace=True), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.a(x))
        y = self.b(x)
        x = functional.hardswish(x, inplace=True)
        y += x
        z = self.c(y.clone())
        y.mul_(0.5).add_(0.1)
        z.add_(y)
        return self.head(functional.silu(z, inplace=True).mean((2, 3)))


class Wrapped(nn.Module):
    """A layer whose own code changes what its last child gave, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.inner = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Sequential(nn.ReLU(True)))
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(self.conv(x).mul_(2))
        x.add_(0.3).sigmoid_()
        return self.head(x.mean((2, 3)))


def by_hand(model: nn.Module, graph: ChannelGraph) -> dict[str, torch.Tensor]:
    found = {}
    with torch.no_grad():
        before = functional.cross_entropy(model(EXAMPLE), LABELS)
        for group in graph.groups:
            found[group.name] = torch.zeros(group.size, dtype=torch.float64)
            for channel in range(group.size):
                other = copy.deepcopy(model)
                tensors = dict(other.named_parameters())
                for part in group.having("in"):
                    tensors[part.tensor].index_fill_(
                        part.dim, torch.as_tensor(part.indices[channel]), 0
                    )
                found[group.name][channel] = (
                    functional.cross_entropy(other(EXAMPLE), LABELS) - before
                )
    return found


@pytest.mark.parametrize("construct", [*CONSTRUCTS, InPlace, Wrapped])
def test_the_oracle_is_the_loss_with_a_channel_zeroed(construct: type[nn.Module]) -> None:
    model = randomise(construct())
    graph, weights = trace(model, EXAMPLE[:2]), copy.deepcopy(model.state_dict())
    truth = oracle(model, graph, BATCHES, sample(graph, None))
    for name, wanted in by_hand(model, graph).items():
        torch.testing.assert_close(truth.changes[name], wanted, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert (truth.examples, truth.channels) == (6, graph.channels)
    assert truth.loss == pytest.approx(
        float(functional.cross_entropy(model(EXAMPLE).detach(), LABELS))
    )
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_sample_of_each_group_leaves_the_others_unmeasured() -> None:
    model = randomise(Residual())
    graph = trace(model, EXAMPLE[:2])
    chosen = sample(graph, 3, seed=1)
    truth, wanted = oracle(model, graph, BATCHES, chosen), by_hand(model, graph)
    for name, channels in chosen.items():
        assert torch.isnan(truth.changes[name]).sum() == graph.group(name).size - 3
        torch.testing.assert_close(
            truth.changes[name][list(channels)], wanted[name][list(channels)], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("kept", range(7))
def test_it_goes_on_from_any_group(kept: int) -> None:
    model = randomise(Residual())
    graph = trace(model, EXAMPLE[:2])
    seen: list[Partial] = []
    chosen = sample(graph, None)
    whole = oracle(model, graph, BATCHES, chosen, keep=seen.append)
    assert len(seen) == 2 * len(graph.groups)
    again = oracle(model, graph, BATCHES, chosen, partial=seen[min(kept, len(seen) - 1)])
    assert (again.examples, again.channels, again.loss) == (
        whole.examples,
        whole.channels,
        whole.loss,
    )
    for name, value in whole.changes.items():
        assert torch.equal(again.changes[name], value)


@pytest.mark.parametrize(
    "name", some_slow(["googlenet", "vit_b_16", "swin_t"], ["vit_b_16", "swin_t"])
)
def test_a_replay_from_anywhere_gives_the_same(name: str) -> None:
    arguments = {"vit_b_16": {"image_size": 32}}.get(name, {})
    model = torchvision.models.get_model(name, weights=None, num_classes=3, **arguments).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model(x)
    with torch.no_grad(), Replay(model).attached() as replay:
        torch.testing.assert_close(replay.record(lambda: model(x)), wanted)
        starts = sorted(set(replay.starts().values()))
        assert starts[0] == 0 or name != "vit_b_16"  # the class token is the model's own
        for start in starts[:: max(1, len(starts) // 25)]:
            assert torch.equal(replay.run(lambda: model(x), start), replay.run(lambda: model(x), 0))


def test_what_comes_before_is_not_computed_again() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 5, 1)
    ).eval()
    x = torch.randn(1, 3, 4, 4)
    counted = {}
    with torch.no_grad(), Replay(model).attached() as replay:
        replay.record(lambda: model(x))
        for name, start in replay.starts().items():
            with FlopCounterMode(display=False) as counter:
                replay.run(lambda: model(x), start)
            counted[name] = counter.get_total_flops() / 32
    assert [counted[f"{layer}.weight"] for layer in ("0.0", "0.1", "1")] == [
        24 + 64 + 40,
        64 + 40,
        40,
    ]


def test_the_first_consumer_computes_the_channels_part_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    randomise(model)
    graph, x = trace(model, EXAMPLE[:2]), EXAMPLE[:1]
    counts = []
    for chosen in ({"0": (), "2": ()}, {"0": (3,), "2": ()}, {"0": (), "2": (3,)}):
        with FlopCounterMode(display=False) as counter:
            oracle(model, graph, [(x, LABELS[:1])], chosen)
        counts.append(counter.get_total_flops() / 2)
    assert counts[1] - counts[0] == 144 * 1 * 6 + 6 * 2, (
        "one of eight input channels of the second layer, and the last"
    )
    assert counts[2] - counts[0] == 1 * 2, "one of six inputs of the last"
