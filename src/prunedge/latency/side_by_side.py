"""Models timed beside each other in one go, with what their times vary by."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from prunedge.latency.steering import write_models
from prunedge.latency.timer import Timer

ROUNDS = 5


@dataclass(frozen=True)
class Milliseconds:
    """How long an image takes: the median of the rounds, the fastest and the slowest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class SideBySide:
    """Milliseconds of each model by its name, and what they were measured with."""

    ms: Mapping[str, Milliseconds]
    timer: Timer
    runtime: str
    device: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return {
            **asdict(self.timer),
            "runtime": self.runtime,
            "device": dict(self.device),
            "ms": {name: asdict(ms) for name, ms in self.ms.items()},
        }


def time_side_by_side(
    models: Mapping[str, nn.Module], example: torch.Tensor, timer: Timer
) -> SideBySide:
    """Time models for one image in `ROUNDS` rounds, in each of which their runs alternate: what
    slows the machine for a while slows all alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = write_models(list(models.values()), example, Path(folder))
        rounds = [timer.time(files) for _ in range(ROUNDS)]

    ms = {}
    for name, file in zip(models, files, strict=True):
        times = [timed.ms[file] for timed in rounds]
        ms[name] = Milliseconds(median(times), min(times), max(times))
    return SideBySide(ms, timer, rounds[0].runtime, rounds[0].device)


def require_exportable(model: nn.Module, example: torch.Tensor) -> None:
    """ExportError where a model can't be timed since torch can't export it."""
    with tempfile.TemporaryDirectory() as folder:
        write_models([model], example, Path(folder))
