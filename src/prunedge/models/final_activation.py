"""Models that end in a softmax or sigmoid are noticed before they are trained, ranked or
exported.
"""

from __future__ import annotations

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


def ending(model: nn.Module, images: torch.Tensor) -> Squash | None:
    """Which squashing function a model's answers to these images end in, if any. Outputs that
    are no tensor are not judged.
    """
    first = next(model.parameters(), None)
    images = images.detach() if first is None else images.detach().to(first)
    with evaluating(model), torch.random.fork_rng(), torch.enable_grad():
        # Of an image, so that frozen models tell their last operation, too.
        outputs = model(images.clone().requires_grad_(True))
    if not isinstance(outputs, torch.Tensor):
        return None
    values = outputs.detach().float().cpu().numpy()
    if outputs.grad_fn is not None:
        return squash_of(values) or _last(outputs)
    with evaluating(model), torch.random.fork_rng(), torch.no_grad():
        loud = model(LOUD * images).float().cpu().numpy()
    return squash_of(values) or ("sigmoid" if is_sigmoid(values, loud) else None)


def _last(outputs: torch.Tensor) -> Squash | None:
    made = outputs.grad_fn
    while made is not None:
        name = made.name().rstrip("0123456789").removesuffix("Backward")
        if name in _SQUASHED:
            return _SQUASHED[name]
        if name not in _PASSED or not made.next_functions:
            return None
        made = made.next_functions[0][0]
    return None
