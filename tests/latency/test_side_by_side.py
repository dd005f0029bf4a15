"""Models timed in rounds: each by the median of its own rounds, with the fastest and the slowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge.latency import Timer, side_by_side
from prunedge.latency.side_by_side import ROUNDS, Milliseconds, time_side_by_side
from prunedge.latency.timer import Timed

EXAMPLE = torch.zeros(2, 3, 16, 16)


def test_a_model_s_time_is_the_median_of_its_rounds_with_the_extremes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def written(models: Sequence[nn.Module], example: object, folder: Path) -> dict[str, Path]:
        return {f"model-{number}.onnx": folder for number in range(len(models))}

    def timed_once(timer: Timer, files: Mapping[str, Path]) -> Timed:
        """Every round is slower by 1 ms, and the second model takes twice as long."""
        asked.append(list(files))
        ms = {name: float(len(asked) * (place + 1)) for place, name in enumerate(files)}
        return Timed(ms, "a runtime", {"processor": "a board"})

    monkeypatch.setattr(side_by_side, "write_models", written)
    monkeypatch.setattr(Timer, "time", timed_once)
    timed = time_side_by_side({"a": nn.Identity(), "b": nn.Identity()}, EXAMPLE, Timer())
    assert timed.ms == {"a": Milliseconds(3.0, 1.0, 5.0), "b": Milliseconds(6.0, 2.0, 10.0)}
    assert asked == [["model-0.onnx", "model-1.onnx"]] * ROUNDS
    record = timed.to_json()
    assert record["ms"]["b"] == {"median": 6.0, "low": 2.0, "high": 10.0}
    assert (record["address"], record["runtime"]) == ("local", "a runtime")
