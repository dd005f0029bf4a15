"""Scores: one number per channel, higher matters more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scores:
    """How much each channel of each group matters: group name -> (channels,) float64, higher matters more.

    `examples` is the number of pictures that they were measured on (0 for criteria that read the weights alone).
    """

    values: Mapping[str, torch.Tensor]
    criterion: str
    examples: int = 0


def normalised(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scores of each group divided by the group's Euclidean norm, so that groups compare.

    theta_l / sqrt(sum_j theta_l,j ^ 2): Molchanov et al. 2017, section 2.2. A group of zeros stays zero.
    """
    return {name: v / v.norm() if bool(v.norm() > 0) else torch.zeros_like(v) for name, v in values.items()}
