"""Models on the test split: the metrics of each, and what the best one gets wrong that the
unpruned one got right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunedge.data import Dataset
from prunedge.data.paths import written
from prunedge.train import Engine, measure, predict


def on_test(models: Mapping[str, nn.Module], data: Dataset, engine: Engine) -> dict[str, Any]:
    """The metrics of each model on `data.test` by its name, and under `mistakes` what `best` gets
    wrong and `baseline` got right.
    """
    answers = {name: predict(model, data.test, engine) for name, model in models.items()}
    found: dict[str, Any] = {name: metrics_of(*answer) for name, answer in answers.items()}
    probabilities, labels = answers["best"]
    found["mistakes"] = _mistakes(data, answers["baseline"][0], probabilities, labels)
    return found


def metrics_of(probabilities: Tensor, labels: Tensor) -> dict[str, Any]:
    """The metrics of these probabilities (n, classes) float32 against the labels (n,) int64, as
    plain JSON values.
    """
    return measure(probabilities.clamp_min(1e-30).log(), labels).to_json()


def _mistakes(data: Dataset, before: Tensor, after: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    wrong = (after.argmax(1) != labels) & (before.argmax(1) == labels)
    return [
        {
            "path": written(data.test.samples[i].path),
            "label": data.classes[int(labels[i])],
            "baseline": data.classes[int(before[i].argmax())],
            "best": data.classes[int(after[i].argmax())],
            "p_baseline": float(before[i].max()),
            "p_best": float(after[i].max()),
        }
        for i in wrong.nonzero().flatten().tolist()
    ]
