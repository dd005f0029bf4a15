"""The self-test of a model whose outputs are large maps: fewer images, which can be read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import prunedge.edge.session as session_module
from prunedge.edge.image.size import square
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.export import export_bundle


class Pixels(nn.Module):
    """Two logits for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.conv(images))


def test_a_selftest_that_fits_is_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TaskSpec(name="segmentation", classes=("background", "crack"), size=square(64))
    # As 4 images of 1,280 pixels would be for the usual limit.
    limit = session_module.selftest_bytes(task) + 1000
    for place in ("prunedge.edge.session", "prunedge.export.bundle"):
        monkeypatch.setattr(f"{place}.LARGEST_SELFTEST", limit)
    model = Pixels().eval()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    bundle = export_bundle(
        model, tmp_path / "b", model_name="m", task=task, images=images, macs=1, params=1
    )
    assert open_session(bundle).self_test().images == 1
