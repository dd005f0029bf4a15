"""Write a pruned model to a file and make it again.

Its tensors, and what else surgery has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from prunedge.errors import WeightsError
from prunedge.graph.preserve import copied, refresh
from prunedge.graph.sizes import pin, pinned_modules, pins_of
from prunedge.surgery.attention import slim_attention
from prunedge.surgery.pins import pinning_from_json, pinning_to_json
from prunedge.surgery.resize import noted_sizes, replace_noted_sizes, resize_layers
from prunedge.surgery.slicing import in_place_of
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.tensor_files import save_tensors

_WRONG_MODEL = "is it the model of that name, and has its code changed since?"


def save_model(model: nn.Module, file: Path) -> None:
    """Write a model's tensors, and what else `restore_model` needs, as safetensors."""
    tensors = {}
    for name, value in model.state_dict().items():
        tensors[name] = value.detach().cpu().contiguous().clone()
    save_tensors(tensors, file, {"sizes": json.dumps(dict(sizes_of(model)))})


def restore_model(model: nn.Module, file: Path) -> nn.Module:
    """A model of that name at its full width becomes the pruned one that `save_model` wrote.

    Raises WeightsError when the file can't be read or doesn't fit.
    """
    try:
        require_regular(file)
        with safe_open(file, "pt") as opened:
            sizes = json.loads((opened.metadata() or {}).get("sizes", "{}"))
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        pass_on_reading(error, file)
        raise WeightsError(
            f"can't read the weights: {error}",
            where=file,
            remedy="the file is damaged; make it again",
        ) from None
    return adopt(model, tensors, sizes)


def sizes_of(model: nn.Module) -> Mapping[str, Any]:
    """What surgery has changed in a model's modules beside the weights, fit for JSON.

    {path of an attribute: its value}, and {path of a module followed by `()`: what its calls are
    pinned to}.
    """
    sizes = dict(noted_sizes(model))
    for name, module in pinned_modules(model):
        sizes[f"{name}()"] = pinning_to_json(pins_of(module))
    return sizes


def adopt(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    sizes: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model with these weights, whatever their widths.

    Rebuilds a pruned model from its saved tensors and `sizes_of` it. `tensors` is a whole state
    dict; a tensor may be narrower than the model's own, never wider or of another rank. Raises
    WeightsError naming each tensor that is missing, unknown or doesn't fit.
    """
    own = model.state_dict(keep_vars=True)
    _check_shapes(own, tensors)
    replacements = {}
    for name, value in tensors.items():
        replacements[id(own[name])] = in_place_of(own[name], value.clone())
    small = copied(model, replacements)
    resize_layers(small)

    attributes = {}
    pinnings = {}
    for path, value in (sizes or {}).items():
        if path.endswith("()"):
            pinnings[path.removesuffix("()")] = value
        else:
            attributes[path] = value
    _set_attributes(small, attributes)
    _pin(small, pinnings)

    slim_attention(small)
    with torch.no_grad():
        refresh(small)
    return small


def _check_shapes(own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """WeightsError where a tensor is missing, unknown, wider than its own or of another rank."""
    wrong = [f"{name}: missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name}: unknown" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        have = tuple(tensors[name].shape)
        want = tuple(own[name].shape)
        if len(have) != len(want) or not all(map(_fits, have, want)):
            wrong.append(f"{name}: {have} does not fit {want}")
        elif tensors[name].is_floating_point() != own[name].is_floating_point():
            wrong.append(f"{name}: {tensors[name].dtype} does not fit {own[name].dtype}")
    if wrong:
        raise WeightsError(
            "the saved weights do not fit the model",
            where="; ".join(sorted(wrong)[:8]),
            remedy=_WRONG_MODEL,
        )


def _fits(have: int, want: int) -> bool:
    return 1 <= have <= want


def _set_attributes(small: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Set the attributes that surgery had set."""
    for path, value in attributes.items():
        owner, _, name = path.rpartition(".")
        held = vars(small.get_submodule(owner))
        # JSON knows no tuples.
        held[name] = tuple(value) if isinstance(held.get(name), tuple) else value
    if attributes:
        replace_noted_sizes(small, attributes)
        resize_layers(small)  # what follows from the groups of convolutions


def _pin(small: nn.Module, pinnings: Mapping[str, Any]) -> None:
    """Pin the modules that surgery had pinned."""
    modules = dict(small.named_modules())
    for name, record in pinnings.items():
        if name not in modules:
            raise WeightsError(
                "the saved sizes do not fit the model",
                where=f"{name}: no such module",
                remedy=_WRONG_MODEL,
            )
        try:
            pinning = pinning_from_json(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(
                f"the saved sizes do not fit the model: {type(error).__name__} {error}",
                where=name,
                remedy=_WRONG_MODEL,
            ) from None
        pin(modules[name], pinning)
