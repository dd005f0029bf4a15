"""What pruning saves, counted after plans, and plans that save a share of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.latency.layers import layers_of
from prunedge.models import cost as measured_cost
from prunedge.pruning.costs import cost_of
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import remove
from tests.small_models import Plain, Residual

EXAMPLE = torch.randn(1, 3, 16, 16)
MODEL = Plain().eval()
GRAPH = trace(MODEL, EXAMPLE)
PLAN = Plan({"features.0": (0, 1, 2), "features.3": (1, 4, 5, 7)})


@dataclass(frozen=True)
class TenToOneCost:
    graph: ChannelGraph

    def total(self, plan: Plan | None = None) -> float:
        total = 0.0
        for group in self.graph.groups:
            kept = len(plan.keep[group.name]) if plan and group.name in plan.keep else group.size
            total += kept * (1.0 if group.name == self.graph.groups[0].name else 0.1)
        return total


@dataclass(frozen=True)
class TenToOne:
    """A device on which the first group's channels take ten times as long as all others."""

    multiple: int = 1

    def cost(self, model: nn.Module, graph: ChannelGraph) -> TenToOneCost:
        return TenToOneCost(graph)

    def measure(self, model: nn.Module, example: torch.Tensor) -> float:
        raise AssertionError("a plan is predicted")


@pytest.mark.parametrize("currency", ["latency", "memory"])
def test_a_plan_s_sizes_are_computed_once_for_a_figure(
    currency: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step asks for the figure of many plans."""
    cost = cost_of(currency, MODEL, GRAPH)
    before = cost.total(PLAN)
    sizes = GRAPH.sizes(PLAN)
    assert GRAPH.macs(PLAN, sizes) == GRAPH.macs(PLAN)
    assert GRAPH.params(PLAN, sizes) == GRAPH.params(PLAN)

    asked = []
    original = ChannelGraph.sizes

    def noted(graph: ChannelGraph, plan: Plan | None = None) -> dict[str, tuple[int, ...]]:
        asked.append(plan)
        return original(graph, plan)

    monkeypatch.setattr(ChannelGraph, "sizes", noted)
    assert cost.total(PLAN) == before
    assert asked == [PLAN]


@pytest.mark.parametrize("make", [Plain, Residual])
def test_macs_and_parameters_are_those_of_the_smaller_model(make: Any) -> None:
    model = make().eval()
    graph = trace(model, EXAMPLE)
    group = graph.groups[0]
    plan = Plan({group.name: tuple(range(group.size // 2))})
    small = measured_cost(remove(model, graph, plan), EXAMPLE)

    assert cost_of("macs", model, graph).total(plan) == small.macs
    assert cost_of("params", model, graph).total(plan) == small.params


def test_memory_is_that_of_the_weights_and_of_the_widest_layer() -> None:
    numbers = []
    for _, shape in layers_of(MODEL, EXAMPLE):
        numbers.append(shape.activations)
    held: list[int] = []

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        held.append(inputs[0].numel() + output.numel())

    handles = [
        module.register_forward_hook(hook)
        for module in MODEL.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    MODEL(EXAMPLE)
    for handle in handles:
        handle.remove()

    assert numbers == held
    params = sum(parameter.numel() for parameter in MODEL.parameters())
    assert cost_of("memory", MODEL, GRAPH).total() == 4 * (params + max(held))


def test_channels_are_those_that_can_be_removed() -> None:
    cost = cost_of("channels", MODEL, GRAPH)
    assert cost.total() == GRAPH.channels
    assert cost.total(PLAN) == GRAPH.channels - 3 - 4


def test_milliseconds_are_the_device_s() -> None:
    assert cost_of("latency", MODEL, GRAPH, TenToOne()).total() == pytest.approx(6 + 0.8 + 1.6)


@pytest.mark.parametrize("make", [Plain, Residual])
def test_without_a_device_milliseconds_are_estimated(make: Any) -> None:
    model = make().eval()
    graph = trace(model, EXAMPLE)
    group = graph.groups[0]
    plan = Plan({group.name: tuple(range(group.size // 2))})
    small = remove(model, graph, plan)
    measured = measured_cost(small, EXAMPLE)
    activations = sum(shape.activations for _, shape in layers_of(small, EXAMPLE))

    # 50 thousand million multiply-accumulates a second, and 20 thousand million bytes.
    expected = measured.macs / 50e6 + 4 * (measured.params + activations) / 20e6
    assert cost_of("latency", model, graph).total(plan) == pytest.approx(expected)


def test_weights_that_are_read_once_cost_more_than_their_multiplications() -> None:
    """A linear layer multiplies once with each of its weights, a convolution at every position."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 256, 10)
    )
    graph = trace(model.eval(), EXAMPLE)
    macs = cost_of("macs", model, graph).total()
    assert macs / 50e6 < 0.25 * cost_of("latency", model, graph).total()


def scores(seed: int) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    values = {
        group.name: torch.rand(group.size, generator=generator, dtype=torch.float64)
        for group in GRAPH.groups
    }
    return Scores(values, "made up")


@settings(deadline=None)
@given(
    st.integers(0, 99),
    st.floats(0.05, 0.9),
    st.sampled_from(["macs", "params", "memory", "channels", "latency"]),
    st.sampled_from([1, 2]),
)
def test_a_plan_saves_the_share_that_it_was_asked_for_and_no_channel_more(
    seed: int, share: float, currency: Any, round_to: int
) -> None:
    cost = cost_of(currency, MODEL, GRAPH, TenToOne())
    constraints = PlanConstraints(round_to=round_to)
    plan = choose(GRAPH, scores(seed), share, constraints=constraints, total_cost=cost.total)
    all_of_it = PlanConstraints(round_to=round_to, max_ratio=1.0)
    whole = choose(GRAPH, scores(seed), 0.999, constraints=all_of_it)
    allowed = (1 - share) * cost.total()
    if cost.total(whole) > allowed:
        assert plan == whole
        return
    assert cost.total(plan) <= allowed
    assert all(len(kept) % round_to == 0 for kept in plan.keep.values())


def test_what_costs_little_leaves_last() -> None:
    """Equal scores: a channel that costs ten times as much leaves first."""
    equal = Scores(
        {group.name: torch.ones(group.size, dtype=torch.float64) for group in GRAPH.groups}, "equal"
    )
    cost = cost_of("latency", MODEL, GRAPH, TenToOne())
    plan = choose(GRAPH, equal, 0.3, total_cost=cost.total)
    assert set(plan.keep) == {GRAPH.groups[0].name}
