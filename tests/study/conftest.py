"""A small grid over tiny images."""

from __future__ import annotations

from pathlib import Path

import pytest

VALUES = {
    "model": "tests.runs.test_run:small",
    "weights": "none",
    "size": 16,
    "train_epochs": 2,
    "step_ratio": 0.3,
    "max_drop": 60,
    "max_steps": 2,
    "epochs": 1,
    "polish": 0,
    "batch_size": 8,
    "precision": "32",
}


@pytest.fixture
def values(tiny_data: Path) -> dict[str, object]:
    """Of a grid, without an axis."""
    return {"data": str(tiny_data), **VALUES}
