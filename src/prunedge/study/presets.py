"""The questions that most users ask, each as a grid. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunedge.importance import CRITERIA
from prunedge.study.grid import Grid

EPOCHS = (1, 2, 5, 10)
FOLDS = 5
BENCH = 200  # patches


def crossval(
    data: Sequence[str], models: Sequence[str], folds: int, values: Mapping[str, Any]
) -> Grid:
    """How stable is it? Every image is tested once."""
    return Grid({**values, "data": list(data), "model": list(models), "folds": folds}, "crossval")


def epochs(
    data: Sequence[str], models: Sequence[str], counts: Sequence[int], values: Mapping[str, Any]
) -> Grid:
    """How few epochs of fine-tuning are enough, and what do they save? The same number in every
    step, unless more were asked for smaller models.
    """
    return Grid(
        {
            "growing_epochs": False,
            **values,
            "data": list(data),
            "model": list(models),
            "epochs": list(counts),
        },
        "epochs",
    )


def criteria(
    data: Sequence[str], models: Sequence[str], names: Sequence[str], values: Mapping[str, Any]
) -> Grid:
    """Which criterion? All from the same starting model; `random` is always among them, and the
    shape from random weights beside them.
    """
    chosen = list(dict.fromkeys([*(names or sorted(CRITERIA)), "random"]))
    return Grid(
        {
            "baseline": ["scratch"],
            **values,
            "data": list(data),
            "model": list(models),
            "criterion": chosen,
        },
        "criteria",
    )


def models(data: Sequence[str], models: Sequence[str], values: Mapping[str, Any]) -> Grid:
    """Which model? Where its filters go, time, size, MACs and accuracy side by side."""
    return Grid({**values, "data": list(data), "model": list(models)}, "models", bench=BENCH)
