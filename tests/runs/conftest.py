"""Finished runs that many tests look at, and copy before they harm them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.runs import execute
from prunedge.runs.profile import profiled
from tests.small_runs import leave_untimed
from tests.tiny_images import write_tiny


@pytest.fixture(scope="session")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went on from a pruned one, twice, with every file that a run may have but for a device's."""
    root = tmp_path_factory.mktemp("chained")
    config = RunConfig.make(
        "test",
        data=str(write_tiny(root / "images")),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=100.0,
        max_steps=1,
        epochs=1,
        polish=0,
        batch_size=8,
        seed=3,
    )
    execute.prune(config, root / "start")

    onward = config.with_values(
        start=str(root / "start"),
        train_epochs=0,
        schedule_epochs=3,
        baseline=["random"],
        small=["tests.runs.test_run:normless=none"],
    )
    with pytest.MonkeyPatch.context() as patched:
        leave_untimed(patched)
        with profiled(root / "run"):
            execute.prune(onward, root / "run")
        execute.resume(root / "run", None, {"max_steps": 2})
    return root / "run"


@pytest.fixture
def copied(chained: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of the `start` or of the `run` that went on from it."""

    def copy(name: str) -> Path:
        return shutil.copytree(chained.parent / name, tmp_path / name)

    return copy
