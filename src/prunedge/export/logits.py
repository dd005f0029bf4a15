"""Models whose answer holds the logits among others, as models that give them alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prunedge.tasks.logits import logits_of


class _Logits(nn.Module):
    """The logits of a model's answer (`prunedge.tasks.logits.logits_of`)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        return logits_of(self.model(images))


def giving_logits(model: nn.Module, image: torch.Tensor) -> nn.Module:
    """The model itself where it gives a tensor for an image (1, 3, height, width), else one in
    evaluation mode that gives its logits: torchvision's models of pixels give a dict.
    """
    with torch.no_grad():
        output = model(image)
    return model if isinstance(output, torch.Tensor) else _Logits(model).eval()
