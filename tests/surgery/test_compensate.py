"""What removed channels gave goes to their consumers: exactly their mean, and as much more as the others can say."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.pruning.select import random_plan
from prunedge.surgery import operate
from prunedge.surgery.compensate import compensate
from tests.small_models import CONSTRUCTS, Plain, randomise

GENERATOR = torch.Generator().manual_seed(0)
BATCHES = [
    (torch.randn(8, 3, 12, 12, generator=GENERATOR), torch.zeros(8, dtype=torch.int64))
    for _ in range(2)
]
EXAMPLE = BATCHES[0][0][:2]


def output_of(model: nn.Module, layer: str, inputs: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, args, out: seen.append(out.detach().clone())
    )
    with torch.no_grad():
        model.eval()(inputs)
    handle.remove()
    return seen[0]


def pruned(model: nn.Module, plan: Plan) -> nn.Module:
    return operate(model, trace(model, EXAMPLE), plan).model


def test_the_mean_of_a_consumer_s_output_stays_what_it_was() -> None:
    model = randomise(Plain())
    plan = Plan({"features.0": (0, 1, 4)})
    small = pruned(model, plan)
    everything = torch.cat([inputs for inputs, _ in BATCHES])
    found = compensate(model, trace(model, EXAMPLE), plan, small, BATCHES, "mean")
    assert found.shifted == ("features.3",)
    assert not found.left
    whole, after = (
        output_of(net, "features.3", everything).mean((0, 2, 3)) for net in (model, small)
    )
    torch.testing.assert_close(after, whole, rtol=1e-4, atol=1e-5)


def test_without_a_bias_the_batch_norm_takes_it() -> None:
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, bias=False),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            nn.Linear(384, 2),
        )
    )
    plan = Plan({"0": (0, 1, 4), "2": (0, 1, 2, 5)})
    small = pruned(model, plan)
    mean = compensate(model, trace(model, EXAMPLE), plan, small, BATCHES, "mean")
    assert mean.shifted == ("2", "5")
    everything = torch.cat([inputs for inputs, _ in BATCHES])
    whole, after = (output_of(net, "3", everything).mean((0, 2, 3)) for net in (model, small))
    torch.testing.assert_close(after, whole[[0, 1, 2, 5]], rtol=1e-4, atol=1e-5)


def test_a_consumer_without_a_place_for_it_is_named() -> None:
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3, bias=False), nn.Flatten(), nn.Linear(128, 2)
        )
    )
    plan = Plan({"0": (0, 1)})
    found = compensate(model, trace(model, EXAMPLE), plan, pruned(model, plan), BATCHES, "mean")
    assert found.shifted == ()
    assert "no bias" in found.left["1"]


def test_channels_that_others_can_say_cost_nothing_with_least_squares() -> None:
    """Channels 3, 4 and 5 are sums of the first three: the consumers can do without them."""
    torch.manual_seed(0)
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 5, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(5, 4, 1),
        )
    )
    with torch.no_grad():
        model[0].weight[3:] = model[0].weight[:3].flip(0) * 2 + model[0].weight[:3]
        model[0].bias[3:] = model[0].bias[:3].flip(0) * 2 + model[0].bias[:3]
    model.append(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)))
    plan = Plan({"0": (0, 1, 2)})
    graph, inputs = trace(model, EXAMPLE), BATCHES[1][0]
    with torch.no_grad():
        wanted = model(inputs)
    gaps = {}
    for how in ("none", "mean", "lstsq"):
        small = pruned(model, plan)
        compensate(model, graph, plan, small, BATCHES, how)
        with torch.no_grad():
            gaps[how] = float((small.eval()(inputs) - wanted).norm() / wanted.norm())
    assert gaps["lstsq"] < 0.1 * min(gaps["mean"], gaps["none"])


@pytest.mark.parametrize("how", ["mean", "lstsq"])
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_every_construct_is_nearer_to_the_whole_model(construct: type[nn.Module], how: str) -> None:
    model = randomise(construct())
    graph, before = trace(model, EXAMPLE), copy.deepcopy(model.state_dict())
    plan = random_plan(graph, 0.5, torch.Generator().manual_seed(1))
    plain, small = pruned(model, plan), pruned(model, plan)
    found = compensate(model, graph, plan, small, BATCHES, how)
    assert found.shifted or found.solved
    inputs = torch.cat([inputs for inputs, _ in BATCHES])
    with torch.no_grad():
        wanted = model.eval()(inputs)
        gaps = [float((net.eval()(inputs) - wanted).norm()) for net in (plain, small)]
    assert gaps[1] < gaps[0]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for net in (model, small)
        for module in net.modules()
    )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_least_squares_bring_real_models_nearer(name: str) -> None:
    model = randomise(torchvision.models.get_model(name, weights=None, num_classes=4))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 3, 32, 32, generator=generator), torch.zeros(8)) for _ in range(3)]
    graph = trace(model, batches[0][0][:2])
    plan = random_plan(graph, 0.3, torch.Generator().manual_seed(1))
    gaps = {}
    with torch.no_grad():
        wanted = model.eval()(batches[0][0])
    for how in ("none", "lstsq"):
        small = operate(model, graph, plan).model
        compensate(model, graph, plan, small, batches, how)
        with torch.no_grad():
            gaps[how] = float((small.eval()(batches[0][0]) - wanted).norm())
    assert gaps["lstsq"] < gaps["none"]
