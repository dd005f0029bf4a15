"""learning.json: the epochs in which each step's model was trained, by the step's index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunedge.pruning.steps import Iteration
from prunedge.runs.run import Run
from prunedge.train import Epoch

NAME = "learning.json"


@dataclass(frozen=True)
class LearnedEpoch:
    """An epoch: the mean training `loss` of an image, and the `metrics` on the validation split, by
    name (`loss` among them); None where only the last epoch was measured.
    """

    loss: float
    metrics: dict[str, float | None] | None


def note_epochs(run: Run, iteration: Iteration) -> None:
    """Keep the epochs of a step that is about to be committed; of one that took none, nothing."""
    if not iteration.epochs:
        return
    record = run.read(NAME) or {}
    epochs = [_to_json(epoch) for epoch in iteration.epochs]
    run.write(NAME, {**record, str(iteration.step.index): epochs})


def learned(run: Run) -> dict[int, list[LearnedEpoch]]:
    """The epochs of each step, by its index; {} where the run has none."""
    return run.read_as(NAME, _from_json) or {}


def _from_json(record: dict[str, Any]) -> dict[int, list[LearnedEpoch]]:
    steps = {}
    for index, epochs in record.items():
        steps[int(index)] = [LearnedEpoch(**epoch) for epoch in epochs]
    return steps


def _to_json(epoch: Epoch) -> dict[str, Any]:
    metrics = None
    if epoch.val is not None:
        metrics = {"loss": epoch.val.loss, **epoch.val.values}
    return {"loss": epoch.loss, "metrics": metrics}
