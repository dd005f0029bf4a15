"""Models that are no plain module any more, or not yet, are refused with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from prunedge.errors import GraphError

_WRAPPERS = (DataParallel, DistributedDataParallel)


def check_plain(model: Any) -> None:
    """GraphError with the remedy unless this is an `nn.Module` that is plain.

    Its own Python code runs on weights of its own.
    """
    if type(model).__name__ == "ExportedProgram":
        raise GraphError(
            "this is an exported program",
            remedy="prune the original nn.Module, and export what comes out",
        )
    if not isinstance(model, nn.Module):
        raise GraphError(
            f"this is no nn.Module but a {type(model).__name__}",
            remedy="give the nn.Module itself",
        )
    for name, module in model.named_modules():
        for applies, what, remedy in _KINDS:
            if applies(module):
                where = f"{name}: {type(module).__name__}".removeprefix(": ")
                raise GraphError(what, where=where, remedy=remedy)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise GraphError(
                "a lazy layer does not know its size yet",
                where=name,
                remedy="run the model once on a batch, then trace it",
            )
        if tensor.is_inference():
            raise GraphError(
                "the model was made in inference mode, where its weights can't be changed",
                where=name,
                remedy="hand over copy.deepcopy(model), made outside torch.inference_mode()",
            )


def _scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def _exported(module: nn.Module) -> bool:
    # What torch.export makes replaces `eval` of the module itself by a function that refuses.
    return isinstance(module, torch.fx.GraphModule) and "eval" in vars(module)


def _observed(module: nn.Module) -> bool:
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    return isinstance(module, (FakeQuantizeBase, ObserverBase))


def _quantized(module: nn.Module) -> bool:
    kind = f"{type(module).__module__}.{type(module).__name__}"
    # Layers quantized as they run (dynamic) are skipped: they hold what they read whole, and others
    # may be pruned around them.
    fine = (".dynamic", ".qat", "PackedParams")
    return (
        kind.startswith("torch.ao.nn")
        and ".quantized" in kind
        and not any(word in kind for word in fine)
    )


_KINDS: tuple[tuple[Callable[[nn.Module], bool], str, str], ...] = (
    (
        _scripted,
        "scripted modules can't be followed",
        "prune the original nn.Module before scripting",
    ),
    (
        _exported,
        "exported modules can't be followed",
        "prune the original nn.Module before exporting",
    ),
    (
        _observed,
        "the model is prepared for quantization, whose observers know their sizes",
        "prune before prepare or prepare_qat",
    ),
    (
        _quantized,
        "quantized layers hold no weights that could be cut",
        "prune the float model before converting it",
    ),
    (
        lambda module: isinstance(module, _WRAPPERS),
        "the model is wrapped",
        "give the module inside (.module), and wrap what comes out",
    ),
)
