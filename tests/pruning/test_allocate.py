"""Which groups give channels where a cost is saved: the right widths, of drawn scores and costs."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.pruning.allocate import order_by_loss
from prunedge.pruning.select import PlanConstraints, choose


def chain(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 2))


def widths_after(plan: Plan, graph) -> list[int]:  # type: ignore[no-untyped-def]
    return [len(plan.keep.get(group.name, range(group.size))) for group in graph.groups]


GRAPH = trace(chain(32, 32, 32), torch.zeros(1, 3, 8, 8))


def equal_scores() -> Scores:
    return Scores({group.name: torch.ones(group.size) for group in GRAPH.groups}, "x")


def additive(prices: list[float]):  # type: ignore[no-untyped-def]
    def total(plan: Plan | None) -> float:
        sizes = (
            [group.size for group in GRAPH.groups] if plan is None else widths_after(plan, GRAPH)
        )
        return sum(price * size for price, size in zip(prices, sizes, strict=True))

    return total


def test_equal_channels_end_with_equal_costs_of_their_groups() -> None:
    # Of sum(log(width)) at a given sum(price * width) the maximum has equal price * width (Lagrange).
    prices = [1.0, 2.0, 4.0]
    plan = choose(GRAPH, equal_scores(), 0.75, total_cost=additive(prices))
    widths = widths_after(plan, GRAPH)
    assert sum(price * width for price, width in zip(prices, widths, strict=True)) == pytest.approx(
        56, rel=0.08
    )
    costs = [price * width for price, width in zip(prices, widths, strict=True)]
    assert max(costs) < 1.3 * min(costs)


@settings(max_examples=40, deadline=None)
@given(
    prices=st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
    remove=st.floats(0.1, 0.9),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_no_other_widths_of_the_same_cost_keep_clearly_more(
    prices: list[float], remove: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {
        group.name: torch.rand(group.size, generator=generator) + 0.05 for group in GRAPH.groups
    }
    total = additive(prices)
    plan = choose(GRAPH, Scores(scores, "x"), remove, total_cost=total)
    widths = widths_after(plan, GRAPH)
    assert total(plan) <= (1 - remove) * total(None) + 1e-9 or min(widths) == 2

    def kept(sizes: list[int]) -> float:
        value = 0.0
        for group, size in zip(GRAPH.groups, sizes, strict=True):
            best = scores[group.name].sort(descending=True).values[:size]
            value += log(float(best.sum() / scores[group.name].sum()))
        return value

    have = kept(widths)
    spent = total(plan)
    # One channel moved from a group to another.
    for giver in range(3):
        for taker in range(3):
            moved = list(widths)
            moved[giver] -= 1
            moved[taker] += 1
            if giver == taker or moved[giver] < 2 or moved[taker] > 32:
                continue
            cost = sum(price * size for price, size in zip(prices, moved, strict=True))
            if cost <= spent:
                assert kept(moved) <= have + 0.15


def test_the_least_important_of_a_group_go_first_and_the_order_is_one() -> None:
    scores = {group.name: torch.arange(1.0, group.size + 1) for group in GRAPH.groups}
    plan = choose(GRAPH, Scores(scores, "x"), 0.5, total_cost=additive([1.0, 1.0, 1.0]))
    for name, kept in plan.keep.items():
        assert kept == tuple(range(GRAPH.group(name).size - len(kept), GRAPH.group(name).size))
    assert plan == choose(GRAPH, Scores(scores, "x"), 0.5, total_cost=additive([1.0, 1.0, 1.0]))


def test_the_scale_of_a_group_s_scores_is_all_one() -> None:
    scores = {
        group.name: torch.rand(group.size, generator=torch.Generator().manual_seed(1))
        for group in GRAPH.groups
    }
    scaled = {name: value * 10.0**place for place, (name, value) in enumerate(scores.items())}
    total = additive([1.0, 3.0, 2.0])
    assert choose(GRAPH, Scores(scores, "x"), 0.6, total_cost=total) == choose(
        GRAPH, Scores(scaled, "x"), 0.6, total_cost=total
    )


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scores_that_tell_nothing_or_lie_below_zero_are_no_trouble(value: float) -> None:
    scores = {group.name: torch.full((group.size,), value) for group in GRAPH.groups}
    plan = choose(GRAPH, Scores(scores, "x"), 0.5, total_cost=additive([1.0, 1.0, 1.0]))
    assert widths_after(plan, GRAPH) == pytest.approx([16, 16, 16], abs=2)


def test_what_saves_nothing_stays_while_anything_else_may_go() -> None:
    plan = choose(GRAPH, equal_scores(), 0.5, total_cost=additive([1.0, 0.0, 1.0]))
    assert widths_after(plan, GRAPH)[1] == 32


def test_multiples_and_least_sizes_hold() -> None:
    limits = PlanConstraints(min_channels=5, round_to=8)
    plan = choose(
        GRAPH, equal_scores(), 0.9, constraints=limits, total_cost=additive([1.0, 2.0, 4.0])
    )
    assert all(width % 8 == 0 for width in widths_after(plan, GRAPH))
    assert min(widths_after(plan, GRAPH)) == 8


def test_a_bold_cut_empties_no_layer() -> None:
    # A wide layer whose channels are dear: 49 inputs of a linear layer each.
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(64 * 49, 256), nn.ReLU(),
        nn.Linear(256, 2),
    )  # fmt: skip
    graph = trace(model, torch.zeros(1, 3, 16, 16))
    scores = Scores({group.name: torch.ones(group.size) for group in graph.groups}, "x")
    plan = choose(graph, scores, 0.95, total_cost=graph.params)
    widths = widths_after(plan, graph)
    assert widths[0] >= 10
    assert widths[1] >= 25


def test_no_cost_at_all_ends() -> None:
    assert choose(GRAPH, equal_scores(), 0.5, total_cost=lambda plan: 0.0).keep is not None
    assert order_by_loss([], {}, lambda plan: 1.0, 0.5) == []
