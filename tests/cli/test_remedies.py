"""What an error's line says is what can be done there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.runs import execute
from tests.refusals import refusal
from tests.tiny_images import write_tiny


def test_two_models(tmp_path: Path) -> None:
    assert "not both" in refusal("groups", "--model", "resnet18", "--from", tmp_path)


def test_a_study_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    assert "study.toml" in refusal("report", tmp_path)


def test_thousands_of_faults_are_one_short_line(tmp_path: Path) -> None:
    lines = "".join(f"{number}.png,\n" for number in range(3000))
    (tmp_path / "manifest.csv").write_text(f"path,label\n{lines}")
    said = refusal("check", tmp_path)
    assert "3,000 images without label, 0.png first" in said
    assert len(said) < 500


class Patched(nn.Module):
    """A model that takes images of one size alone."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16 * 16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).flatten(1))


def patched(num_classes: int) -> nn.Module:
    return Patched(num_classes)


def test_another_size() -> None:
    assert "try another --size" in refusal(
        "groups", "--model", "tests.cli.test_remedies:patched", "--size", 31
    )


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose images are gone."""
    root = tmp_path_factory.mktemp("moved")
    images = write_tiny(root / "images")
    values = {
        "model": "tests.runs.test_run:small",
        "weights": "none",
        "size": 16,
        "train_epochs": 2,
        "precision": "32",
        "max_steps": 1,
    }
    execute.prune(
        RunConfig.make("test", data=str(images), batch_size=8, seed=3, max_drop=100.0, **values),
        root / "run",
    )
    shutil.rmtree(images)
    return root / "run"


def test_images_that_moved(moved: Path, tmp_path: Path) -> None:
    resume = f"prunedge prune DATA --resume {moved}"
    for words, remedy in (
        (["export", moved, "--out", tmp_path / "bundle"], resume),
        (["audit", moved], f"prunedge audit {moved} DATA"),
        (["prune", "--resume", moved, "--max-steps", 2], resume),
        (
            ["prune", "--from", moved, "--out", tmp_path / "on"],
            f"prunedge prune DATA --from {moved}",
        ),
    ):
        line = refusal(*words)
        assert "are gone" in line
        assert remedy in line


def test_a_target_latency_for_a_run_without_a_device(moved: Path) -> None:
    line = refusal("prune", "--resume", moved, "--target-latency", "5ms")
    assert "--target-latency needs --device" in line
