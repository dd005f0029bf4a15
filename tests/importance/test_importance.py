"""The criteria against independent, direct computations of their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunedge.errors import PrunedgeError
from prunedge.graph import trace
from prunedge.importance import TaylorCollector, rank
from prunedge.models import build
from prunedge.train import make_engine
from tests.small_models import CONSTRUCTS, Plain, Residual, randomise

EXAMPLE = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


def direct_taylor(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Molchanov et al. 2017, by the letter: z is the output of each ReLU; one example at a time."""
    maps: list[tuple[str, torch.Tensor]] = []
    producers, current = {}, ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            current = name
        if isinstance(module, nn.ReLU):
            module.inplace = False
            producers[module] = current

    def keep(module: nn.Module, args: object, out: torch.Tensor) -> None:
        out.retain_grad()
        maps.append((producers[module], out))

    handles = [module.register_forward_hook(keep) for module in producers]
    totals: dict[str, torch.Tensor] = {}
    for x, y in zip(inputs, labels, strict=True):
        maps.clear()
        functional.cross_entropy(model(x[None]), y[None]).backward()
        for name, z in maps:
            assert z.grad is not None
            change = (z.grad * z).detach().double()[0]
            theta = change.flatten(1).mean(1).abs() if change.dim() == 3 else change.abs()
            totals[name] = totals.get(name, 0) + theta / len(inputs)
    for handle in handles:
        handle.remove()
    return totals


@pytest.mark.slow
def test_taylor_is_the_published_formula_on_vgg16() -> None:
    model = build("vgg16", 2, "none").eval()
    inputs = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 1, 1])
    graph = trace(model, inputs[:1])
    found = rank(model, graph, [(inputs[:2], labels[:2]), (inputs[2:], labels[2:])]).values
    wanted = direct_taylor(model, inputs, labels)
    assert found.keys() == wanted.keys()
    assert len(found) == 15
    for name, theta in wanted.items():
        torch.testing.assert_close(found[name], theta, rtol=1e-5, atol=1e-5 * float(theta.max()))


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_taylor_is_the_change_of_a_loss_when_a_channel_fades(construct: type[nn.Module]) -> None:
    """The slope of each example's loss as what the consumers read of one channel is scaled, by finite differences."""
    model = randomise(construct()).double().eval()
    inputs, labels = EXAMPLE.double(), LABELS % 2
    graph = trace(model, inputs[:1])
    found = rank(model, graph, [(inputs, labels)]).values
    weights = dict(model.named_parameters())
    for group in graph.groups:
        channel, eps, losses = group.size - 1, 1e-6, []
        for sign in (1, -1):
            for part in group.having("in"):
                index = torch.as_tensor(part.indices[channel])
                with torch.no_grad():
                    weights[part.tensor].index_copy_(
                        part.dim,
                        index,
                        weights[part.tensor].index_select(part.dim, index) * (1 + sign * eps),
                    )
            with torch.no_grad():
                losses.append(functional.cross_entropy(model(inputs), labels, reduction="none"))
            for part in group.having("in"):
                index = torch.as_tensor(part.indices[channel])
                with torch.no_grad():
                    weights[part.tensor].index_copy_(
                        part.dim,
                        index,
                        weights[part.tensor].index_select(part.dim, index) / (1 + sign * eps),
                    )
        slope = ((losses[0] - losses[1]) / (2 * eps)).abs().mean() / group.positions
        torch.testing.assert_close(found[group.name][channel], slope, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_taylor_does_not_depend_on_batches(construct: type[nn.Module]) -> None:
    model = randomise(construct())
    graph = trace(model, EXAMPLE[:1])
    labels = LABELS % 2
    whole = rank(model, graph, [(EXAMPLE, labels)]).values
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    parts = rank(
        model,
        graph,
        [(EXAMPLE[order[:1]], labels[order[:1]]), (EXAMPLE[order[1:]], labels[order[1:]])],
    ).values
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-7)


def test_a_channel_that_nothing_reads_scores_zero() -> None:
    model = randomise(Residual())
    with torch.no_grad():
        model.b.weight[:, 3] = 0
    values = rank(model, trace(model, EXAMPLE[:1]), [(EXAMPLE, LABELS)]).values["a"]
    assert values[3] == 0
    assert (values[[0, 1, 2, 4, 5]] > 0).all()


def test_taylor_sees_behind_a_frozen_backbone_and_leaves_gradients_alone() -> None:
    model = randomise(Residual())
    wanted = rank(model, trace(model, EXAMPLE[:1]), [(EXAMPLE, LABELS)]).values
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    graph = trace(model, EXAMPLE[:1])
    collector = TaylorCollector(graph)
    with collector.attach(model):
        collector.start_batch(len(EXAMPLE))
        functional.cross_entropy(model(EXAMPLE), LABELS).backward()
    for name, value in collector.result().values.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-8)
    assert model.stem.weight.grad is None
    assert model.head.weight.grad is not None
    assert not model.stem.weight.requires_grad


def test_weight_is_the_mean_square_over_all_that_make_the_channel() -> None:
    model = randomise(Residual())
    values = rank(model, trace(model, EXAMPLE[:1]), [], "weight-l2").values
    both = torch.cat([model.stem.weight[2].flatten(), model.b.weight[2].flatten()]).double()
    torch.testing.assert_close(values["stem"][2], both.square().mean().detach())
    torch.testing.assert_close(values["a"][1], model.a.weight[1].double().square().mean().detach())


def test_random_follows_its_seed() -> None:
    model = Residual()
    graph = trace(model, EXAMPLE[:1])
    one, same, other = (
        rank(model, graph, [], "random", seed=seed).values["a"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_unknown_criterion_names_the_known() -> None:
    with pytest.raises(PrunedgeError, match="taylor"):
        rank(Residual(), trace(Residual(), EXAMPLE[:1]), [], "tailor")


def test_the_collector_s_own_views_are_freed_without_the_garbage_collector() -> None:
    import gc

    model = randomise(Residual())
    collector = TaylorCollector(trace(model, EXAMPLE[:1]))

    def tensors() -> int:
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        with collector.attach(model):
            counts = []
            for _ in range(4):
                collector.start_batch(len(EXAMPLE))
                functional.cross_entropy(model(EXAMPLE), LABELS).backward()
                counts.append(tensors())
        assert counts[1] == counts[3]
    finally:
        gc.enable()


def test_consumers_whose_input_nobody_sees_are_read_off_their_weights() -> None:
    from tests.graph.test_constructs import CONSTRUCTS, IMAGE

    labels = torch.tensor([0, 1])
    for name in ("bare parameter", "standardised weights", "weight norm", "fused attention"):
        model = randomise(CONSTRUCTS[name])
        graph = trace(model, IMAGE)
        scores = rank(model, graph, [(IMAGE, labels)])
        assert set(scores.values) == {group.name for group in graph.groups}
        for group in graph.groups:
            assert bool((scores.values[group.name] > 0).any()), (
                name,
                group.name,
            )  # some are dead behind a ReLU
        assert all(parameter.grad is None for parameter in model.parameters())
    # One example a batch: read off the weights or off the activations, it is the same number.
    model = randomise(CONSTRUCTS["bare parameter"])
    graph = trace(model, IMAGE)
    blind = rank(model, graph, [(IMAGE[:1], labels[:1])]).values["first"]
    conv = torch.nn.Conv2d(12, 10, 1, bias=False)
    conv.weight = model.middle.weight
    seen = randomise(CONSTRUCTS["sum"])
    seen.first, seen.middle, seen.last, seen.head = model.first, conv, model.last, model.head
    graph = trace(seen, IMAGE)
    torch.testing.assert_close(
        rank(seen, graph, [(IMAGE[:1], labels[:1])]).values["first"], blind, rtol=1e-4, atol=1e-9
    )


def test_a_ranking_in_bfloat16_is_the_float32_one_but_for_rounding() -> None:
    model = randomise(Plain())
    graph, generator = trace(model, torch.randn(2, 3, 12, 12)), torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(16, 3, 12, 12, generator=generator), torch.arange(16) % 2) for _ in range(4)
    ]
    exact, rounded = (
        rank(model, graph, batches),
        rank(model, graph, batches, engine=make_engine("bf16")),
    )
    assert next(model.parameters()).dtype == torch.float32
    assert rounded.examples == exact.examples
    for name, values in exact.values.items():
        assert not torch.equal(values, rounded.values[name]), "it ran in bfloat16"
        torch.testing.assert_close(
            rounded.values[name], values, rtol=0.1, atol=float(values.max()) * 0.02
        )
