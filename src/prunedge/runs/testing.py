"""Models on the test split: the metrics of each, and what the best one gets wrong that the
unpruned one got right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunedge.data import Dataset
from prunedge.data.paths import written
from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.deciding import decision_record
from prunedge.runs.leakage import MOST_COMPARED
from prunedge.runs.testing_gallery import gallery
from prunedge.tasks import Example, Meter, make_task
from prunedge.tasks.operating import detection_of
from prunedge.train import Engine, evaluate, observe


def on_test(
    models: Mapping[str, nn.Module],
    data: Dataset,
    engine: Engine,
    rule: OperatingRule | None = None,
) -> dict[str, Any]:
    """The metrics of each model on `data.test` by its name, and under `mistakes` what `best` gets
    wrong and `baseline` got right. Where test images look like training or validation images,
    `twins` says how many, and holds the metrics on the others. `decisions` are those of
    `prunedge.runs.deciding`, whose thresholds `rule` chooses on `data.val`; `wrong` and
    `borderline` the images of `prunedge.runs.testing_gallery`. Plain JSON values.
    """
    task = make_task(data.spec)
    meters = {name: observe(model, data.test, engine, task) for name, model in models.items()}
    tested: dict[str, Any] = {name: meter.compute().to_json() for name, meter in meters.items()}
    if "best" in meters and "baseline" in meters:
        examples = task.examples(meters["baseline"], meters["best"])
        tested["mistakes"] = [_mistake(example, data) for example in examples]
        tested["twins"] = _twins(models, data, engine)
        tested["decisions"] = _decisions(models, meters, data, engine, rule)
        tested |= gallery(task, meters, tested["decisions"], data.test)
    return tested


def _decisions(
    models: Mapping[str, nn.Module],
    meters: Mapping[str, Meter],
    data: Dataset,
    engine: Engine,
    rule: OperatingRule | None,
) -> dict[str, Any]:
    """The decision record of each model, by its meter of the test split; {} where nothing tells
    damaged from sound.
    """
    task = make_task(data.spec)
    decisions = {}
    if detection_of(data.spec) is not None:
        for name, model in models.items():
            validation = observe(model, data.val, engine, task)
            record = decision_record(task, validation, meters[name], rule)
            if record is not None:
                decisions[name] = record
    return decisions


def _twins(models: Mapping[str, nn.Module], data: Dataset, engine: Engine) -> dict[str, Any] | None:
    """How many test images look like one of another split, and each model's metrics on the rest;
    None where none does, or where there are too many images to compare.
    """
    if sum(map(len, data.splits().values())) > MOST_COMPARED:
        return None
    # Hashing takes a second to import.
    from prunedge.data.duplicates import twins_in_test

    twins = twins_in_test(data)
    if not twins:
        return None
    others = sorted(set(range(len(data.test))) - set(twins))
    found: dict[str, Any] = {"count": len(twins), "without": {}}
    if others:
        rest = data.test.at(others)
        task = make_task(data.spec)
        for name, model in models.items():
            found["without"][name] = evaluate(model, rest, engine, task).to_json()
    return found


def _mistake(example: Example, data: Dataset) -> dict[str, Any]:
    return {
        "path": written(data.test.samples[example.index].path),
        "label": example.truth,
        "baseline": example.before,
        "best": example.after,
        "p_baseline": example.confidence_before,
        "p_best": example.confidence_after,
    }
