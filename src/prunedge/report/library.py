"""What a user of the library calls around the pruning: train, evaluate, export, report. A run
folder is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.config.keyword_types import FitKeywords, PruneKeywords
from prunedge.config.keywords import fit_keys, prune_keys, with_keywords
from prunedge.data import Dataset
from prunedge.data.dataset import require_batches, require_dataset
from prunedge.edge import Bundle
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import scale_rows
from prunedge.edge.tasks.decision import OperatingRule, rule_in
from prunedge.edge.tasks.metric import as_drop
from prunedge.errors import ExportError, PrunedgeError
from prunedge.export.onnx import OPSET, OnnxOptions
from prunedge.graph import trace
from prunedge.graph.inputs import brought_to
from prunedge.graph.plan import Plan
from prunedge.models import build, cost
from prunedge.models.build import require_model
from prunedge.models.cost import evaluating
from prunedge.pruning.from_config import refuse_wrong_metric, transfer_settings
from prunedge.pruning.judging import judged
from prunedge.pruning.steps import Step, handed_over
from prunedge.report import write_loop_report
from prunedge.runs.deciding import refuse_undecided
from prunedge.runs.export import bundle_of
from prunedge.runs.testing import on_test
from prunedge.tasks import Metrics, make_task, metric_named, refuse_ending
from prunedge.train import (
    Engine,
    FitResult,
    Penalty,
    Progress,
    TrainExtras,
    make_engine,
    measure_engine,
    penalty,
    require_engine,
    transfer,
)
from prunedge.train.evaluate import evaluate as judge
from prunedge.utils.advice import OF_TRAINING, option, place, speaking
from prunedge.utils.arguments import require, require_path

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@with_keywords(fit_keys(), names=OF_TRAINING)
def fit(
    model: nn.Module,
    data: Dataset,
    *,
    pretrained: bool = True,
    engine: Engine | None = None,
    progress: Progress | None = None,
    **settings: Unpack[FitKeywords],
) -> FitResult:
    """Train all of `model` on `data.train`, in place, and leave it in the state of the epoch that
    was best on `data.val`.

    `model` takes images (N, channels, S, S) float32, as `data` has them, and gives logits (N,
    classes). `pretrained` says that the weights come from other images (`weights="imagenet"`), or
    that `model` was trained before, so that gentle steps suffice; give False for random weights.
    The same `seed`, engine and number of threads give the same weights. `engine`
    (`pe.make_engine("32")`) computes; without it the fastest here is measured.
    `progress(done, total, what)` hears of batches.

    Gives the result of the training: `val` holds the `Metrics` of that epoch, `history` each epoch.
    Raises ConfigError (a ValueError) for settings that can't be followed, all of them at once;
    TrainError when the training goes astray or the labels don't fit the outputs.

    Example: `pe.fit(model, data, epochs=10).val.accuracy`
    """
    require_model(model)
    require_dataset(data)
    if engine is not None:
        require_engine(engine)
    _refuse_other_outputs(model, data)
    with speaking(place(), "train"):
        config = RunConfig.make(
            "fit",
            **_given(data),
            model="given",
            weights="imagenet" if pretrained else "none",
            **settings,
        )
        refuse_wrong_metric(config)
        config, data = judged(config, data)
    extras = TrainExtras(penalty=_penalty(model, data, config), progress=progress)
    return transfer(
        model,
        data,
        replace(transfer_settings(config, data), lr=config.train.lr),
        engine=engine or measure_engine(model, data.example(8), task=make_task(data.spec)),
        seed=config.data.seed,
        extras=extras,
    )


def evaluate(model: nn.Module, batches: Batches, *, engine: Engine | None = None) -> Metrics:
    """How good `model` is on a split (`data.val`, `data.test`), or on any batches ((N, 3, S, S)
    float32, (N,) int64 labels).

    In evaluation mode and float32, whatever it was trained in; `model` stays as it was. Gives the
    task's `Metrics`: for classification `accuracy`, `f1`, `auroc`, `balanced_accuracy` and those of
    damage (`metrics.value("recall@alarms=0.05")`; of another level with
    `data.judged_by("recall@alarms=0.03").test`) are shares from 0 to 1, `loss` is the mean
    cross-entropy, `confusion[true][predicted]` counts images; for multilabel `map`,
    `f1`, `exact`, and the `average_precision` of each class; for ordinal `kappa`, `degrees_off`,
    `two_off` and `accuracy`; for regression `mae` and `rmse` in the numbers' own unit, and `r2`.
    Raises TrainError when there is no
    image, the outputs aren't finite, or a label is beyond the outputs.

    Example: `pe.evaluate(model, data.test).accuracy`
    """
    require_model(model)
    require_batches(batches)
    engine = engine or make_engine("32")
    require_engine(engine)
    return judge(model, batches, engine)


def export_bundle(
    model: nn.Module,
    data: Dataset,
    out: Path | str,
    *,
    model_name: str,
    formats: Sequence[str] = ("onnx",),
    plan: Plan | None = None,
    metric: str | None = None,
    max_int8_drop: float | str | None = None,
    operate: str | None = None,
    opset: int | None = None,
    fixed_batch: int | None = None,
) -> Bundle:
    """Write the bundle that a device needs into the new folder `out`: the model, labels,
    preprocessing, a self-test, checksums.

    `model_name` is the name that `pe.build` made the model by, pruned since or not: `pe.load(out)`
    builds it again by that name. Every form in `formats` (the names in
    `prunedge.edge.targets.TARGETS`) is run by its own runtime and compared with torch on images of
    `data.val`; one in integers is calibrated on `data.train` and may lose `max_int8_drop` of
    `metric` on `data.val`: points, or the metric's own unit, or a share of its value (`"5%"`); 1
    point unless given, 5 % of what has a unit of its own. `plan` says which channels stayed,
    counted in the unpruned model; without it the bundle doesn't say. `operate` says where damage is
    reported from, which `data.val` decides for each form: `"recall >= 0.95"`, `"alarms <= 0.02"`,
    or `"cost"` (`pe.load_folder(..., costs="miss=50,alarm=1")`). `opset` is the version of ONNX's
    operations (18 unless given), `fixed_batch` how many images the ONNX file, and what is made of
    it, takes at a time (any number unless given).

    Raises ExportError when `out` holds something, a form differs or loses too much, or `model_name`
    is not this model's; ExtraMissing when a runtime is not installed. Where others of several
    `formats` could be exported, `out` has them, and it is an `errors.PartialExport`.

    Example: `pe.export_bundle(model, data, "bundles/cracks", model_name="resnet18",
    formats=("onnx", "onnx-int8"))`
    """
    require_model(model)
    require_dataset(data)
    require_path("out", out)
    require("formats", formats, (list, tuple), 'a list of names, such as ["onnx"]')
    _refuse_other_outputs(model, data)
    _is_of_this_name(model, model_name, data)
    graph = trace(model, data.example())
    judged_by = metric_named(metric, data.spec.name).name
    data = data.judged_by(judged_by)
    metrics = {"validation": {judged_by: evaluate(model, data.val).value(judged_by)}}
    return bundle_of(
        model,
        data,
        Path(out),
        model_name=model_name,
        metric=judged_by,
        metrics=metrics,
        macs=graph.macs(),
        params=graph.params(),
        formats=formats,
        max_int8_drop=None if max_int8_drop is None else as_drop(max_int8_drop),
        plan=plan,
        about={"data_fingerprint": data.fingerprint},
        seed=0,
        rule=_rule(operate, data),
        onnx_options=OnnxOptions(OPSET if opset is None else opset, fixed_batch),
    )


def _rule(operate: str | None, data: Dataset) -> OperatingRule | None:
    """Where damage is reported from; PrunedgeError where that is none."""
    if operate is None:
        return None
    try:
        rule = rule_in(operate, data.damage.costs)
    except ValueError as error:
        where = option("operate", operate)
        raise PrunedgeError(str(error), where=where, remedy="mend this value") from None
    refuse_undecided(data.spec, rule)
    return rule


@with_keywords(prune_keys())
def write_report(
    out: Path | str,
    steps: Sequence[Step],
    data: Dataset,
    *,
    models: tuple[nn.Module, nn.Module] | None = None,
    model_name: str = "model",
    operate: str | None = None,
    **settings: Unpack[PruneKeywords],
) -> Path:
    """Write the page of a loop (`pe.prune`) as one HTML file, and give its path.

    `steps` are those that the loop gave, the unpruned model's first. `models` are the unpruned
    and the best model: they are measured on `data.test`, which nothing should have looked at
    before, and the page shows what pruning got wrong. `operate` is where damage is reported from
    (`export_bundle`). The settings are those that the loop was
    called with, which the page tells: of what is not given, the rule (`max_drop`) too, it says
    nothing. Raises PrunedgeError without steps or with a `metric` that the loop did not watch,
    RunError when the page can't be written.

    Example: `pe.write_report("report.html", steps, data, models=(model, best),
    model_name="resnet18")`
    """
    require_dataset(data)
    if not steps:
        raise PrunedgeError(
            "there is no step to report",
            remedy="collect them: steps = [step for step, _ in pe.prune(model, data)]",
        )
    for step in steps:
        require("steps", step, Step, "the list of steps that the loop gave")
    if models is not None:
        for one in models if isinstance(models, tuple) else (models,):
            require_model(one)
        if not isinstance(models, tuple) or len(models) != 2:
            raise TypeError("models is a pair, (unpruned, best)")
    config = _config_of_loop(steps, data, model_name, settings)
    test = None
    if models is not None:
        first, best = models
        both = {"baseline": first, "best": best}
        measured = data.judged_by(config.task.metric)
        test = on_test(both, measured, make_engine("32"), _rule(operate, data))
    return write_loop_report(
        Path(out), list(steps), handed_over(steps), config, test, set(settings)
    )


def _config_of_loop(
    steps: Sequence[Step], data: Dataset, model_name: str, settings: PruneKeywords
) -> RunConfig:
    """What the loop was called with, as a run's config."""
    values: dict[str, Any] = dict(settings)
    values["metric"] = _metric_watched(steps, data, settings.get("metric"))
    if steps[0].latency_ms is not None:
        values["device"] = "given"  # as an object, whose address nobody knows
    config = RunConfig.make(
        "write_report",
        **_given(data),
        model=model_name,
        classes=list(data.classes),
        scales=scale_rows(data.spec.scales),
        **values,
    )
    refuse_wrong_metric(config)
    return config


def _metric_watched(steps: Sequence[Step], data: Dataset, asked: str | None) -> str:
    """The metric whose value the loop's rule watched in every step; PrunedgeError where it is not
    the one `asked`.
    """
    definition = DEFINITIONS[data.spec.name]
    if asked is not None:
        asked = metric_named(asked, data.spec.name, where=option("metric", asked)).name
    watched = []
    measured = [name for name in steps[0].metrics if name not in definition.metrics]
    for name in (*definition.metrics, *measured):
        if all(step.metrics.get(name) == step.metric_after for step in steps):
            watched.append(name)
    if asked is None and watched:
        return watched[0]
    if asked is not None and asked in watched:
        return asked
    raise PrunedgeError(
        f"the loop did not watch {asked or ' or '.join(definition.metrics)}",
        where=option("metric", asked),
        remedy="give the steps of one pe.prune on this data, and its own metric",
    )


def _given(data: Dataset) -> dict[str, Any]:
    """What a run's config says of images that are loaded already."""
    return {
        "data": str(data.root),
        "size": data.size,
        "resize": data.resize,
        "in_channels": data.in_channels,
        "image_norm": data.image_norm,
        "task": data.spec.name,
    }


def _penalty(model: nn.Module, data: Dataset, config: RunConfig) -> Penalty | None:
    """What draws channels to zero; without it the channels need not be known."""
    if config.train.sparsity == "none":
        return None
    graph = trace(model, data.example())
    return penalty(config.train.sparsity, graph, config.train.sparsity_strength)


def _refuse_other_outputs(model: nn.Module, data: Dataset) -> None:
    """ModelError where a model gives other outputs than those of a logit for each class."""
    example = brought_to(data.example(2), model)
    task = make_task(data.spec)
    name = type(model).__name__
    cost(model, example)  # does it take images of this size and so many channels?
    with evaluating(model), torch.no_grad():
        output = model(example)
    task.refuse_outputs(output, name)
    refuse_ending(model, example, task, name)


def _is_of_this_name(model: nn.Module, model_name: str, data: Dataset) -> None:
    """ExportError when the model of that name has other tensors: `pe.load` could not build it
    again.
    """
    outputs = make_task(data.spec).outputs
    named = build(model_name, outputs, "none", in_channels=data.in_channels).state_dict()
    mine = model.state_dict()
    if named.keys() != mine.keys() or any(named[key].ndim != mine[key].ndim for key in named):
        what = f"'{model_name}' is another model than the one that is exported"
        raise ExportError(
            what, where="model_name=", remedy="give the name that pe.build made it by"
        )
