"""What the channel graph finds in models of every kind, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import trace
from prunedge.models import build, cost
from tests.small_models import Dense, Mobile, Plain, Residual, Upward, randomise

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def table(model: nn.Module) -> dict[str, int]:
    return {group.name: group.size for group in trace(model, EXAMPLE).groups}


def test_a_residual_sum_ties_its_branches() -> None:
    graph = trace(Residual(), EXAMPLE)
    assert {g.name: g.size for g in graph.groups} == {"stem": 8, "a": 6, "down": 10}
    producers = {part.tensor for part in graph.group("stem").having("out")}
    assert producers == {"stem.weight", "b.weight"}
    assert {part.tensor for part in graph.group("stem").having("in")} == {
        "a.weight",
        "down.weight",
        "c.weight",
    }


def test_depthwise_and_gates_follow_their_channel() -> None:
    graph = trace(Mobile(), EXAMPLE)
    assert {g.name: g.size for g in graph.groups} == {"expand": 12, "squeeze": 6, "project": 8}
    places = {(part.tensor, part.indices.shape[1]) for part in graph.group("expand").slices}
    assert {
        ("depthwise.weight", 2),
        ("norm2.running_var", 2),
        ("excite.weight", 2),
        ("squeeze.weight", 2),
        ("project.weight", 2),
    } <= places


def test_concatenation_keeps_the_parts_apart_and_groups_lose_alike() -> None:
    graph = trace(Dense(), EXAMPLE)
    assert {g.name: g.size for g in graph.groups} == {"a": 8, "b": 4, "c": 2, "grouped": 3, "d": 6}
    consumers = {part.tensor: part.indices[0].tolist() for part in graph.group("b").having("in")}
    assert consumers == {"c.weight": [8], "d.weight": [20]}
    assert graph.group("c").having("out")[0].indices[1].tolist() == [1, 3, 5, 7]


def test_a_flattened_channel_owns_all_its_places() -> None:
    graph = trace(Plain(), EXAMPLE)
    consumer = graph.group("features.3").having("in")[0]
    assert consumer.indices[2].tolist() == list(range(18, 27))
    assert graph.group("features.3").positions == 36
    assert graph.group("classifier.0").size == 16


def test_a_branch_that_only_training_uses_consumes_too() -> None:
    model = Upward().eval()
    graph = trace(model, EXAMPLE)
    assert "auxiliary.weight" in {part.tensor for part in graph.group("a").having("in")}
    assert not model.training


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = randomise(Upward()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    trace(model, EXAMPLE)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_frozen_backbone_is_seen_like_any_other() -> None:
    model = Residual()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert table(model) == table(Residual())


def test_the_image_and_the_output_stay() -> None:
    reasons = {frozen.name: frozen.reason for frozen in trace(Plain(), EXAMPLE).frozen}
    assert "output" in reasons["classifier.3"]
    assert any("image" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda x: x.sort(1).values, "sort"),
        (lambda x: torch.fft.fft(x.permute(0, 2, 3, 1)).real.permute(0, 3, 1, 2), "follow"),
        (lambda x: x + torch.ones(8, 1, 1), "fixed size"),
        (lambda x: x.cumsum(1), "cumsum"),
    ],
)
def test_what_can_not_be_followed_is_frozen_with_the_reason(spoil, word: str) -> None:
    class Spoilt(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.down(spoil(torch.relu(self.norm(self.stem(x))))).mean((2, 3)))

    graph = trace(Spoilt(), EXAMPLE)
    assert "stem" not in {group.name for group in graph.groups}
    assert word in {frozen.name: frozen.reason for frozen in graph.frozen}["stem"]


def test_a_model_that_does_not_run_is_a_clear_error() -> None:
    with pytest.raises(GraphError, match="does not run"):
        trace(nn.Linear(5, 2), EXAMPLE)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "efficientnet_b0",
        "densenet121",
        "efficientnet_lite0",
        "vgg11_bn",
    ],
)
def test_known_models_are_prunable_throughout_and_cost_what_torch_counts(name: str) -> None:
    model = build(name, 2, "none")
    example = torch.randn(2, 3, 64, 64)
    graph = trace(model, example)
    measured = cost(model, example)
    assert (graph.macs(), graph.params()) == (measured.macs, measured.params)
    prunable = {part.tensor for group in graph.groups for part in group.slices}
    inside = sum(p.numel() for n, p in model.named_parameters() if n in prunable)
    assert inside > 0.99 * measured.params
    assert len(graph.frozen) == 2  # the image's channels and the classes
