"""`proven` means it: at other sizes and batches, on values that tell, for every kind of answer; and what is refused costs little."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import prunedge as pe
from prunedge.errors import SurgeryError
from prunedge.graph import trace
from prunedge.graph.inputs import others
from prunedge.graph.plan import Plan
from prunedge.surgery import masked_outputs, operate, remove
from prunedge.surgery.verify import Proof
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
HALF = Plan({"a": (0, 1, 2, 3), "b": (0, 1)})


class Two(nn.Module):
    """Two convolutions and a head, with something done to what the first makes, and to the answer."""

    def __init__(
        self,
        between: Callable[..., Any],
        after: Callable[[torch.Tensor], Any] = lambda y: y,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.between, self.after = between, after
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.Conv2d(8, 4, 1, bias=bias)
        self.head = nn.Linear(4, 5, bias=bias)
        randomise(self)

    def forward(self, x: torch.Tensor) -> Any:
        return self.after(self.head(self.b(self.between(self.a(x), x)).mean((2, 3))))


def wrong(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Wrong as soon as channels leave."""
    return h / h.size(1)


def right(h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(h)


def wrong_where(there: Callable[[torch.Tensor], bool]) -> Callable[..., torch.Tensor]:
    return lambda h, x: wrong(h, x) if there(x) else h


@pytest.mark.parametrize(
    "there",
    [
        lambda x: x.shape[-1] != 16,
        lambda x: len(x) != 2,
        lambda x: bool(x.abs().max() > 0) and not torch.equal(x, IMAGE[:, :, :1, :1].expand_as(x)),
    ],
    ids=["another size", "another batch", "other values"],
)
def test_a_group_that_is_wrong_elsewhere_only_is_refused(
    there: Callable[[torch.Tensor], bool],
) -> None:
    flat = IMAGE[:, :, :1, :1].expand(2, 3, 16, 16)
    model = Two(wrong_where(there))
    example = flat if there(IMAGE) else IMAGE
    surgery = operate(model, trace(model, example), HALF)
    assert list(surgery.refused) == ["a"]
    assert surgery.plan.keep == {"b": (0, 1)}
    assert "at inputs of" in surgery.refused["a"]


@pytest.mark.parametrize("example", [torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16)])
def test_an_example_of_zeros_proves_nothing_by_itself(example: torch.Tensor) -> None:
    model = Two(wrong, bias=False)
    assert list(operate(model, trace(model, example), HALF).refused) == ["a"]


@pytest.mark.parametrize("size", [0.0, 1e-6])
def test_what_hides_behind_faint_weights_is_seen(size: float) -> None:
    model = Two(wrong)
    with torch.no_grad():
        model.head.weight.fill_(size)
    before = copy.deepcopy(model.state_dict())
    surgery = operate(model, trace(model, IMAGE), HALF)
    assert list(surgery.refused) == ["a"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(surgery.model.head.weight, model.head.weight[:, :2])


def test_a_scalar_gate_that_is_still_closed_is_seen_through() -> None:
    class Gated(Two):
        def __init__(self) -> None:
            super().__init__(lambda h, x: h)
            self.gate, self.c = nn.Parameter(torch.zeros(1)), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            h = self.a(x)
            return self.head((self.b(h) + self.gate * self.c(wrong(h, x))).mean((2, 3)))

    model = Gated()
    assert list(operate(model, trace(model, IMAGE), Plan({"a": (0, 1, 2, 3)})).refused) == ["a"]


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (lambda y: y * float("nan"), "not finite"),
        (lambda y: y / 0, "not finite"),
        (lambda y: y * 0, "same number all over"),
        (lambda y: (y * 0).long(), "same number all over"),
        (lambda y: {"a": y, "b": (y - 1e3).log()}, "not finite"),
    ],
)
def test_an_answer_that_tells_nothing_is_no_proof(
    after: Callable[[torch.Tensor], Any], why: str
) -> None:
    model = Two(right, after)
    surgery = operate(model, trace(model, IMAGE), HALF)
    assert surgery.refused.keys() == {"a", "b"}
    assert surgery.plan.keep == {}
    assert all(why in reason for reason in surgery.refused.values())


ANSWERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "whole numbers": lambda y: (y * 1000).long(),
    "truth values": lambda y: y > y.mean(),
    "order": lambda y: y.argsort(1),
    "complex": lambda y: torch.complex(y, y * 2),
    "one number": lambda y: y.sum(),
    "None and numbers": lambda y: (None, 3, y),
    "sparse": lambda y: y.to_sparse(),
    "empty beside": lambda y: (y, y[:0]),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_of_answer_is_compared(kind: str) -> None:
    after = ANSWERS[kind]
    fine = Two(right, after)
    assert operate(fine, trace(fine, IMAGE), HALF).refused == {}
    if kind not in ("order", "truth values"):  # dividing everything by two changes no order
        bad = Two(wrong, after)
        assert list(operate(bad, trace(bad, IMAGE), HALF).refused) == ["a"]
    else:
        bad = Two(lambda h, x: h * h.size(1) - 6 * h, after)
        assert list(operate(bad, trace(bad, IMAGE), HALF).refused) == ["a"]


def test_parts_that_come_and_go_with_the_channels_are_seen() -> None:
    class Talkative(Two):
        def forward(self, x: torch.Tensor) -> Any:
            h = self.a(x)
            y = self.head(self.b(h).mean((2, 3)))
            return {"y": y, "more": y} if self.b.in_channels == 8 else {"y": y}

    model = Talkative(right)
    surgery = operate(model, trace(model, IMAGE), HALF)
    assert list(surgery.refused) == ["a"]
    assert "other parts" in surgery.refused["a"]


def test_a_model_that_takes_one_size_only_is_proven_at_that_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.a(x)).flatten(1))

    model = randomise(Fixed())
    assert operate(model, trace(model, IMAGE[:, :, :8, :8]), Plan({"a": (0, 3)})).refused == {}


def test_words_stay_words_in_other_questions() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.a, self.head = nn.Embedding(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            h = torch.relu(self.a(self.words(ids)))
            return self.head((h if mask is None else h * mask[..., None]).sum(1))

    model = randomise(Reader())
    example = {"ids": torch.tensor([[0, 4, 4, 2]]), "mask": torch.ones(1, 4)}
    seen = list(others(example))
    assert {tuple(one["ids"].shape) for one in seen} >= {(2, 8), (2, 4), (1, 4)}
    assert all(set(one["ids"].flatten().tolist()) <= {0, 2, 4} for one in seen)
    assert operate(model, trace(model, example), Plan({"a": (0, 3, 5)})).refused == {}


@pytest.mark.parametrize(
    ("size", "other"), [(64, 96), (224, 160), (96, 128), (7, 10), (8, 16), (1, 1)]
)
def test_other_images_have_another_size_in_the_same_steps(size: int, other: int) -> None:
    first = next(others(torch.rand(1, 3, size, size)))
    assert tuple(first.shape) == (2, 3, other, other)
    assert bool(((first >= 0) & (first <= 1)).all())


def test_the_proof_leaves_what_the_model_noted_as_it_was() -> None:
    class Noting(Two):
        def forward(self, x: torch.Tensor) -> Any:
            self.last = tuple(x.shape)
            return super().forward(x)

    model = Noting(right)
    model(IMAGE[:1])
    noted = model.last
    surgery = operate(model, trace(model, IMAGE), HALF)
    assert model.last == surgery.model.last == noted == tuple(IMAGE[:1].shape)


def test_refused_groups_can_be_left_whole_and_are_data() -> None:
    model = Two(wrong)
    graph = trace(model, IMAGE)
    with pytest.raises(SurgeryError, match="a: differs from the masked model") as raised:
        remove(model, graph, HALF)
    assert list(raised.value.refused) == ["a"]
    small = remove(model, graph, HALF, refused="leave").eval()
    assert (small.a.out_channels, small.b.out_channels) == (8, 2)
    wanted = masked_outputs(model, graph, HALF.without(["a"]))[0]
    assert torch.allclose(small(IMAGE), wanted, atol=1e-5)
    assert list(pe.operate(model, graph, HALF).refused) == ["a"]
    with pytest.raises(ValueError, match="'raise' or 'leave'"):
        remove(model, graph, HALF, refused="ignore")  # type: ignore[arg-type]


class Block(nn.Module):
    def __init__(self, between: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.up, self.down, self.between = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.between(torch.relu(self.up(x)), x))


class Deep(nn.Module):
    """Many blocks, some of which bake in a size."""

    def __init__(self, wrongs: set[int], blocks: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.blocks = nn.Sequential(
            *(Block(wrong if place in wrongs else right) for place in range(blocks))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x))).mean((2, 3))


@pytest.mark.parametrize("wrongs", [{9}, {2, 13}, set(range(16))])
def test_a_refusal_costs_a_few_proofs(wrongs: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(Deep(wrongs))
    graph = trace(model, IMAGE)
    plan = Plan({group.name: tuple(range(group.size // 2)) for group in graph.groups})
    proofs = []
    compare = Proof.compare
    monkeypatch.setattr(Proof, "compare", lambda *args: proofs.append(None) or compare(*args))  # type: ignore[func-returns-value]
    surgery = operate(model, graph, plan)
    assert surgery.refused.keys() == {f"blocks.{place}.up" for place in wrongs}
    assert len(proofs) <= 12
