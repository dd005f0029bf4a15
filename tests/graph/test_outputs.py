"""Tensors are found in whatever a model hands back; a model that shows none is refused."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunedge.errors import GraphError
from prunedge.graph import trace
from prunedge.graph.outputs import tensors_in
from prunedge.graph.plan import Plan
from prunedge.surgery import operate

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", "first second")


@dataclass
class Answer:
    logits: torch.Tensor
    note: str | None = None


@dataclass(slots=True)
class Slim:
    logits: torch.Tensor


class Plain:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.itself = self  # objects that refer to each other end


class Slots:
    __slots__ = ("__hidden", "never_set")

    def __init__(self, logits: torch.Tensor) -> None:
        self.__hidden = logits


class Named(dict[str, Any]):
    """A dict whose tensors may be attributes, too (transformers' ModelOutput in small)."""


def attributed(y: torch.Tensor) -> Any:
    found = Named()
    found.logits = y  # type: ignore[attr-defined]
    return found


def model_output(y: torch.Tensor) -> Any:
    outputs = pytest.importorskip(
        "transformers.modeling_outputs", reason="needs transformers: pip install -e '.[zoo]'"
    )
    return outputs.ImageClassifierOutput(logits=y, hidden_states=None)


WRAPPED: dict[str, Callable[[torch.Tensor], Any]] = {
    "tensor": lambda y: y,
    "tuple with None": lambda y: (None, y),
    "named tuple": lambda y: Pair(None, y),
    "dict": lambda y: {"a": {"b": y}},
    "ordered dict": lambda y: OrderedDict(out=y),
    "dict with attributes": attributed,
    "dataclass": Answer,
    "dataclass with slots": Slim,
    "list of dataclasses": lambda y: [Answer(y), Answer(y * 2)],
    "object": Plain,
    "object in an object": lambda y: Plain(Plain(y)),  # type: ignore[arg-type]
    "private slots": Slots,
    "set": lambda y: {y},
    "generator": lambda y: (part for part in (y, y + 1)),
    "generators in a dict": lambda y: {"a": (y for _ in range(2))},
    "map": lambda y: map(torch.exp, [y]),
    "distribution": lambda y: torch.distributions.Normal(
        y, torch.ones_like(y), validate_args=False
    ),
    "transformers' ModelOutput": model_output,
}
NEEDING = [
    pytest.param(name, marks=pytest.mark.slow) if "transformers" in name else name
    for name in WRAPPED
]


class Scaled(nn.Module):
    """Divides by its own number of channels, so that a naive cut is wrong."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.a(x)
        return self.wrap(self.head(self.b(h / h.size(1)).mean((2, 3))))


@pytest.mark.parametrize("wrapped", NEEDING)
def test_a_wrong_cut_is_seen_through_any_wrapping(wrapped: str) -> None:
    torch.manual_seed(0)
    model = Scaled(WRAPPED[wrapped]).eval()
    graph = trace(model, IMAGE)
    assert "is the model's output" in {frozen.reason for frozen in graph.frozen}
    assert "head" not in {group.name for group in graph.groups}
    surgery = operate(model, graph, Plan({"a": (0, 1, 2, 3), "b": (0, 1)}))
    assert list(surgery.refused) == ["a"]
    assert surgery.plan.keep == {"b": (0, 1)}


@pytest.mark.parametrize(
    "wrap",
    [lambda y: None, lambda y: 3.0, lambda y: "fine", lambda y: [], lambda y: nn.Linear(2, 2)],
)
def test_a_model_that_shows_no_tensor_is_refused(wrap: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(GraphError, match="shows no tensor"):
        trace(Scaled(wrap), IMAGE)


def test_paths_tell_where_each_tensor_is() -> None:
    x = torch.zeros(1)
    found = tensors_in({"a": (x, None, Answer(x)), "b": np.ones(2)})
    assert list(found) == ["['a'][0]", "['a'][2].logits", "['b']"]
