"""Recipes of runs that take seconds, and what of a run must be the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunedge.config import RunConfig
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


def essence(run: Run | Path) -> list[dict[str, object]]:
    """A run's history without how long anything took."""
    steps = (open_run(run) if isinstance(run, Path) else run).steps()
    return [
        {key: value for key, value in step.to_json().items() if not key.startswith("seconds")}
        for step in steps
    ]
