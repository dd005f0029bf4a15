"""Models on the test split: the metrics of each, and what the best one gets wrong that the
unpruned one got right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from prunedge.data import Dataset
from prunedge.data.paths import written
from prunedge.edge.tasks.decision import OperatingRule
from prunedge.runs.data_record import twins_of, without_twins
from prunedge.runs.deciding import decision_record
from prunedge.runs.testing_gallery import decided_on, gallery
from prunedge.tasks import Example, Meter, make_task
from prunedge.tasks.operating import detection_of
from prunedge.train import Engine, evaluate, observe

if TYPE_CHECKING:
    from prunedge.data.duplicates import Twin


def on_test(
    models: Mapping[str, nn.Module],
    data: Dataset,
    engine: Engine,
    rule: OperatingRule | None = None,
    twins: Sequence[Twin] | None = None,
) -> dict[str, Any]:
    """The metrics of each model on `data.test` by its name, and under `mistakes` what `best` gets
    wrong and `baseline` got right. Where test images look like training or validation images
    (`twins`, which are looked for unless given), `twins` says how many, and holds the metrics on
    the others, and what the decisions find of these. `decisions` are those of
    `prunedge.runs.deciding`, whose thresholds `rule` chooses on `data.val`; `wrong` and
    `borderline` the images of `prunedge.runs.testing_gallery`. Plain JSON values.
    """
    task = make_task(data.spec)
    meters = {name: observe(model, data.test, engine, task) for name, model in models.items()}
    tested: dict[str, Any] = {name: meter.compute().to_json() for name, meter in meters.items()}
    if "best" in meters and "baseline" in meters:
        examples = task.examples(meters["baseline"], meters["best"])
        tested["mistakes"] = [_mistake(example, data) for example in examples]
        tested["decisions"] = _decisions(models, meters, data, engine, rule)
        twins = twins_of(data) if twins is None else twins
        tested["twins"] = None
        if twins:
            others = without_twins(data, twins)
            tested["twins"] = {
                "count": len(twins),
                "without": _metrics_on(others, models, data, engine),
                "decided": decided_on(others, task, meters, tested["decisions"]),
            }
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


def _metrics_on(
    places: list[int], models: Mapping[str, nn.Module], data: Dataset, engine: Engine
) -> dict[str, Any]:
    """The metrics of each model on these test images alone, by its name; {} without any."""
    if not places:
        return {}
    task = make_task(data.spec)
    rest = data.test.at(places)
    return {name: evaluate(model, rest, engine, task).to_json() for name, model in models.items()}


def _mistake(example: Example, data: Dataset) -> dict[str, Any]:
    return {
        "path": written(data.test.samples[example.index].path),
        "label": example.truth,
        "baseline": example.before,
        "best": example.after,
        "p_baseline": example.confidence_before,
        "p_best": example.confidence_after,
    }
