"""Centrelines of probabilities, with gradients. Pure."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Damage of up to twice as many pixels across has its whole centreline.
WIDEST = 10


def soft_skeleton(maps: torch.Tensor, steps: int = WIDEST) -> torch.Tensor:
    """The centrelines of maps (n, channels, height, width) of 0 to 1, in the same shape.

    Each map is eroded, a pixel of each edge at a time; what an opening (an erosion, then a
    dilation) of it would take away are pixels that have no room around them, which belong to the
    centreline (Shit et al. 2021, arXiv:2003.07311). Erosion is the least of a pixel
    and its four neighbours, dilation the most of it and its eight.
    """
    skeleton = F.relu(maps - _opened(maps))
    for _ in range(steps):
        maps = _eroded(maps)
        thin = F.relu(maps - _opened(maps))
        skeleton = skeleton + F.relu(thin - skeleton * thin)
    return skeleton


def _eroded(maps: torch.Tensor) -> torch.Tensor:
    upright = -F.max_pool2d(-maps, (3, 1), stride=1, padding=(1, 0))
    across = -F.max_pool2d(-maps, (1, 3), stride=1, padding=(0, 1))
    return torch.minimum(upright, across)


def _opened(maps: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(_eroded(maps), 3, stride=1, padding=1)
