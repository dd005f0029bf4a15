"""Models on the test split: the metrics of each, and what the best one gets wrong that the
unpruned one got right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunedge.data import Dataset
from prunedge.data.paths import written
from prunedge.tasks import Example, make_task
from prunedge.train import Engine, observe


def on_test(models: Mapping[str, nn.Module], data: Dataset, engine: Engine) -> dict[str, Any]:
    """The metrics of each model on `data.test` by its name, and under `mistakes` what `best` gets
    wrong and `baseline` got right. Plain JSON values.
    """
    task = make_task(data.spec)
    meters = {name: observe(model, data.test, engine, task) for name, model in models.items()}
    tested: dict[str, Any] = {name: meter.compute().to_json() for name, meter in meters.items()}
    if "best" in meters and "baseline" in meters:
        examples = task.examples(meters["baseline"], meters["best"])
        tested["mistakes"] = [_mistake(example, data) for example in examples]
    return tested


def _mistake(example: Example, data: Dataset) -> dict[str, Any]:
    return {
        "path": written(data.test.samples[example.index].path),
        "label": example.truth,
        "baseline": example.before,
        "best": example.after,
        "p_baseline": example.confidence_before,
        "p_best": example.confidence_after,
    }
