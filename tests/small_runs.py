"""Recipes of runs that take seconds, and what of a run must be the same each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.latency import Timer
from prunedge.latency.side_by_side import Milliseconds, SideBySide
from prunedge.runs import small
from prunedge.runs.run import Run, open_run


def small_recipe(data: Path, **changes: Any) -> RunConfig:
    """Two epochs of training, then one bold step that no rule takes back, on tiny images."""
    values = {
        "model": "tests.runs.test_run:small",
        "weights": "none",
        "size": 16,
        "train_epochs": 2,
        "precision": "32",
        "step_ratio": 0.3,
        "max_drop": 100.0,
        "max_steps": 1,
        "epochs": 1,
        "polish": 0,
        "batch_size": 8,
        "seed": 3,
    }
    return RunConfig.make("test", data=str(data), **{**values, **changes})


def onward(recipe: RunConfig, start: Path, **changes: Any) -> RunConfig:
    """The recipe of a run that goes on from another, on its images."""
    return recipe.with_values(
        **{
            "start": str(start),
            "train_epochs": 0,
            "schedule_epochs": recipe.train.epochs,
            **changes,
        }
    )


def leave_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are neither exported nor timed, which takes longer than their training here."""

    def times(models: Mapping[str, nn.Module], example: torch.Tensor, timer: Timer) -> SideBySide:
        ms = dict.fromkeys(models, Milliseconds(1.0, 1.0, 1.0))
        return SideBySide(ms, timer, "none", {"processor": "none"})

    monkeypatch.setattr(small, "time_side_by_side", times)
    monkeypatch.setattr(small, "require_exportable", lambda model, example: None)


def essence(run: Run | Path) -> list[dict[str, object]]:
    """A run's history without how long anything took."""
    steps = (open_run(run) if isinstance(run, Path) else run).steps()
    return [
        {key: value for key, value in step.to_json().items() if not key.startswith("seconds")}
        for step in steps
    ]
