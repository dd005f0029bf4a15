"""A run that tests may copy and spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.runs import execute
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on tiny images, which lie beside it in `data`."""
    root = tmp_path_factory.mktemp("made")
    data = write_tiny(root / "data", 12, 16)
    config = RunConfig.make(
        "test",
        data=str(data),
        model="tests.small_models:tiny",
        weights="none",
        size=16,
        train_epochs=1,
        precision="32",
        lr=0.02,
        batch_size=8,
    )
    return execute.train(config, root / "run").path


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Path:
    """The run, for this test alone."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))
