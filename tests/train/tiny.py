"""A tiny problem that a tiny model learns: does the image have a bright line?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


def images(count: int, seed: int = 0, batch_size: int = 8) -> list[Batch]:
    """Batches of noise, every second image with a line: (N, 3, 16, 16) float32, (N,) int64."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 3, 16, 16, generator=generator), torch.arange(count) % 2
    x[y == 1, :, :, 7] += 2
    return [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, count, batch_size)]


def model(seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU, dropout, linear."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 2),
        )


@dataclass
class FakeSplit:
    """Looks like a Split, and notes how its batches were asked for."""

    count: int
    asked: list[dict[str, object]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return iter(images(self.count))

    def batches(self, batch_size: int = 32, **how: object) -> list[Batch]:
        self.asked.append({"batch_size": batch_size, **how})
        return images(self.count, batch_size=batch_size)[
            : self.count // batch_size if how["drop_last"] else None
        ]


class Frozen(nn.Module):
    """A frozen block (convolution, batch norm, dropout) before one that learns, with norms that have no parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.BatchNorm2d(8, affine=False),
        )
        self.lone = nn.BatchNorm2d(8)  # frozen among layers that learn
        self.learns = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2))
        self.block.requires_grad_(False)
        self.lone.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.learns(self.lone(self.block(x))))


def frozen() -> Frozen:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Frozen()
