"""Which example each row of a consumer's input belongs to, wherever a model keeps its examples."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from prunedge.errors import PrunedgeError, Undecided
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import CRITERIA, TaylorCollector, rank
from prunedge.importance.batch import count, picked
from prunedge.importance.consumer_hooks import ConsumerHooks
from prunedge.importance.folds import Fold
from tests.importance.folded import (
    FOLDED,
    CalledTwice,
    Normed,
    OneByOne,
    Queries,
    Sequence,
    SharedTable,
    Windows,
    WindowsFirst,
)
from tests.slow_cases import some_slow
from tests.small_models import randomise

LABELS = torch.tensor([0, 1, 2, 1])
PARTS = ([4], [1, 1, 1, 1], [2, 2], [3, 1])


def images(size: int = 16) -> torch.Tensor:
    return torch.randn(
        4, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )


def batches(inputs: torch.Tensor, sizes: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(inputs.split(sizes), LABELS.split(sizes), strict=True))


def first_order(
    model: nn.Module, graph: ChannelGraph, inputs: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The sum of z * dC/dz over consumers and places of each example, (examples, channels), from the weights: w * dC/dw is the same sum.

    One example at a time, so that nothing has to be told apart.
    """
    weights = dict(model.named_parameters())
    found: dict[str, list[torch.Tensor]] = {group.name: [] for group in graph.groups}
    for x, y in zip(inputs, LABELS, strict=True):
        model.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x[None]), y[None]).backward()
        for group in graph.groups:
            change = torch.zeros(group.size, dtype=torch.float64)
            for part in group.having("in"):
                weight = weights[part.tensor]
                if weight.grad is not None:
                    lines = (weight.detach() * weight.grad).movedim(part.dim, 0).flatten(1).sum(1)
                    change += lines[torch.as_tensor(part.indices)].sum(1)
            found[group.name].append(change)
    model.zero_grad(set_to_none=True)
    return {name: torch.stack(changes) for name, changes in found.items()}


def assert_direct(model: nn.Module, inputs: torch.Tensor) -> None:
    """taylor, fisher and taylor-fo are their formulas, however the examples are divided into batches."""
    graph = trace(model, inputs[:1])
    changes = first_order(model, graph, inputs)
    assert graph.groups
    assert all(bool(change.any()) for change in changes.values())
    wanted = {
        "taylor": {
            group.name: changes[group.name].abs().mean(0) / group.positions
            for group in graph.groups
        },
        "fisher": {name: change.square().mean(0) / 2 for name, change in changes.items()},
        "taylor-fo": {name: change.mean(0).square() for name, change in changes.items()},
    }
    for criterion, values in wanted.items():
        for sizes in PARTS:
            found = rank(model, graph, batches(inputs, sizes), criterion)
            assert found.examples == len(inputs)
            for name, value in values.items():
                torch.testing.assert_close(
                    found.values[name],
                    value,
                    rtol=1e-5,
                    atol=1e-5 * float(value.max()),
                    msg=f"{criterion} {name}",
                )


def assert_whole_batches_are_single_examples(model: nn.Module, inputs: torch.Tensor) -> None:
    """Every criterion gives the same for one batch as for batches of one, where nothing has to be told apart."""
    graph = trace(model, inputs[:1])
    for criterion in CRITERIA:
        if criterion in ("taylor-bn", "bn-scale") and not any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()
        ):
            continue
        whole, single = (
            rank(model, graph, batches(inputs, sizes), criterion) for sizes in ([4], [1, 1, 1, 1])
        )
        assert whole.values.keys() == single.values.keys(), criterion
        assert whole.values, criterion
        for name, value in whole.values.items():
            wanted = single.values[name]
            torch.testing.assert_close(
                value,
                wanted,
                rtol=1e-5,
                atol=1e-5 * float(wanted.abs().max()),
                msg=f"{criterion} {name}",
            )


@pytest.mark.parametrize("kind", FOLDED)
def test_the_taylor_family_is_the_direct_formula_wherever_the_examples_are(
    kind: type[nn.Module],
) -> None:
    torch.manual_seed(1)
    assert_direct(randomise(kind()).double(), images())


@pytest.mark.parametrize("kind", FOLDED)
def test_no_criterion_depends_on_batches_wherever_the_examples_are(kind: type[nn.Module]) -> None:
    torch.manual_seed(1)
    assert_whole_batches_are_single_examples(randomise(kind()).double(), images())


def small_swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=3,
        img_size=56,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 2),
    )


ZOO: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm swin": (small_swin, 56),
    "torchvision swin": (
        lambda: torchvision.models.SwinTransformer(
            [4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=3
        ),
        32,
    ),
    "torchvision vit": (
        lambda: torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 24, num_classes=3),
        32,
    ),
}
LARGER: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm davit": (
        lambda: timm.create_model(
            "davit_tiny",
            num_classes=3,
            embed_dims=(8, 16, 16, 16),
            num_heads=(2, 2, 2, 2),
            depths=(1, 1, 1, 1),
        ),
        56,
    ),
    "timm tnt": (
        lambda: timm.create_model("tnt_s_legacy_patch16_224", num_classes=3, img_size=32, depth=1),
        32,
    ),
    "timm swin_tiny": (
        lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=3, img_size=56),
        56,
    ),
    "timm swin v2": (
        lambda: timm.create_model(
            "swinv2_tiny_window8_256",
            num_classes=3,
            img_size=64,
            embed_dim=24,
            depths=(2, 2),
            num_heads=(2, 4),
        ),
        64,
    ),
    "timm maxvit": (
        lambda: timm.create_model("maxvit_rmlp_pico_rw_256", num_classes=3, img_size=64),
        64,
    ),
    "timm maxvit_tiny": (
        lambda: timm.create_model("maxvit_tiny_tf_224", num_classes=3, img_size=64),
        64,
    ),
    "timm mobilevit_xs": (lambda: timm.create_model("mobilevit_xs", num_classes=3), 64),
    "timm mobilevitv2": (lambda: timm.create_model("mobilevitv2_050", num_classes=3), 64),
    "timm tnt_s": (
        lambda: timm.create_model("tnt_s_legacy_patch16_224", num_classes=3, img_size=64),
        64,
    ),
    "timm davit_tiny": (lambda: timm.create_model("davit_tiny", num_classes=3), 64),
    "torchvision swin_v2_t": (lambda: torchvision.models.swin_v2_t(num_classes=3), 64),
}


def from_zoo(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(2)
    make, size = {**ZOO, **LARGER}[name]
    model = make().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or not bool(parameter.any()):
                parameter.add_(
                    torch.randn_like(parameter) * 0.1
                )  # heads and scales that start at zero would hide everything
    return model, images(size)


@pytest.mark.parametrize("name", some_slow(ZOO, ["timm swin"]))
def test_the_taylor_family_is_the_direct_formula_on_models_with_windows(name: str) -> None:
    assert_direct(*from_zoo(name))


@pytest.mark.parametrize("name", some_slow(ZOO, ["timm swin", "torchvision swin"]))
def test_no_criterion_depends_on_batches_on_models_with_windows(name: str) -> None:
    assert_whole_batches_are_single_examples(*from_zoo(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_all_criteria_are_right_on_larger_models_with_windows(name: str) -> None:
    model, inputs = from_zoo(name)
    assert_direct(model, inputs)
    assert_whole_batches_are_single_examples(model, inputs)


def test_a_parametrised_layer_is_judged_by_what_it_reads() -> None:
    torch.manual_seed(1)
    model, inputs = Normed().double().eval(), images()
    graph = trace(model, inputs[:1])
    group = next(group for group in graph.groups if group.name == "stem")
    read: list[torch.Tensor] = []
    watching = model.mid.register_forward_pre_hook(
        lambda module, args: read.append(args[0]) or args[0].retain_grad()
    )
    changes = []
    for x, y in zip(inputs, LABELS, strict=True):
        functional.cross_entropy(model(x[None]), y[None]).backward()
        z = read.pop()
        assert z.grad is not None
        changes.append((z * z.grad).detach().sum((0, 2, 3)))
    watching.remove()
    found = rank(model, graph, batches(inputs, [3, 1])).values["stem"]
    torch.testing.assert_close(
        found, torch.stack(changes).abs().mean(0) / group.positions, rtol=1e-5, atol=1e-12
    )


def test_activations_of_a_layer_that_is_called_twice_are_over_all_that_it_reads() -> None:
    model, inputs = randomise(CalledTwice()).double(), images()
    h = torch.relu(model.stem(inputs)).detach()
    # The layer reads h and a smaller map; the layer that shares its weight reads h squared, and is the same consumer.
    read = torch.cat(
        [one.movedim(1, 0).flatten(1) for one in (h, functional.avg_pool2d(h, 2), h * h)], 1
    )
    graph = trace(model, inputs[:1])
    values = {
        name: rank(model, graph, batches(inputs, [3, 1]), name).values["stem"]
        for name in ("activation-mean", "activation-std", "apoz")
    }
    torch.testing.assert_close(values["activation-mean"], read.abs().mean(1))
    torch.testing.assert_close(values["activation-std"], read.std(1, correction=0))
    torch.testing.assert_close(values["apoz"], (read != 0).double().mean(1))


def test_as_many_windows_as_examples_are_told_apart_in_either_order() -> None:
    inputs = images(8)  # four images, of four windows each
    orders = []
    for kind in (Windows, WindowsFirst):
        model = randomise(kind()).double()
        met: list[Fold | None] = []
        hooks = ConsumerHooks(trace(model, inputs[:1]), by_example=True)
        with (
            hooks.attached(model, lambda reading, z, met=met: met.append(reading.fold)),
            torch.no_grad(),
        ):  # type: ignore[misc]
            hooks.start(4)
            model(inputs)
        assert not hooks.undecided
        assert met[0] is not None
        orders.append((met[0].outer, met[0].inner))
    assert orders == [(1, 4), (4, 1)]


def test_equal_images_tell_nothing_and_are_ranked_one_by_one() -> None:
    model = randomise(WindowsFirst()).double()
    inputs = torch.ones(4, 3, 8, 8, dtype=torch.float64)
    assert_direct(model, inputs)
    hooks = ConsumerHooks(trace(model, inputs[:1]), by_example=True)
    with hooks.attached(model, lambda reading, z: None), torch.no_grad():
        hooks.start(4)
        model(inputs)
    assert "can't be told" in hooks.undecided


@pytest.mark.parametrize("kind", [Queries, SharedTable, OneByOne])
def test_what_all_examples_share_is_not_guessed(kind: type[nn.Module]) -> None:
    torch.manual_seed(1)
    model, inputs = randomise(kind()).double(), images()
    collector = TaylorCollector(trace(model, inputs[:1]))
    with collector.attach(model):
        collector.start_batch(4)
        functional.cross_entropy(model(inputs), LABELS).backward()
    assert "can't be told" in collector.undecided
    with pytest.raises(Undecided, match="can't be told apart"):
        collector.result()


class NormedWindows(WindowsFirst):
    """With a batch norm and dropout, which behave differently while training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.inner = self.stem
        self.stem = nn.Sequential(self.inner, self.norm, self.drop)


def test_while_training_the_examples_are_known_though_the_batch_norm_mixes_them() -> None:
    model = NormedWindows().double().train()
    inputs = images(8)
    graph = trace(model, inputs[:1])
    group = next(group for group in graph.groups if len(group.having("in")) == 2)
    read: dict[str, torch.Tensor] = {}
    collector = TaylorCollector(graph)
    with collector.attach(model):
        for name in ("query", "mlp"):
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: (
                    read.update({name: args[0]})
                    if torch.is_grad_enabled() and not args[0].retain_grad()
                    else None
                )  # type: ignore[misc]
            )
        torch.manual_seed(5)
        collector.start_batch(4)
        functional.cross_entropy(model(inputs), LABELS).backward()
    query, mlp = (
        (z * z.grad).detach() * 4 for z in (read["query"], read["mlp"]) if z.grad is not None
    )
    # Windows come first: (4 windows * 4 examples, places, channels).
    change = query.view(4, 4, -1, 8).sum((0, 2)) + mlp.sum((1, 2))
    torch.testing.assert_close(
        collector.result().values[group.name], change.abs().mean(0) / group.positions
    )


@pytest.mark.parametrize("kind", [NormedWindows, Sequence])
def test_asking_the_model_leaves_no_trace_in_a_training_step(kind: type[nn.Module]) -> None:
    inputs = images()
    states, drawn = [], []
    for watched in (False, True):
        torch.manual_seed(3)
        random.seed(3)
        model = kind().double().train()
        collector = TaylorCollector(trace(model, inputs[:1]))
        torch.manual_seed(4)
        if watched:
            with collector.attach(model):
                collector.start_batch(4)
                functional.cross_entropy(model(inputs), LABELS).backward()
            assert collector.result().examples == 4
        else:
            functional.cross_entropy(model(inputs), LABELS).backward()
        states.append(
            {
                **model.state_dict(),
                **{f"{n} gradient": p.grad for n, p in model.named_parameters()},
            }
        )
        drawn.append((torch.rand(1).item(), random.random()))
    assert drawn[0] == drawn[1]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-12, atol=1e-14, msg=name)


def test_batches_of_every_form_are_counted_and_taken_apart() -> None:
    x, y = torch.arange(6).view(3, 2), torch.tensor([0, 1, 2])
    assert (
        count((x, y))
        == count([x, y])
        == count({"a": None, "x": x, "y": y})
        == count(((x, x), y))
        == 3
    )
    images = [torch.zeros(3, 4, 5), torch.zeros(3, 6, 6)]
    assert count((images, [{}, {}])) == 2
    taken = picked(
        {"x": x, "more": {"y": y, "scale": torch.ones(2)}, "names": ["a", "b", "c"], "n": 3}, [2], 3
    )
    assert taken["x"].tolist() == [[4, 5]]
    assert taken["more"]["y"].tolist() == [2]
    assert taken["names"] == ["c"]
    assert taken["n"] == 3
    assert taken["more"]["scale"].shape == (2,)
    boxes = picked((images, [{"boxes": 1}, {"boxes": 2}]), [1], 2)
    assert boxes[0][0].shape == (3, 6, 6)
    assert boxes[1] == [{"boxes": 2}]
    with pytest.raises(PrunedgeError, match="may be the examples or their parts"):
        picked(([torch.zeros(2, 4), torch.zeros(2, 4)],), [0], 2)
    with pytest.raises(PrunedgeError, match="can't be counted"):
        count(object())
