"""What a classifier answers, and how wrong it is: the loss wherever nobody gives another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from prunedge.errors import ModelError

# A user's own loss: the model and a batch, as the batches yield it, give the mean over the
# batch's examples, a scalar.
Loss = Callable[[nn.Module, Any], torch.Tensor]

REMEDY = (
    "give pe.rank(..., loss=fn) with fn(model, batch) -> mean over the examples; "
    "training and evaluation take classifiers of 2 classes or more"
)


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a model gives.

    A tensor is taken as it is. Of anything else what is called `logits` is taken, by key or
    attribute (transformers' outputs, torchvision's GoogLeNet and Inception), or what is called
    `out` (torchvision's segmentation), or a tuple's first tensor, or the only tensor of a dict or
    dataclass. ModelError when none of it is there.
    """
    if isinstance(output, torch.Tensor):
        return output
    fields = _fields(output)
    for name in ("logits", "out"):
        if isinstance(fields.get(name), torch.Tensor):
            return fields[name]
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    tensors = [value for value in fields.values() if isinstance(value, torch.Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    raise ModelError(
        f"the model gives a {type(output).__name__} in which nothing says which are the logits",
        remedy=REMEDY,
    )


def cross_entropy(
    output: Any, labels: Any, *, label_smoothing: float = 0.0, double: bool = False
) -> torch.Tensor:
    """The mean cross-entropy over the examples, a float32 scalar (float64 with `double`).

    `output` holds (`logits_of`) floats (n, C, ...) with two classes C or more, `labels` are
    integers (n, ...) from 0 to C - 1. ModelError, which names `loss=`, for anything else: one
    output, several labels or numbers for each example, whatever else would give a number that means
    nothing.
    """
    logits = logits_of(output)
    wrong = _mismatch(logits, labels)
    if wrong:
        raise ModelError(f"cross-entropy can't judge this model: {wrong}", remedy=REMEDY)
    logits = logits.double() if double else logits.float()
    return functional.cross_entropy(logits, labels.long(), label_smoothing=label_smoothing)


def class_logits(output: Any) -> torch.Tensor:
    """The logits (n, C) of a classifier of whole images with two classes C or more; ModelError for
    any other answer.
    """
    logits = logits_of(output)
    if not logits.is_floating_point() or logits.dim() != 2 or logits.shape[1] < 2:
        raise ModelError(
            f"the model gives {_shape(logits)}, and not (n, classes >= 2) logits of whole images",
            remedy=REMEDY,
        )
    return logits


def _mismatch(logits: torch.Tensor, labels: Any) -> str:
    """What keeps cross-entropy from judging these, in words; empty when nothing does."""
    if not logits.is_floating_point() or logits.dim() < 2 or logits.shape[1] < 2:
        return f"it gives {_shape(logits)}, and not (n, classes >= 2, ...) logits"
    if not isinstance(labels, torch.Tensor):
        return f"its labels are a {type(labels).__name__}, and not a tensor of integers"
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        return f"its labels are {_shape(labels)}, and not integers"
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != wanted:
        return f"its logits are {_shape(logits)} and its labels {_shape(labels)}, and not {wanted}"
    if labels.numel() == 0:
        return "there is no label"
    low, high = (int(end) for end in torch.aminmax(labels))
    if low < 0 or high >= logits.shape[1]:
        return f"its labels go from {low} to {high}, for {logits.shape[1]} classes"
    return ""


def _fields(output: Any) -> Mapping[str, Any]:
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return output._asdict()
    if dataclasses.is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return getattr(output, "__dict__", {})


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
