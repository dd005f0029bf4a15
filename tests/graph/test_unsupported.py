"""Models with unusual numbers are pruned around them; those that are no plain module get one line with the remedy."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.errors import GraphError, SurgeryError
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.importance import rank
from prunedge.models import cost
from prunedge.surgery import masked_outputs, operate
from tests.small_models import randomise

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def plain() -> nn.Sequential:
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
    )  # type: ignore[return-value]


def wrapped_up(model: nn.Module, kind: str) -> nn.Module:
    if kind == "weight_norm":
        nn.utils.weight_norm(model[3])  # type: ignore[index]
    elif kind == "weight_norm (parametrised)":
        nn.utils.parametrizations.weight_norm(model[3])  # type: ignore[index]
    elif kind == "compiled in part":
        model[3] = torch.compile(model[3])  # type: ignore[index,operator]
    elif kind == "compiled":
        return torch.compile(model)  # type: ignore[return-value]
    elif kind == "fx":
        return torch.fx.symbolic_trace(model)
    elif kind in ("float16", "bfloat16", "float64"):
        return model.to(getattr(torch, kind))
    return model


@pytest.mark.parametrize(
    "kind",
    [
        "weight_norm",
        "weight_norm (parametrised)",
        "compiled",
        "compiled in part",
        "fx",
        "float16",
        "bfloat16",
        "float64",
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_in_other_clothes_are_pruned(kind: str) -> None:
    model = wrapped_up(plain(), kind)
    example = IMAGE.to(next(model.parameters()).dtype)
    graph = trace(model, example)
    plan = Plan(
        {group.name: tuple(range(group.size // 2)) for group in graph.groups if group.size == 6}
    )
    assert plan.keep
    assert operate(model, graph, plan).refused == {}


class Scaled(nn.Module):
    """Two convolutions with a parameter of that kind between them, and one that has nothing to do with channels."""

    def __init__(self, scale: torch.Tensor, other: torch.Tensor) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Linear(6, 2)
        self.scale, self.other = (
            nn.Parameter(x, requires_grad=x.is_floating_point() or x.is_complex())
            for x in (scale, other)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x) * self.scale
        h = h.abs() if h.is_complex() else h
        y = self.head(torch.relu(self.b(h)).mean((2, 3)))
        return y * self.other if self.other.is_complex() else y + self.other.to(y.dtype)


@pytest.mark.parametrize(
    "dtype", [torch.complex64, torch.int64, torch.int32, torch.float8_e4m3fn, torch.float64]
)
def test_parameters_of_every_kind_of_number(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scale = (
        torch.ones(8, 1, 1)
        if dtype == torch.float8_e4m3fn
        else (torch.rand(8, 1, 1) * 5 + 1).to(dtype)
    )
    model = randomise(Scaled(scale, torch.tensor([1.0, 2.0]).to(dtype)))
    if dtype == torch.float64:
        model = model.double()
    example = IMAGE.double() if dtype == torch.float64 else IMAGE
    graph = trace(model, example)
    surgery = operate(
        model,
        graph,
        Plan(
            {"b": (0, 2, 3), **({"a": (0, 3, 5)} if "a" in {g.name for g in graph.groups} else {})}
        ),
    )
    assert surgery.refused == {}
    assert graph.params(surgery.plan) == sum(
        parameter.numel() for parameter in surgery.model.parameters()
    )
    assert surgery.model.scale.dtype == model.scale.dtype
    wanted = masked_outputs(model, graph, surgery.plan)[0]
    assert torch.allclose(surgery.model.eval()(example), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_models_with_such_parameters_are_ranked(dtype: torch.dtype) -> None:
    model = randomise(
        Scaled((torch.rand(8, 1, 1) * 5 + 1).to(dtype), torch.ones(2, dtype=torch.int64))
    )
    graph = trace(model, IMAGE)
    scores = rank(model, graph, [(IMAGE, torch.tensor([0, 1]))], "taylor")
    assert scores.values.keys() == {"a", "b"}
    assert all(bool((value > 0).any()) for value in scores.values.values())


def test_layers_quantized_as_they_run_stay_and_the_rest_is_pruned() -> None:
    model = torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}, dtype=torch.qint8)
    graph = trace(model, IMAGE)
    surgery = operate(model, graph, Plan({"0": (0, 1, 5)}))
    assert surgery.refused == {}
    assert surgery.model[0].out_channels == 3


def prepared(train: bool) -> nn.Module:
    quantization = torch.ao.quantization
    model = plain().train(train)
    model.qconfig = (
        quantization.get_default_qat_qconfig("fbgemm")
        if train
        else quantization.get_default_qconfig("fbgemm")
    )  # type: ignore[assignment]
    return quantization.prepare_qat(model) if train else quantization.prepare(model)


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return plain()


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 256, 2))


FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (
        lambda: torch.jit.script(plain()),
        "prune the original nn.Module before scripting",
    ),
    "traced by jit": (
        lambda: torch.jit.trace(plain(), IMAGE),
        "prune the original nn.Module before scripting",
    ),
    "scripted in part": (
        lambda: nn.Sequential(torch.jit.script(plain())),
        "0: RecursiveScriptModule.*before scripting",
    ),
    "exported": (lambda: torch.export.export(plain(), (IMAGE,)).module(), "before exporting"),
    "exported program": (lambda: torch.export.export(plain(), (IMAGE,)), "exported program"),
    "prepared for quantization-aware training": (
        lambda: prepared(True),
        "prune before prepare or prepare_qat",
    ),
    "prepared for quantization": (lambda: prepared(False), "prune before prepare or prepare_qat"),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(2)),
        "run the model once",
    ),
    "DataParallel": (lambda: nn.DataParallel(plain()), r"the module inside \(.module\)"),
    "inference mode": (in_inference_mode, "copy.deepcopy"),
    "meta": (on_meta, "load them first"),
    "a function": (lambda: torch.relu, "no nn.Module"),
    "a method": (lambda: plain().forward, "no nn.Module"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore")
def test_foreign_models_get_one_line_with_the_remedy(kind: str) -> None:
    make, remedy = FOREIGN[kind]
    with pytest.raises(GraphError, match=remedy):
        trace(make(), IMAGE)


def test_the_remedies_work() -> None:
    lazy = nn.Sequential(
        nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1)
    )
    lazy(IMAGE)
    assert trace(lazy, IMAGE).groups
    assert trace(copy.deepcopy(in_inference_mode()), IMAGE).groups
    assert trace(nn.DataParallel(plain()).module, IMAGE).groups


def test_what_cannot_be_copied_is_one_line() -> None:
    model = plain()
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(SurgeryError, match="can't be copied"):
        operate(model, trace(model, IMAGE), Plan({"0": (0, 1)}))


def test_macs_and_parameters_count_every_parameter() -> None:
    model = Scaled(torch.ones(8, 1, 1, dtype=torch.int64), torch.ones(2, dtype=torch.complex64))
    assert trace(model, IMAGE).params() == cost(model, IMAGE).params
