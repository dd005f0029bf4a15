"""Models that end in a softmax or sigmoid, or in a ReLU where outputs below 0 are needed, are
noticed before they are trained, ranked or exported.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from prunedge.edge.probabilities import LOUD, REMEDY, Squash, is_sigmoid, squash_of, squash_warning
from prunedge.errors import ModelError
from prunedge.models.cost import evaluating
from prunedge.utils.machine import pass_on

# What only lays values out anew, or cuts them off: by autograd's name of the operation, without its
# number.
_PASSED = (
    "Alias",
    "AsStrided",
    "Clamp",
    "Clone",
    "Contiguous",
    "Expand",
    "Flatten",
    "Permute",
    "Reshape",
    "ReshapeAlias",
    "Select",
    "Slice",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "UnsafeView",
    "Unsqueeze",
    "View",
)
_SQUASHED: dict[str, Squash] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "sigmoid",
}
# What gives nothing below 0 that was given none, beside those.
_AVERAGED = ("AdaptiveAvgPool2D", "AvgPool2D", "Mean")


def refuse_probabilities(model: nn.Module, images: torch.Tensor, where: object = None) -> None:
    """ModelError when `model` answers real images (n, 3, S, S) float32 with probabilities instead
    of logits.

    Seen in the numbers, which add up to 1, and in the operation that made them. The model stays
    as it was, on its device.
    """
    try:
        squash = ending(model, images)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        pass_on(error)
        return  # it doesn't take such images: what comes next says so, and why
    if squash is not None:
        raise ModelError(squash_warning(squash), where=where, remedy=REMEDY)


def refuse_rectified(model: nn.Module, images: torch.Tensor, where: object = None) -> None:
    """ModelError when the last operation of `model` is a ReLU (SqueezeNet's is, before its mean):
    no output falls below 0 then. The model stays as it was, on its device.
    """
    try:
        outputs = _outputs(model, images)
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
        pass_on(error)
        return  # it doesn't take such images: what comes next says so, and why
    if isinstance(outputs, torch.Tensor) and _last(outputs, (*_PASSED, *_AVERAGED)) == "Relu":
        raise ModelError(
            "this model ends in a ReLU: its outputs are never below 0, which this task needs (no "
            "label would be less probable than a half, no number below the mean)",
            where=where,
            remedy="take the ReLU off its end, or use another model",
        )


def ending(model: nn.Module, images: torch.Tensor) -> Squash | None:
    """Which squashing function a model's answers to these images end in, if any. Outputs that
    are no tensor are not judged.
    """
    outputs = _outputs(model, images)
    if not isinstance(outputs, torch.Tensor):
        return None
    values = outputs.detach().float().cpu().numpy()
    if outputs.grad_fn is not None:
        return squash_of(values) or _SQUASHED.get(_last(outputs, _PASSED))
    images = _brought(images, model)
    with evaluating(model), torch.random.fork_rng(), torch.no_grad():
        loud = model(LOUD * images).float().cpu().numpy()
    return squash_of(values) or ("sigmoid" if is_sigmoid(values, loud) else None)


def _outputs(model: nn.Module, images: torch.Tensor) -> Any:
    """What the model gives in evaluation mode, with the operations that made it."""
    with evaluating(model), torch.random.fork_rng(), torch.enable_grad():
        # Of an image, so that frozen models tell their last operation, too.
        return model(_brought(images, model).clone().requires_grad_(True))


def _brought(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """The images where the model is, as it takes them."""
    first = next(model.parameters(), None)
    return images.detach() if first is None else images.detach().to(first)


def _last(outputs: torch.Tensor, passed: Collection[str]) -> str:
    """The last operation, by autograd's name of it, before those that are `passed`."""
    made = outputs.grad_fn
    while made is not None:
        name = made.name().rstrip("0123456789").removesuffix("Backward")
        if name not in passed or not made.next_functions:
            return name
        made = made.next_functions[0][0]
    return ""
