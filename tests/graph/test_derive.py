"""The graph that is derived through a surgery is the one that tracing the smaller model finds."""

from __future__ import annotations

import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from prunedge.graph import ChannelGraph, derive, trace
from prunedge.graph.observations import Read
from prunedge.graph.plan import Plan
from prunedge.pruning.select import random_plan
from prunedge.surgery import operate
from tests.small_models import randomise

EXAMPLE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def read_there(one: Read) -> tuple[object, ...]:
    return (
        one.module,
        one.site,
        one.off_path,
        [(dim, x.names, x.number.tolist(), x.channel.tolist(), axis) for dim, x, axis in one.sizes],
    )


def assert_same(found: ChannelGraph, wanted: ChannelGraph) -> None:
    """Two graphs are equal in everything, in the same order."""
    assert [group.name for group in found.groups] == [group.name for group in wanted.groups]
    for ours, theirs in zip(found.groups, wanted.groups, strict=True):
        assert (ours.size, ours.positions) == (theirs.size, theirs.positions)
        assert [(one.tensor, one.dim, one.role) for one in ours.slices] == [
            (one.tensor, one.dim, one.role) for one in theirs.slices
        ]
        for one, other in zip(ours.slices, theirs.slices, strict=True):
            assert np.array_equal(one.indices, other.indices)
            assert one.indices.dtype == other.indices.dtype
    assert [read_there(one) for one in found.reads] == [read_there(one) for one in wanted.reads]
    for field in fields(ChannelGraph):
        if field.name not in ("groups", "example", "statistics", "reshapes", "resizes", "reads"):
            assert getattr(found, field.name) == getattr(wanted, field.name), field.name


NAMES = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1")
LARGE = ("vgg11_bn", "vgg11", "densenet121", "googlenet", "regnet_y_400mf")


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_a_derived_graph_is_the_traced_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(torchvision.models.get_model(name, num_classes=3))
    graph = trace(model, EXAMPLE)
    for seed in range(2):  # twice: what is derived can be derived from
        surgery = operate(
            model, graph, random_plan(graph, 0.4, torch.Generator().manual_seed(seed))
        )
        wanted = trace(surgery.model, EXAMPLE)
        if graph.regular:
            with monkeypatch.context() as patched:
                patched.setattr(
                    sys.modules["prunedge.graph.derive"], "trace", lambda *_: pytest.fail("traced")
                )
                graph = derive(graph, surgery.plan, surgery.model)
        else:
            graph = derive(graph, surgery.plan, surgery.model)
        assert_same(graph, wanted)
        model = surgery.model
    assert graph.regular == (name != "regnet_y_400mf")


def test_what_treats_its_channels_by_their_number_is_traced_anew() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.second(self.first(x)).mean((2, 3))))

    model = Grouped()
    graph = trace(model, EXAMPLE)
    assert not graph.regular
    surgery = operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0)))
    assert surgery.plan.keep
    assert_same(derive(graph, surgery.plan, surgery.model), trace(surgery.model, EXAMPLE))


def test_a_single_channel_is_no_group_any_more() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    graph = trace(model, EXAMPLE)
    assert graph.regular
    surgery = operate(model, graph, Plan({"0": (2,)}))
    found = derive(graph, surgery.plan, surgery.model)
    assert [group.name for group in found.groups] == ["2"]
    assert_same(found, trace(surgery.model, EXAMPLE))


def test_a_model_of_another_shape_than_the_plan_says_is_traced() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    graph = trace(model, EXAMPLE)
    surgery = operate(model, graph, Plan({"0": (0, 1, 2)}))
    assert_same(derive(graph, Plan({"0": (0, 1)}), surgery.model), trace(surgery.model, EXAMPLE))
