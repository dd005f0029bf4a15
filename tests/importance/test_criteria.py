"""Every criterion: exact by its formula, and indifferent to what must not matter."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.nn import functional

from prunedge.config.criteria import CRITERION_NAMES
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import PrunedgeError
from prunedge.graph import ChannelGraph, Group, trace
from prunedge.importance import (
    CRITERIA,
    Scores,
    TaylorCollector,
    criterion_named,
    gather,
    normalised,
    rank,
)
from prunedge.importance.criteria import NORM_CRITERIA
from prunedge.importance.mutual_information import BINS, CELLS, cell, information, joined
from prunedge.importance.rank import gather_by
from prunedge.tasks import make_task
from tests.slow_cases import some_slow
from tests.small_models import CONSTRUCTS, Plain, Residual, randomise

GENERATOR = torch.Generator().manual_seed(0)
EXAMPLE = torch.randn(12, 3, 12, 12, generator=GENERATOR)
LABELS = torch.randint(0, 2, (12,), generator=GENERATOR)
BUILT_IN = tuple(CRITERIA)  # before any test registers its own
JUDGING = sorted(CRITERIA.keys() - {"random"})


def scores_of(
    model: nn.Module, name: str, order: torch.Tensor | None = None, batch: int = 12
) -> dict[str, torch.Tensor]:
    inputs, labels = (EXAMPLE, LABELS) if order is None else (EXAMPLE[order], LABELS[order])
    batches = list(zip(inputs.split(batch), labels.split(batch), strict=True))
    return dict(rank(model, trace(model, EXAMPLE[:2]), batches, name).values)


def test_the_help_lists_every_criterion_that_is_registered() -> None:
    assert set(CRITERION_NAMES) == set(BUILT_IN)
    assert len(CRITERION_NAMES) == len(BUILT_IN)


@pytest.mark.parametrize("name", some_slow(JUDGING, ["feature-distance"]))
@settings(max_examples=8, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_neither_order_nor_batch_size_matters(name: str, order: list[int], batch: int) -> None:
    model = randomise(Residual())
    whole, other = scores_of(model, name), scores_of(model, name, torch.tensor(order), batch)
    assert whole.keys() == other.keys()
    for group, value in whole.items():
        torch.testing.assert_close(other[group], value, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("name", sorted(name for name, one in CRITERIA.items() if one.collect))
def test_several_processes_gather_what_one_would(name: str) -> None:
    model = randomise(Residual())
    graph, whole = trace(model, EXAMPLE[:2]), scores_of(model, name)
    collectors = [CRITERIA[name].collect(graph) for _ in range(2)]
    for collector, part in zip(collectors, (slice(0, 5), slice(5, 12)), strict=True):
        gather_by(CRITERIA[name].reads, model, [(EXAMPLE[part], LABELS[part])], [collector])
    collectors[0].absorb(collectors[1])
    found = collectors[0].result()
    assert found.examples == 12
    for group, value in whole.items():
        torch.testing.assert_close(found.values[group], value, rtol=1e-3, atol=1e-9)


def permuted(model: nn.Module, group: Group, order: torch.Tensor) -> nn.Module:
    """The same function with the channels of one group in another order."""
    other = copy.deepcopy(model)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        for part in group.slices:
            tensor, places = tensors[part.tensor], torch.as_tensor(part.indices)
            values = tensor.clone()
            tensor.index_copy_(
                part.dim, places.flatten(), values.index_select(part.dim, places[order].flatten())
            )
    return other


@pytest.mark.parametrize("name", JUDGING)
def test_the_order_of_channels_does_not_matter(name: str) -> None:
    model = randomise(Residual())
    found = scores_of(model, name)
    group = trace(model, EXAMPLE[:2]).group(next(iter(found)))
    order = torch.randperm(group.size, generator=torch.Generator().manual_seed(2))
    other = scores_of(permuted(model, group, order), name)
    for key, value in found.items():
        torch.testing.assert_close(
            other[key], value[order] if key == group.name else value, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("name", sorted(set(JUDGING) - {"fpgm"}))
def test_a_channel_that_is_zero_scores_lowest(name: str) -> None:
    model = randomise(Residual())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for part in trace(model, EXAMPLE[:2]).group("stem").slices:
        if part.role != "in":
            with torch.no_grad():
                tensors[part.tensor].index_fill_(part.dim, torch.as_tensor(part.indices[3]), 0)
    value = scores_of(model, name)["stem"]
    assert value[3] == value.min()
    assert (value >= 0).all()
    assert value.max() > 0


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_gradient_criteria_come_from_the_gate_of_each_example(construct: type[nn.Module]) -> None:
    """c_n by scaling what the consumers read of a channel, example by example, with autograd alone."""
    model = randomise(construct()).double().eval()
    inputs, labels = EXAMPLE[:4].double(), LABELS[:4]
    graph = trace(model, inputs[:2])
    found = {
        name: rank(model, graph, [(inputs, labels)], name).values
        for name in ("taylor", "taylor-fo", "fisher")
    }
    for group in graph.groups:
        change = torch.stack(
            [
                gate_gradient(model, group, x[None], y[None])
                for x, y in zip(inputs, labels, strict=True)
            ]
        )
        wanted = {
            "taylor": change.abs().mean(0) / group.positions,
            "taylor-fo": change.mean(0).square(),
            "fisher": change.square().mean(0) / 2,
        }
        for name, value in wanted.items():
            torch.testing.assert_close(found[name][group.name], value, rtol=1e-4, atol=1e-9)


def gate_gradient(
    model: nn.Module, group: Group, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """dC/dg of a gate g at the consumers of each channel, (channels,)."""
    outputs, gate = gated(model, group, inputs)
    return torch.autograd.grad(functional.cross_entropy(outputs, labels), gate)[0]


def gated(
    model: nn.Module, group: Group, inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model gives with a gate at the consumers of each channel, and the gate."""
    gate = torch.ones(group.size, dtype=torch.float64, requires_grad=True)
    tensors = {name: value.detach() for name, value in model.named_parameters()}
    for part in group.having("in"):
        scale = torch.ones(tensors[part.tensor].shape[part.dim], dtype=torch.float64)
        for column in torch.as_tensor(part.indices).T:
            scale = scale.index_put((column,), gate)
        shape = [-1 if d == part.dim else 1 for d in range(tensors[part.tensor].dim())]
        tensors[part.tensor] = tensors[part.tensor] * scale.reshape(shape)
    return torch.func.functional_call(model, tensors, (inputs,)), gate


@pytest.mark.parametrize("construct", some_slow(CONSTRUCTS[:3], CONSTRUCTS[1:3]))
def test_the_feature_distance_is_how_far_all_outputs_move(
    construct: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many directions it comes to || J z ||^2, which autograd gives output by output."""
    monkeypatch.setattr("prunedge.importance.features.PROBES", 256)
    model = randomise(construct()).double().eval()
    inputs = EXAMPLE[:3].double()
    graph = trace(model, inputs[:2])
    found = rank(model, graph, [inputs], "feature-distance").values
    for group in graph.groups:
        wanted = torch.zeros(group.size, dtype=torch.float64)
        for x in inputs:
            outputs, gate = gated(model, group, x[None])
            for output in outputs.flatten():
                moved = torch.autograd.grad(output, gate, retain_graph=True)[0]
                wanted += moved.square() / len(inputs)
        torch.testing.assert_close(found[group.name], wanted, rtol=0.4, atol=1e-9)
        assert float((found[group.name] / wanted.clamp(1e-12)).mean()) == pytest.approx(1, abs=0.1)


def test_features_need_no_labels_and_no_loss() -> None:
    model = randomise(Residual())
    graph = trace(model, EXAMPLE[:2])
    alone = rank(model, graph, [EXAMPLE], "feature-distance")
    beside = rank(model, graph, [(EXAMPLE, LABELS)], "feature-distance")
    assert alone.examples == beside.examples == 12
    for name, value in alone.values.items():
        assert torch.equal(value, beside.values[name])
    with pytest.raises(PrunedgeError, match="does not hang on any channel"):
        rank(Silent(), trace(model, EXAMPLE[:2]), [EXAMPLE], "feature-distance")


class Silent(Residual):
    """A model whose answer hangs on nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        return torch.zeros(len(x), 2)


def test_the_first_order_is_the_oracle_where_everything_is_linear() -> None:
    model = randomise(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 64, 3))
    ).double()
    inputs = EXAMPLE.double()
    coefficients = torch.randn(
        12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    graph = trace(model, inputs[:2])

    def loss() -> torch.Tensor:
        return (model(inputs) * coefficients).sum(1).mean()

    collector = TaylorCollector(graph, "signed")
    with collector.attach(model):
        collector.start_batch(len(inputs))
        loss().backward()
    found, before = collector.result().values, float(loss().detach())
    weights = dict(model.named_parameters())
    for group in graph.groups:
        for channel in range(group.size):
            kept = {
                part.tensor: weights[part.tensor].detach().clone() for part in group.having("in")
            }
            with torch.no_grad():
                for part in group.having("in"):
                    weights[part.tensor].index_fill_(
                        part.dim, torch.as_tensor(part.indices[channel]), 0
                    )
                assert float(found[group.name][channel]) == pytest.approx(
                    float(loss().detach()) - before, rel=1e-6, abs=1e-9
                )
                for name, value in kept.items():
                    weights[name].copy_(value)


def test_taylor_bn_is_the_product_of_the_norm_with_its_gradient() -> None:
    model = randomise(Residual()).eval()
    found = scores_of(model, "taylor-bn")
    assert list(found) == ["stem"]
    functional.cross_entropy(model(EXAMPLE), LABELS).backward()
    norm = model.norm
    wanted = (norm.weight * norm.weight.grad + norm.bias * norm.bias.grad).square()
    torch.testing.assert_close(found["stem"], wanted.detach().double(), rtol=1e-3, atol=1e-12)


def test_activations_against_a_direct_computation() -> None:
    model = randomise(Plain()).eval()
    with torch.no_grad():
        maps = model.features[:3](EXAMPLE).double()  # what the second convolution reads
    assert type(model.features[3]) is nn.Conv2d
    wanted = {
        "activation-mean": maps.abs().mean((0, 2, 3)),
        "activation-std": maps.transpose(0, 1).flatten(1).std(1, unbiased=False),
        "apoz": (maps != 0).double().mean((0, 2, 3)),
        "mutual-information": torch.tensor(
            [direct_information(values, LABELS) for values in maps.mean((2, 3)).T]
        ).double(),
    }
    for name, value in wanted.items():
        torch.testing.assert_close(
            scores_of(model, name)["features.0"], value, rtol=1e-5, atol=1e-7
        )
    with torch.no_grad():
        answers = model(EXAMPLE).argmax(1)
    wanted_prediction = torch.tensor(
        [direct_information(values, answers) for values in maps.mean((2, 3)).T]
    ).double()
    torch.testing.assert_close(
        scores_of(model, "mutual-information-prediction")["features.0"],
        wanted_prediction,
        rtol=1e-5,
        atol=1e-7,
    )


def test_what_a_channel_tells_about_several_labels_is_the_sum_over_them() -> None:
    model = randomise(Plain()).eval()
    spec = TaskSpec(name="multilabel", classes=("crack", "rust"), size=(16, 16))
    targets = torch.stack((LABELS, torch.arange(len(LABELS)) % 3 == 0), 1).float()
    batches = [(EXAMPLE[:3], targets[:3]), (EXAMPLE[3:], targets[3:])]
    graph = trace(model, EXAMPLE[:2])
    with torch.no_grad():
        maps = model.features[:3](EXAMPLE).double()
        answers = (model(EXAMPLE) > 0).long()
    means = maps.mean((2, 3)).T

    for name, truth in (
        ("mutual-information", targets.long()),
        ("mutual-information-prediction", answers),
    ):
        wanted = sum(
            torch.tensor([direct_information(values, column) for values in means]).double()
            for column in truth.T
        )
        found = rank(model, graph, batches, name, task=make_task(spec))
        torch.testing.assert_close(found.values["features.0"], wanted, rtol=1e-5, atol=1e-7)


def direct_information(values: torch.Tensor, labels: torch.Tensor) -> float:
    """With one example in each cell and few examples, the bins hold equal counts of the sorted values."""
    table = np.zeros((1, CELLS, int(labels.max()) + 1), dtype=np.int64)
    for place, label in zip(cell(values).tolist(), labels.tolist(), strict=True):
        table[0, place, label] += 1
    return float(
        mutual_info_score(None, None, contingency=joined(torch.as_tensor(table))[0].numpy())
    )


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=2, max_size=6).filter(
        lambda rows: sum(map(sum, rows)) > 0
    )
)
def test_information_is_scikit_learns(rows: list[list[int]]) -> None:
    wanted = mutual_info_score(None, None, contingency=np.array(rows))
    assert float(information(torch.tensor([rows]))[0]) == pytest.approx(wanted, abs=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 400))
def test_joined_cells_keep_their_counts_and_order(seed: int, examples: int) -> None:
    values = torch.randn(examples, 3, generator=torch.Generator().manual_seed(seed)).double()
    cells = cell(values)
    assert bool(((values[:, None] < values[None]) <= (cells[:, None] <= cells[None])).all())
    counts = torch.zeros(3, CELLS, 1, dtype=torch.int64)
    for channel in range(3):
        counts[channel, :, 0] = torch.bincount(cells[:, channel], minlength=CELLS)
    bins = joined(counts)
    assert bins.shape == (3, BINS, 1)
    assert (bins.sum((1, 2)) == examples).all()


def test_fpgm_prefers_what_others_cannot_stand_in_for() -> None:
    model = randomise(Plain())
    found = scores_of(model, "fpgm")["features.0"]
    filters = model.features[0].weight.detach().double().flatten(1)
    wanted = torch.stack([(filters - one).norm(dim=1).sum() for one in filters])
    torch.testing.assert_close(found, wanted)


def test_bn_scale_judges_only_what_passes_a_norm() -> None:
    model = randomise(Residual())
    found = scores_of(model, "bn-scale")
    torch.testing.assert_close(found["stem"], model.norm.weight.detach().double().abs())


@pytest.mark.parametrize("name", NORM_CRITERIA)
def test_criteria_of_norms_say_that_a_model_has_none(name: str) -> None:
    said = f"the criterion '{name}' reads batch norms, and this model has none: use another, such as taylor"
    model = randomise(Plain())
    with pytest.raises(PrunedgeError, match=said):
        scores_of(model, name)
    graph = trace(model, EXAMPLE[:2])
    if (collect := CRITERIA[name].collect) is not None:
        with pytest.raises(PrunedgeError, match=said):
            gather(model, [(EXAMPLE, LABELS)], [collect(graph)])
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", NORM_CRITERIA)
def test_norms_without_scales_and_those_of_other_channels_are_none_to_read(name: str) -> None:
    said = f"the criterion '{name}' reads batch norms, and none of this model's scales a channel that could be pruned"
    conv, rest = (
        nn.Conv2d(3, 4, 3),
        (nn.ReLU(), nn.Conv2d(4, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    without_scale = nn.Sequential(conv, nn.BatchNorm2d(4, affine=False), *rest)
    of_the_images = nn.Sequential(nn.BatchNorm2d(3), conv, *rest)  # whose channels no one prunes
    for model in (without_scale, of_the_images):
        with pytest.raises(PrunedgeError, match=said):
            scores_of(model, name)


@pytest.mark.parametrize("how", ["none", "l2", "mean", "rank"])
@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e6), min_size=1, max_size=9), st.floats(1e-3, 1e3))
def test_normalised_scores_keep_their_order_and_lose_their_scale(
    how: str, values: list[float], factor: float
) -> None:
    value = torch.tensor(values, dtype=torch.float64)
    one, other = normalised({"a": value}, how)["a"], normalised({"a": value * factor}, how)["a"]
    assert bool((one.diff().sign() * value.diff().sign() >= 0).all()) or how == "rank"
    if how in ("l2", "mean"):
        torch.testing.assert_close(one, other)
    assert torch.isfinite(one).all()


def test_a_function_becomes_a_criterion() -> None:
    from prunedge import criterion

    @criterion("mine")
    def mine(
        model: nn.Module, graph: ChannelGraph, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        return {group.name: torch.arange(group.size).double() for group in graph.groups[:1]}

    try:
        found = rank(Residual(), trace(Residual(), EXAMPLE[:2]), [], "mine")
        assert isinstance(found, Scores)
        assert list(found.values) == ["stem"]
    finally:
        del CRITERIA["mine"]


def test_functions_of_activations_and_of_first_order_changes_become_criteria() -> None:
    """Written by hand, two built-in criteria come out the same."""
    from prunedge import criterion

    criterion("my-mean", reads="activations")(lambda values: values.abs().mean(2))
    criterion("my-fisher", reads="gradients")(lambda changes: changes.square() / 2)
    try:
        model = randomise(Residual())
        for mine, built_in in (("my-mean", "activation-mean"), ("my-fisher", "fisher")):
            found, wanted = scores_of(model, mine, batch=5), scores_of(model, built_in)
            assert found.keys() == wanted.keys()
            for group, value in wanted.items():
                torch.testing.assert_close(found[group], value, rtol=1e-3, atol=1e-9)
    finally:
        del CRITERIA["my-mean"], CRITERIA["my-fisher"]


@pytest.mark.parametrize(
    ("reads", "function", "said"),
    [
        (
            "weights",
            lambda model, graph, generator: {"stem": torch.ones(1)},
            r"gave \(1,\) for the group 'stem': 8 finite",
        ),
        (
            "weights",
            lambda model, graph, generator: {"nowhere": torch.ones(1)},
            "no such group expected",
        ),
        ("activations", lambda values: values.mean(), "one number for each example and channel"),
        ("gradients", lambda changes: changes / 0, "not finite"),
    ],
)
def test_a_function_that_gives_the_wrong_numbers_is_told_so(
    reads: str, function: object, said: str
) -> None:
    from prunedge import criterion

    criterion("wrong", reads=reads)(function)
    try:
        with pytest.raises(PrunedgeError, match=said):
            scores_of(randomise(Residual()), "wrong")
    finally:
        del CRITERIA["wrong"]


def test_a_criterion_of_the_user_s_own_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scores.py").write_text(
        "import prunedge as pe\n"
        "@pe.criterion('peak', reads='activations')\n"
        "def peak(values):\n    return values.amax(2)\n"
        "def first(model, graph, generator):\n"
        "    return {group.name: model.head.weight.new_ones(group.size) for group in graph.groups}\n"
        "size = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    model, before = randomise(Residual()), set(CRITERIA)
    try:
        assert (
            scores_of(model, "own_scores:peak").keys()
            == scores_of(model, "own_scores:first").keys()
        )
        assert criterion_named("own_scores:peak").reads == "activations"
        with pytest.raises(PrunedgeError, match="own_scores has no criterion 'size'"):
            criterion_named("own_scores:size")
        with pytest.raises(PrunedgeError, match="can't import nowhere"):
            criterion_named("nowhere:first")
    finally:
        for name in set(CRITERIA) - before:
            del CRITERIA[name]


def test_what_a_channel_tells_about_the_class_is_counted_in_a_model_of_a_million_classes() -> None:
    # Whole, the histograms of 16 channels would take 66 GB.
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 1_000_000),
    )
    images = torch.randn(24, 3, 8, 8)
    graph = trace(net, images[:2])
    with torch.no_grad():
        maps, answers = net[:2](images), net(images).argmax(1)
    _, few = answers.unique(return_inverse=True)
    wanted = torch.tensor(
        [direct_information(values, few) for values in maps.mean((2, 3)).T]
    ).double()
    found = rank(net, graph, [images[:10], images[10:]], "mutual-information-prediction")
    torch.testing.assert_close(found.values["0"], wanted)
