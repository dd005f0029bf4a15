"""Whatever the plan, the pruned model equals the masked one; what can't be proven is left whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunedge.errors import SurgeryError, WeightsError
from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.models import build, cost
from prunedge.pruning.select import random_plan
from prunedge.surgery import adopt, operate, remove, slice_state
from tests.slow_cases import some_slow
from tests.small_models import CONSTRUCTS, Baked, Plain, Residual, randomise

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def masked(model: nn.Module, graph: ChannelGraph, plan: Plan) -> nn.Module:
    """The reference, written anew: zero what each consumer reads of the removed channels, nothing else."""
    import copy

    reference = copy.deepcopy(model)
    tensors = dict(reference.named_parameters())
    for group in graph.groups:
        gone = sorted(set(range(group.size)) - set(plan.keep.get(group.name, range(group.size))))
        for part in group.having("in"):
            with torch.no_grad():
                tensors[part.tensor].index_fill_(
                    part.dim, torch.as_tensor(part.indices[gone].ravel()), 0.0
                )
    return reference


def plans(graph: ChannelGraph, data: st.DataObject) -> Plan:
    keep = {}
    for group in graph.groups:
        stay = data.draw(st.sets(st.integers(0, group.size - 1), min_size=1), label=group.name)
        if len(stay) < group.size:
            keep[group.name] = tuple(sorted(stay))
    return Plan(keep)


@pytest.mark.parametrize("construct", CONSTRUCTS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_pruned_equals_masked_and_costs_what_was_predicted(
    construct: type[nn.Module], data: st.DataObject
) -> None:
    model = randomise(construct())
    graph = trace(model, EXAMPLE)
    plan = plans(graph, data)
    small = remove(model, graph, plan).eval()
    other = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(
            small(other), masked(model, graph, plan)(other), rtol=1e-4, atol=1e-5
        )
    found = cost(small, other)
    assert (found.macs, found.params) == (graph.macs(plan), graph.params(plan))
    left = {group.name: len(plan.keep.get(group.name, range(group.size))) for group in graph.groups}
    if min(left.values()) > 1:  # a single channel is no dimension of its own any more
        assert {group.name: group.size for group in trace(small, EXAMPLE).groups} == left


@pytest.mark.parametrize("construct", CONSTRUCTS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_plans_compose(construct: type[nn.Module], data: st.DataObject) -> None:
    model = randomise(construct())
    graph = trace(model, EXAMPLE)
    first = random_plan(
        graph, 0.3, torch.Generator().manual_seed(data.draw(st.integers(0, 99))), least=2
    )
    checkpoint = remove(model, graph, first)
    second_graph = trace(checkpoint, EXAMPLE)
    second = random_plan(
        second_graph, 0.4, torch.Generator().manual_seed(data.draw(st.integers(0, 99))), least=2
    )
    twice = remove(checkpoint, second_graph, second).state_dict()
    once = remove(model, graph, first.then(second)).state_dict()
    assert twice.keys() == once.keys()
    assert all(torch.equal(twice[name], once[name]) for name in once)


@pytest.mark.parametrize("share", some_slow([0.3, 0.7], [0.3]))
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "efficientnet_b0",
        "efficientnet_lite0",
        "densenet121",
        "vgg11",
        "vgg16_bn",
    ],
)
def test_known_models_equal_their_masked_selves(name: str, share: float) -> None:
    model = randomise(build(name, 2, "none"))
    example = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    graph = trace(model, example)
    plan = random_plan(graph, share, torch.Generator().manual_seed(2))
    surgery = operate(model, graph, plan)
    assert not surgery.refused
    wanted, found = masked(model, graph, plan)(example), surgery.model(example)
    assert wanted.abs().max() > 0
    assert (wanted - found).abs().max() <= 1e-4 * wanted.abs().max()
    measured = cost(surgery.model, example)
    assert (measured.macs, measured.params) == (graph.macs(plan), graph.params(plan))


def test_the_original_stays_as_it_was() -> None:
    model = randomise(Residual())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = trace(model, EXAMPLE)
    remove(model, graph, Plan({"a": (0, 2)}))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.a.out_channels == 6


def test_layers_know_their_new_sizes() -> None:
    model = randomise(Residual())
    small = remove(model, trace(model, EXAMPLE), Plan({"stem": (0, 2, 5), "a": (1,)}))
    assert (small.a.in_channels, small.a.out_channels, small.norm.num_features) == (3, 1, 3)


def test_a_size_written_in_python_is_found_by_the_proof_and_left_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = randomise(Baked(scaled=True))
    graph = trace(model, EXAMPLE)
    surgery = operate(model, graph, Plan({"a": (0, 1, 2), "b": (0, 1)}))
    assert list(surgery.refused) == ["a"]
    assert [record.getMessage() for record in caplog.records] == [
        f"left whole, could not be proven: {surgery.refused['a']} (a)"
    ]
    assert surgery.plan.keep == {"b": (0, 1)}
    assert surgery.model.a.out_channels == 8
    assert surgery.model.b.out_channels == 2
    with pytest.raises(SurgeryError, match="a: differs from the masked model"):
        remove(model, graph, Plan({"a": (0, 1)}))


def test_a_wrong_graph_is_caught() -> None:
    from dataclasses import replace

    model = randomise(Residual())
    graph = trace(model, EXAMPLE)
    group = graph.group("a")
    wrong = replace(
        group,
        slices=tuple(
            replace(p, indices=p.indices[::-1]) if p.role == "in" else p for p in group.slices
        ),
    )
    broken = replace(graph, groups=tuple(wrong if g.name == "a" else g for g in graph.groups))
    assert operate(model, broken, Plan({"a": (0, 1, 2)})).refused.keys() == {"a"}


def test_momentum_is_sliced_with_the_weights() -> None:
    model = randomise(Plain())
    graph = trace(model, EXAMPLE)
    state = {
        name: {"momentum_buffer": parameter.detach().clone()}
        for name, parameter in model.named_parameters()
    }
    plan = Plan({"features.3": (1, 4), "classifier.0": (0, 3, 15)})
    small = remove(model, graph, plan)
    sliced = slice_state(state, graph, plan)
    for name, parameter in small.named_parameters():
        assert torch.equal(sliced[name]["momentum_buffer"], parameter)


def test_all_of_adamw_s_state_is_sliced_with_the_weights() -> None:
    model = randomise(Plain())
    graph = trace(model, EXAMPLE)
    state = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        state[name] = {
            "exp_avg": value.clone(),
            "exp_avg_sq": value.square(),
            "step": torch.tensor(7.0),
        }
    plan = Plan({"features.3": (1, 4), "classifier.0": (0, 3, 15)})
    small = remove(model, graph, plan)
    sliced = slice_state(state, graph, plan)
    for name, parameter in small.named_parameters():
        assert torch.equal(sliced[name]["exp_avg"], parameter)
        assert torch.equal(sliced[name]["exp_avg_sq"], parameter.square())
        assert float(sliced[name]["step"]) == 7


def test_a_pruned_model_is_rebuilt_from_its_tensors() -> None:
    model = randomise(build("mobilenet_v2", 2, "none"))
    example = torch.randn(2, 3, 32, 32)
    graph = trace(model, example)
    small = remove(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(0))).eval()
    rebuilt = adopt(build("mobilenet_v2", 2, "none", seed=1), small.state_dict()).eval()
    assert torch.equal(rebuilt(example), small(example))


def test_weights_that_do_not_fit_are_named() -> None:
    state = Residual().state_dict()
    state["head.weight"] = torch.zeros(2, 99)
    del state["a.bias"]
    with pytest.raises(
        WeightsError, match=r"a\.bias: missing; head\.weight: \(2, 99\) does not fit \(2, 10\)"
    ):
        adopt(Residual(), state)


def test_plans_of_other_models_are_refused() -> None:
    graph = trace(Residual(), EXAMPLE)
    with pytest.raises(ValueError, match="doesn't have: b"):
        graph.kept(Plan({"b": (0,)}))
    group = graph.groups[0]
    with pytest.raises(ValueError, match=f"{group.name} doesn't have: it has {group.size}"):
        graph.kept(Plan({group.name: (0, group.size)}))
    with pytest.raises(ValueError, match="don't compose"):
        Plan({"a": (0, 1)}).then(Plan({"a": (0, 2)}))
