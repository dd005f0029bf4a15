"""Tracing and surgery know more of a module's code than evaluation runs, and leave the module as it was."""

from __future__ import annotations

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.graph import trace
from prunedge.graph.branches import other_methods
from prunedge.graph.plan import Plan
from prunedge.graph.preserve import undisturbed
from prunedge.pruning.select import random_plan
from prunedge.surgery import adopt, operate, sizes_of
from tests.slow_cases import some_slow
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Split(nn.Module):
    """Two halves, by chunk in forward and by a size of its own in the method that exporters take."""

    def __init__(self) -> None:
        super().__init__()
        self.c = 6
        self.a, self.b, self.head = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(12, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).chunk(2, 1)
        return self.head(torch.cat((left, self.b(right)), 1))

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).split((self.c, self.c), 1)
        return self.head(torch.cat((left, self.b(right)), 1))


class Sized(Split):
    """The same with both sizes in one attribute, and a window that is as large by accident."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.window = [6, 6], 6

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).split(self.parts, 1)
        return self.head(torch.cat((left, self.b(right)), 1))


class Biased(nn.Module):
    """Attention with a table of biases by heads, which it gathers once and keeps while it evaluates (LeViT)."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when, self.cache = when, {}
        self.first, self.qkv, self.proj, self.head = (
            nn.Conv2d(3, 12, 2, 2),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.Linear(12, 2),
        )
        self.biases = nn.Parameter(torch.randn(3, 16))
        self.register_buffer("places", (torch.arange(16)[:, None] - torch.arange(16)).abs())

    def train(self, mode: bool = True) -> Biased:
        super().train(mode)
        if mode:
            self.cache = {}
        elif self.when == "eval":
            self.cache = {"biases": self.biases[:, self.places]}
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(y).view(len(x), 16, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        biases = self.cache.get("biases")
        if biases is None:
            biases = self.biases[:, self.places]
            if not self.training:
                self.cache["biases"] = biases
        y = (
            ((q @ k.transpose(-1, -2) / 2 + biases).softmax(-1) @ v)
            .transpose(1, 2)
            .reshape(len(x), 16, -1)
        )
        return self.head((self.proj(y) + self.first(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("when", ["forward", "eval"])
def test_tables_that_evaluation_keeps_are_made_anew(when: str) -> None:
    model = randomise(Biased(when))
    cold = trace(model, IMAGE)
    assert {group.name: group.size for group in cold.groups} == {"first": 12, "qkv": 3}
    with torch.no_grad():
        model(IMAGE)
    warm = trace(model, IMAGE)
    assert [(group.name, group.size) for group in warm.groups] == [
        (group.name, group.size) for group in cold.groups
    ]
    kept = model.cache["biases"]
    surgery = operate(model, warm, Plan({"qkv": (0, 2), "first": (0, 1, 2, 5, 7)}))
    assert surgery.refused == {}
    assert surgery.difference < 1e-6
    assert model.cache["biases"] is kept
    assert not model.training
    again = adopt(model, surgery.model.state_dict(), sizes_of(surgery.model))
    torch.testing.assert_close(again(IMAGE), surgery.model(IMAGE))


class AtLargeImages(nn.Module):
    """A layer that has something to do at larger images only, and one in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 12, 1),
            nn.Conv2d(12, 12, 1),
            nn.Conv2d(12, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        y = y + self.b(y) if x.shape[-1] > 10 else y
        return self.head(y + self.c(y) if self.training else y)


class Assisted(nn.Module):
    """Has an auxiliary head that only training uses, and a table that nothing does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.side, self.idle = (
            nn.Conv2d(3, 12, 1),
            nn.Conv2d(12, 2, 1),
            nn.Conv2d(12, 2, 1),
            nn.Conv2d(4, 4, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        y = self.a(x).reshape(n, 3, 4, h, w).transpose(1, 2).reshape(n, 12, h, w)
        return self.head(y) + self.side(y) if self.training else self.head(y)


class Plain(nn.Module):
    """Does the same in training."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.a, self.middle, self.head = nn.Conv2d(3, 12, 1), middle, nn.Conv2d(12, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.a(x)))


class Masks(nn.Module):
    """Drops whole blocks of four channels in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        n, c, h, w = x.shape
        return (x.view(n, c // 4, 4, h, w) * (torch.rand(n, 1, 1, 1, 1) < 0.5)).view(n, c, h, w)


@pytest.mark.parametrize(
    ("model", "evaluated", "trained"),
    [
        (
            Assisted(),
            3,
            1,
        ),  # with labels, at another size for what is idle, and larger; in training with labels
        (
            Plain(nn.Sequential(nn.BatchNorm2d(12), nn.ReLU())),
            1,
            0,
        ),  # nothing that any other way could change
        (
            Plain(Masks()),
            2,
            2,
        ),  # with labels and larger; in training, and again with labels for what is new there
    ],
)
def test_tracing_passes_each_way_no_more_often_than_it_must(
    model: nn.Module, evaluated: int, trained: int
) -> None:
    passes: list[bool] = []
    randomise(model).register_forward_pre_hook(lambda module, args: passes.append(module.training))
    trace(model, IMAGE)
    assert (passes.count(False), passes.count(True)) == (evaluated, trained)


class OtherHalf(nn.Module):
    """Looks at other channels in training than in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head, self.side = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        return self.head(y) + self.side(y[:, 7:] if self.training else y[:, :5])


@pytest.mark.parametrize("share", some_slow([0.3, 0.6], [0.3]))
@pytest.mark.parametrize("kind", [AtLargeImages, OtherHalf])
def test_what_other_ways_demand_of_channels_is_known_before_the_plan(
    kind: type[nn.Module], share: float
) -> None:
    model = randomise(kind())
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, random_plan(graph, share, torch.Generator().manual_seed(1)))
    assert surgery.refused == {}
    assert "a" in surgery.plan.keep
    small = surgery.model
    assert small.eval()(torch.randn(1, 3, 16, 16)).shape == (1, 2, 16, 16)
    small.train()(IMAGE).square().mean().backward()


class OneSize(OtherHalf):
    """The same for images of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 1, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self.place)


def test_ways_that_the_whole_model_does_not_take_are_not_asked_of_the_smaller_one() -> None:
    model = randomise(OneSize())
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, random_plan(graph, 0.5, torch.Generator().manual_seed(1)))
    assert surgery.refused == {}
    assert "a" in surgery.plan.keep
    surgery.model.train()(IMAGE).square().mean().backward()


class Written(Split):
    """The same with the sizes written down: no attribute puts that right."""

    def forward_split(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).split((6, 6), 1)
        return self.head(torch.cat((left, self.b(right)), 1))


def first_half(model: nn.Module) -> Plan:
    """Some of the halves' channels, and others of the layer between."""
    return random_plan(trace(model, IMAGE), 0.4, torch.Generator().manual_seed(3), least=2)


@pytest.mark.parametrize("kind", [Split, Sized, Written])
def test_a_method_beside_forward_answers_as_forward_does(kind: type[Split]) -> None:
    model = randomise(kind())
    surgery = operate(model, trace(model, IMAGE), first_half(model))
    assert surgery.refused == {}
    assert surgery.plan.keep
    small = surgery.model.eval()
    torch.testing.assert_close(small.forward_split(IMAGE), small(IMAGE))
    small.forward = small.forward_split  # what ultralytics' exporter does
    again = copy.deepcopy(small)
    with torch.no_grad():
        small.head.weight.zero_()
    torch.testing.assert_close(again(IMAGE), again.forward_split(IMAGE))
    assert not torch.allclose(again(IMAGE), small(IMAGE))


def test_sizes_that_a_method_beside_forward_reads_are_mended_and_no_others() -> None:
    small = operate(split := randomise(Split()), trace(split, IMAGE), first_half(split)).model
    assert sizes_of(small) == {"c": small.a.out_channels // 2}
    assert small.c < 6
    small = operate(model := randomise(Sized()), trace(model, IMAGE), first_half(model)).model
    width = small.a.out_channels // 2
    assert (small.parts, small.window) == ([width, width], 6)
    again = adopt(Sized(), small.state_dict(), sizes_of(small)).eval()
    torch.testing.assert_close(again.forward_split(IMAGE), small.eval()(IMAGE))


def test_a_method_that_was_put_in_forward_s_place_is_pruned_and_pruned_again() -> None:
    model = randomise(Written())
    model.forward = model.forward_split
    surgery = operate(model, trace(model, IMAGE), first_half(model))
    assert surgery.refused == {}
    second = operate(surgery.model, trace(surgery.model, IMAGE), first_half(surgery.model))
    assert second.refused == {}
    assert second.model.a.out_channels < surgery.model.a.out_channels
    small = second.model.eval()
    del small.forward
    torch.testing.assert_close(small(IMAGE), small.forward_split(IMAGE))


def test_a_function_bound_to_the_object_is_pinned_too() -> None:
    def other(self: Split, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).split((6, 6), 1)
        return self.head(torch.cat((right, self.b(left)), 1))

    model = randomise(Split())
    model.forward = other.__get__(model)
    surgery = operate(model, trace(model, IMAGE), first_half(model))
    assert surgery.refused == {}
    assert copy.deepcopy(surgery.model).eval()(IMAGE).shape == (2, 2, 8, 8)


def test_a_part_of_forward_is_no_way_beside_it_and_can_be_called_by_itself() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 12, 1), nn.Linear(12, 4), nn.Linear(4, 2)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).reshape(len(x), 12, -1).mean(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.forward_features(x))

    model = randomise(Parts())
    assert other_methods(model) == {}
    small = operate(model, trace(model, IMAGE), Plan({"a": (1, 4, 5)})).model.eval()
    torch.testing.assert_close(small.head(small.forward_features(IMAGE)), small(IMAGE))


class Forgetful(nn.Module):
    """Keeps all kinds of things from one forward to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("grid", torch.zeros(1, 1, 1, 1))
        self.register_buffer("count", torch.zeros(()))
        self.shape, self.calls, self.last, self.table, self.seen = None, 0, None, {}, [1]
        self.holder = SimpleNamespace(rows=None)
        self.pair = (torch.zeros(2), {"x": torch.zeros(2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.shape != x.shape:
            self.shape = x.shape
            self.grid = torch.arange(float(x.shape[2] * x.shape[3])).view(1, 1, *x.shape[2:]) / 100
            self.table[tuple(x.shape)] = self.grid * 2
            self.holder.rows = self.grid.view(-1)
        self.calls += 1
        self.seen.append(self.calls)
        self.count += 1
        self.pair[0].add_(1)
        self.pair[1]["x"] += 1
        x = self.a(x)
        self.last = x
        return self.b(x.view(len(x), 8, *self.shape[2:]) + self.grid)


def state(module: Forgetful) -> list[object]:
    return [
        module.grid.clone(),
        module.count.clone(),
        module.shape,
        module.calls,
        module.last,
        dict(module.table),
        list(module.seen),
        module.holder.rows,
        module.pair[0].clone(),
        module.pair[1]["x"].clone(),
        list(vars(module)),
        list(module._buffers),
    ]


@pytest.mark.parametrize("warm", [None, 8, 12])
def test_a_model_that_remembers_is_pruned_the_same_cold_and_warm_and_left_as_it_was(
    warm: int | None,
) -> None:
    model = randomise(Forgetful())
    cold = operate(model, trace(model, IMAGE), Plan({"a": (0, 3, 6)})).model
    if warm:
        model.train()(torch.randn(2, 3, warm, warm))  # what it keeps hangs on gradients
        model.eval()
    before, grid = state(model), model.grid
    surgery = operate(model, trace(model, IMAGE), Plan({"a": (0, 3, 6)}))
    assert surgery.refused == {}
    for was, now in zip(before, state(model), strict=True):
        assert torch.equal(was, now) if isinstance(was, torch.Tensor) else was == now
    assert model.grid is grid
    for side in (8, 16, 12):
        image = torch.randn(1, 3, side, side)
        torch.testing.assert_close(surgery.model.eval()(image), cold.eval()(image))


def test_modes_and_random_generators_stay_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.BatchNorm2d(4))
    model[2].eval()
    torch.manual_seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with undisturbed(model):
        model.train()(torch.randn(2, 3, 4, 4))
        random.random()
        np.random.rand()
        model.extra = 1
        del model[0].bias
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert [one.training for one in model] == [True, True, False]
    assert model[2].num_batches_tracked == 0
    assert not hasattr(model, "extra")
    assert model[0].bias is not None
