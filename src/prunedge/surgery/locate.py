"""Where a comparison failed: the module whose code raised, or the first layer that differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunedge.graph.channels import KeptIndices
from prunedge.surgery.answers import difference

LayerOutputs = dict[tuple[str, int], torch.Tensor]  # (path of a layer, which call of it) -> output


def raised_in(error: BaseException, model: nn.Module) -> str | None:
    """The innermost module of the model whose code was running when this was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    innermost = None
    trace = error.__traceback__
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        innermost = names.get(id(running), innermost)
        trace = trace.tb_next
    return innermost


@contextmanager
def recorded_layers(model: nn.Module) -> Iterator[LayerOutputs]:
    """Record what each layer with weights of its own gives, in the order in which they end."""
    outputs: LayerOutputs = {}
    calls: Counter[str] = Counter()

    def recorder(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            if isinstance(out, torch.Tensor) and not out.is_sparse:
                outputs[name, calls[name]] = out.detach().clone()
                calls[name] += 1

        return hook

    handles = []
    for name, module in model.named_modules():
        has_weight = isinstance(module._parameters.get("weight"), torch.Tensor)
        if has_weight and not module._modules:
            handles.append(module.register_forward_hook(recorder(name)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def first_difference(
    given: LayerOutputs,
    wanted: LayerOutputs,
    reference: nn.Module,
    kept: KeptIndices,
    tolerance: float,
) -> str | None:
    """The first layer whose output differs at the channels that stay; None where none does.

    `given` is of the smaller model, `wanted` of the masked `reference`. Outputs that can't be
    compared, since their shapes don't fit, are passed over.
    """
    for (name, number), whole in wanted.items():
        narrow = given.get((name, number))
        if narrow is None or narrow.dim() != whole.dim():
            return name
        stays = kept.get(f"{name}.weight", {}).get(0)
        expected = _staying(reference.get_submodule(name), whole, stays)
        if expected.shape != narrow.shape:
            continue
        gap, _ = difference({"": narrow}, {"": expected})
        if gap > tolerance:
            return name
    return None


def _staying(layer: Any, output: torch.Tensor, kept: Any) -> torch.Tensor:
    """A layer's output at the channels that stay."""
    is_last = isinstance(layer, (nn.Linear, nn.LayerNorm))
    dim = output.dim() - 1 if is_last else min(1, output.dim() - 1)
    if kept is None or len(layer.weight) != output.shape[dim]:
        return output
    return output.index_select(dim, torch.as_tensor(kept, device=output.device))
