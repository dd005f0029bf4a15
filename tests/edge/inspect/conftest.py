"""A bundle whose answers are known: a patch is a crack when one of its sixteen by sixteen pixels is dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prunedge.edge import open_bundle
from prunedge.edge.runtime import Session, open_session
from prunedge.export import export_bundle

SIZE = 16


class Darkest(nn.Module):
    """Logits of crack and noncrack from the darkest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.answer = nn.AdaptiveMaxPool2d(1), nn.Linear(3, 2)
        with torch.no_grad():
            self.answer.weight.copy_(torch.tensor([[4.0] * 3, [-4.0] * 3]))
            self.answer.bias.copy_(torch.tensor([-15.0, 15.0]))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.answer(self.pool(-pictures).flatten(1))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    out = tmp_path_factory.mktemp("bundle") / "darkest"
    named = {"model": "darkest", "classes": ["crack", "noncrack"]}
    return export_bundle(Darkest().eval(), out, size=SIZE, pictures=pictures, macs=1, params=8, **named).path


@pytest.fixture(scope="session")
def session(bundle: Path) -> Session:
    return open_session(open_bundle(bundle))


def wall(width: int, height: int, dark: tuple[tuple[int, int, int, int], ...] = (), seed: int = 0) -> Image.Image:
    """A bright photograph with dark boxes."""
    picture = Image.fromarray(np.random.default_rng(seed).normal(170, 8, (height, width, 3)).clip(0, 255).astype(np.uint8))
    for box in dark:
        picture.paste((10, 10, 10), box)
    return picture
