"""What a model answers in the proof, as tensors by name, and how far two such answers are apart.

Answers are taken in evaluation mode and in full precision (`precise`), since rounding would hide
what the proof looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.graph import call
from prunedge.graph.outputs import seen_in
from prunedge.graph.preserve import copied, held_tensors, undisturbed
from prunedge.models.tf32 import full_float32
from prunedge.surgery.slicing import named_tensors

Answer = Mapping[str, torch.Tensor]


def answer(model: nn.Module, example: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor of the model's answer in evaluation mode, by its path in the output.

    An example of less precision than `dtype` is raised to it.
    """
    with undisturbed(model), torch.no_grad(), _uncompiled(model), full_float32():
        model.eval()
        _seed_generators(model)
        return seen_in(call(model, precise_example(example, dtype)), model)


def _uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    """Run compiled modules as they are written.

    Compiling each attempt would take longer than all else.
    """
    is_compiled = any(
        "_orig_mod" in module._modules or module._compiled_call_impl is not None
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()


def _seed_generators(model: nn.Module) -> None:
    """Let models that draw numbers draw the same ones each time."""
    torch.default_generator.manual_seed(0)
    for device in {x.device for x in model.parameters() if x.device.type == "cuda"}:
        torch.cuda.default_generators[device.index].manual_seed(0)


# -- precision -------------------------------------------------------------------------------------


def precise(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model itself, or a copy in this precision of one that has less."""
    if all(_is_precise(x.dtype, dtype) for x in named_tensors(model).values()):
        return model
    held = {id(x): at_least(x.detach(), dtype) for x in held_tensors(model)}
    return copied(model, held)._apply(lambda x: at_least(x, dtype))


def precise_example(example: Any, dtype: torch.dtype) -> Any:
    """The example with every tensor of less precision raised to this one."""
    return tree_map(lambda x: at_least(x, dtype) if isinstance(x, torch.Tensor) else x, example)


def at_least(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor, real or complex as it is, in this precision at least."""
    if _is_precise(x.dtype, dtype):
        return x
    return x.to(dtype.to_complex() if x.is_complex() else dtype)


def _is_precise(own: torch.dtype, wanted: torch.dtype) -> bool:
    if not (own.is_floating_point or own.is_complex):
        return True
    return torch.finfo(own).bits >= torch.finfo(wanted).bits


# -- comparing -------------------------------------------------------------------------------------


def difference(given: Answer, wanted: Answer) -> tuple[float, bool]:
    """How far two answers are apart: the largest gap, relative to the largest value of its tensor.

    And whether only whole numbers differ, which must be equal.
    """
    if given.keys() != wanted.keys():
        return float("inf"), False
    largest = 0.0
    is_rounding = False
    for key in wanted:
        values = _dense(given[key])
        wanted_values = _dense(wanted[key])
        if values.shape != wanted_values.shape or values.dtype != wanted_values.dtype:
            return float("inf"), False
        if not values.numel():
            continue
        if values.is_floating_point():
            largest = max(largest, _relative_gap(values, wanted_values))
        elif not torch.equal(values, wanted_values):
            is_rounding = True
    if is_rounding:
        return float("inf"), largest < float("inf")
    return largest, False


def _relative_gap(values: torch.Tensor, wanted: torch.Tensor) -> float:
    largest = wanted.double().abs().max().clamp_min(1e-12)
    gap = (values.double() - wanted.double()).abs().max() / largest
    return float(gap) if torch.isfinite(gap) else float("inf")


def same_shapes(given: Answer, wanted: Answer) -> bool:
    """Whether two answers have the same tensors, of the same shapes."""
    if given.keys() != wanted.keys():
        return False
    return all(_dense(given[key]).shape == _dense(x).shape for key, x in wanted.items())


def is_finite(answers: Answer) -> bool:
    """Whether every number is finite."""
    for x in answers.values():
        is_real_or_complex = x.is_floating_point() or x.is_complex()
        if is_real_or_complex and not bool(torch.isfinite(_dense(x)).all()):
            return False
    return True


def varies(answers: Answer) -> bool:
    """Whether any tensor has different values, so that two answers could be told apart."""
    return any(_varies(_dense(x)) for x in answers.values())


def _varies(x: torch.Tensor) -> bool:
    if not x.numel():
        return False
    if x.numel() == 1:
        return bool(x.any())
    return bool((x != x.flatten()[0]).any())


def doubled(answers: Answer) -> Answer:
    """The answers in double precision, but for those in whole numbers."""
    raised = dict(answers)
    for key, x in answers.items():
        if x.is_floating_point() and not x.is_quantized:
            raised[key] = x.double()
    return raised


def _dense(x: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor of any kind, real."""
    if x.is_nested:
        return torch.cat([component.flatten() for component in x.unbind()])
    if x.is_quantized:
        x = x.dequantize()
    if x.layout is not torch.strided:
        x = x.to_dense()
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
