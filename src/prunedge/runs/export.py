"""From a run to the device: its models as bundles, and their time here beside each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from prunedge.data.patch_names import are_patches
from prunedge.data.stored import looks_of
from prunedge.edge import Bundle, Candidate, bench, open_bundle
from prunedge.edge.bench.measure import BenchResult
from prunedge.edge.manifest import View, view_of
from prunedge.edge.runtimes import Model
from prunedge.edge.tasks import decoder_of, finds_pixels
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import OperatingRule
from prunedge.edge.tasks.metric import POINTS, Drop
from prunedge.export import Comparison, Judge, export_bundle
from prunedge.export.bundle import refuse_full
from prunedge.export.onnx import OnnxOptions
from prunedge.graph import trace
from prunedge.graph.plan import Plan
from prunedge.pruning.steps import Step
from prunedge.runs.data_record import NAME, DataRecord
from prunedge.runs.deciding import chosen_aloud, refuse_undecided
from prunedge.runs.images import images_of
from prunedge.runs.new import writing
from prunedge.runs.run import Run
from prunedge.runs.run_models import require_plan
from prunedge.runs.task import task_of
from prunedge.runs.training import taught
from prunedge.tasks import make_task, metric_named
from prunedge.tasks.operating import (
    Answers,
    Chosen,
    counts_of,
    decide,
    detection_of,
    with_decision,
)
from prunedge.train import make_engine, observe
from prunedge.train.collapse import one_class_warning

if TYPE_CHECKING:
    from pathlib import Path

    from prunedge.data import Dataset

log = logging.getLogger(__name__)

CHECKED = 32  # validation images on which a bundle is compared with torch
USUAL_POINTS = 1.0  # that eight-bit integers may cost, where the metric is a share
CALIBRATED = 128  # training images that show which numbers eight-bit integers must hold


def write_bundle(
    run: Run,
    out: Path,
    step: int | None = None,
    formats: Sequence[str] = ("onnx",),
    max_int8_drop: Drop | None = None,
    *,
    baseline: bool = False,
    rule: OperatingRule | None = None,
    onnx_options: OnnxOptions | None = None,
) -> Bundle:
    """Export the step at this place in a run's history (None: the best), or with `baseline` the
    first, unpruned model of its chain.

    A form in integers may lose `max_int8_drop` of the run's metric on the validation split, in its
    unit or as a share (`5%`) of the float model's: 1 point unless given, or 5% of what has a unit
    of its own. Where damage is reported from, is chosen on the validation split by `rule`, the
    run's own unless given.
    """
    refuse_full(out)  # before the work
    if onnx_options is not None:
        onnx_options.require_possible()
    if rule is not None:
        spec = task_of(run.config).spec
        assert spec is not None
        refuse_undecided(spec, rule)
    chosen = _first_of(run) if baseline else _step_of(run, step)
    config = run.config
    if chosen.step.only_answer is not None:
        answer = task_of(config).answer_name(chosen.step.only_answer)
        log.warning("mind: %s", one_class_warning(answer, taught(run)))
    data = images_of(config, run.verb(), "DATA", "--resume", run.path)
    if chosen.index is not None and chosen.plan.keep:
        require_plan(run, chosen.index, trace(run.load_first(), data.example()))
    metrics: dict[str, Any] = {"validation": {config.task.metric: chosen.step.metric_after}}
    if chosen.test:
        metrics["test"] = {name: chosen.test[name] for name in task_of(config).metrics}
    twins = _twins(run, chosen.tested, has_own_rule=rule is None)
    if twins is not None:
        metrics["test_twins"] = twins
    about = {
        "run_step": None if chosen.index is None else chosen.step.number,
        "model": chosen.name,
        "data_fingerprint": config.data.fingerprint,
    }
    return bundle_of(
        chosen.model,
        data,
        out,
        model_name=config.model.name,
        metric=config.task.metric,
        metrics=metrics,
        macs=chosen.step.macs,
        params=chosen.step.params,
        formats=formats,
        max_int8_drop=max_int8_drop,
        plan=chosen.plan,
        about=about,
        seed=config.data.seed,
        rule=config.task.rule if rule is None else rule,
        onnx_options=onnx_options,
    )


def bundle_of(
    model: nn.Module,
    data: Dataset,
    out: Path,
    *,
    model_name: str,
    metric: str,
    metrics: Mapping[str, Any],
    macs: int,
    params: int,
    formats: Sequence[str],
    max_int8_drop: Drop | None,
    plan: Plan | None,
    about: Mapping[str, Any],
    seed: int,
    rule: OperatingRule | None = None,
    onnx_options: OnnxOptions | None = None,
) -> Bundle:
    """Export a model, compared on validation images, calibrated on training images (drawn by
    `seed`), judged on validation data, where its decision is chosen as well (by `rule`).
    """
    chosen = _chosen_on_validation(model, data, rule)
    decision = None if chosen is None else chosen.decision
    spec = with_decision(data.spec, decision)
    if chosen is not None and chosen.decision.threshold is not None:
        counts = chosen.counts
        figures = {"recall": counts.recall, "alarms": counts.alarm_rate}
        metrics = {**metrics, "decision": figures}
    return export_bundle(
        model,
        out,
        model_name=model_name,
        task=spec,
        images=next(iter(data.val.take(CHECKED).batches(CHECKED)))[0],
        macs=macs,
        params=params,
        formats=formats,
        calibration=next(iter(data.train.take(CALIBRATED, seed).batches(CALIBRATED)))[0],
        judge=_judge(data, spec, metric, max_int8_drop, rule),
        plan=None if plan is None else plan.keep,
        about=about,
        metrics=metrics,
        view=_view(data),
        greys=data.greys,
        image_norm=data.image_norm,
        onnx_options=onnx_options,
    )


def _chosen_on_validation(
    model: nn.Module, data: Dataset, rule: OperatingRule | None
) -> Chosen | None:
    """What validation images choose for a model; None of tasks that have no decision. A line says
    where the rule is none to work with.
    """
    task = make_task(data.spec)
    if detection_of(data.spec) is None and rule is None:
        return None
    return chosen_aloud(task, observe(model, data.val, make_engine("32"), task), rule)


def _judge(
    data: Dataset, spec: TaskSpec, name: str, drop: Drop | None, rule: OperatingRule | None
) -> Judge:
    """What judges a form in integers, by the metric of that name; `spec` has the float model's
    decision.
    """
    metric = metric_named(name, spec.name)
    usual = USUAL_POINTS if metric.unit == POINTS else metric.usual_drop
    compare = partial(_compare, data, spec, name, rule)
    return Judge(metric, compare, usual if drop is None else drop)


def _compare(
    data: Dataset,
    spec: TaskSpec,
    metric: str,
    rule: OperatingRule | None,
    float_model: Model,
    form: Model,
) -> Comparison:
    """Both models on the validation split, batch by batch. Outputs are kept of tasks that have a
    decision alone, a few numbers an image.
    """
    task = make_task(data.spec)
    decoder = decoder_of(spec)
    meters = (task.meter(), task.meter())
    alike = _Alike()
    for inputs, targets in data.val.batches(32):
        pixels = inputs.numpy()
        outputs = (float_model(pixels), form(pixels))
        for meter, answered in zip(meters, outputs, strict=True):
            meter.update(meter.observe(torch.from_numpy(answered), targets))
        alike.add(
            decoder.agreement(outputs[1], outputs[0], tolerance=0.0),
            decoder.differences(outputs[1], outputs[0]),
        )
    before, after = (meter.compute().value(metric) for meter in meters)
    compared = Comparison(before, after, alike.images, alike.agreement, alike.differences)
    if spec.decision is None:
        return compared
    of_float, of_form = (Answers(*task.kept(meter)) for meter in meters)
    chosen = decide(data.spec, of_form, rule)
    if chosen is None:
        return compared
    counts_float = counts_of(data.spec, spec.decision, of_float)
    return replace(
        compared,
        agreement=_same_answers(spec, of_float, with_decision(spec, chosen.decision), of_form),
        decision=chosen.decision,
        figures={
            "recall_float": counts_float.recall,
            "alarms_float": counts_float.alarm_rate,
            "recall": chosen.counts.recall,
            "alarms": chosen.counts.alarm_rate,
        },
    )


def _same_answers(spec: TaskSpec, first: Answers, other: TaskSpec, second: Answers) -> float:
    """The share of images with the same answer, each model by its own decision."""
    told = []
    for each, answers in ((spec, first), (other, second)):
        decoder = decoder_of(each)
        told.append(decoder.answers(decoder.decode(answers.outputs)))
    same = sum(one == another for one, another in zip(*told, strict=True))
    return same / len(told[0])


@dataclass
class _Alike:
    """How alike two models' answers are, over the batches so far."""

    images: int = 0
    same: float = 0.0
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def agreement(self) -> float:
        """The share of answers that are the same."""
        return self.same / self.images

    def add(self, agreement: np.ndarray, differences: Mapping[str, float]) -> None:
        """Take in a batch: the agreement of each image, and the differences of all."""
        count = len(agreement)
        total = self.images + count
        for name, value in differences.items():
            before = self.differences.get(name, 0.0)
            if name.startswith("largest"):
                self.differences[name] = max(before, value)
            else:
                self.differences[name] = (before * self.images + value * count) / total
        self.same += float(agreement.sum())
        self.images = total


@dataclass(frozen=True)
class _Chosen:
    """A model of a run, with what the run knows about it. `index` is its step's place in this run's
    history, None where it is none of its own; `tested` what test.json calls it, None where it was
    not tested.
    """

    name: str
    model: nn.Module
    plan: Plan
    step: Step
    index: int | None
    tested: str | None
    test: Mapping[str, Any] | None


def _twins(run: Run, tested: str | None, *, has_own_rule: bool) -> dict[str, Any] | None:
    """How many test images look like one that the model learned from or was chosen by, and the
    metrics of a model, as test.json calls it, without them, with what the run's own rule finds of
    these; None where there are none, or nobody knows.
    """
    record = run.read_as(NAME, DataRecord.model_validate)
    twins = (run.test() or {}).get("twins")
    if twins and tested is not None:
        names = task_of(run.config).metrics
        without = twins["without"].get(tested, {})
        told = {"count": twins["count"], "without": {name: without.get(name) for name in names}}
        if has_own_rule and tested in twins.get("decided", {}):
            told["decided"] = twins["decided"][tested]
        return told
    if record is None or record.twins is None or not record.twins.count:
        return None
    return {"count": record.twins.count}


def _first_of(run: Run) -> _Chosen:
    first, chain = run.first(), run.chain()
    index = 0 if chain is None or chain.first is None else None
    test = (run.test() or {}).get("baseline")
    tested = None if test is None else "baseline"
    return _Chosen(run.references()[0].name, run.load_first(), Plan({}), first, index, tested, test)


def _step_of(run: Run, step: int | None) -> _Chosen:
    best = run.best().index
    wanted = best if step is None else step
    state = run.state(wanted)
    chosen = next(step for step in run.steps() if step.index == wanted)
    tested = {0: run.references()[-1].tested, best: "best"}.get(wanted)
    test = (run.test() or {}).get(tested) if tested else None
    name = run.references()[-1].name if wanted == 0 else chosen.name
    if test is None:
        tested = None
    return _Chosen(name, state.model, state.plan, chosen, wanted, tested, test)


def _view(data: Dataset) -> View:
    """What the training images showed."""
    sizes = [(look.width, look.height) for look in looks_of(data.train)]
    names = [sample.path.stem for sample in data.train.samples]
    is_cut = finds_pixels(data.spec.name) or are_patches(names)
    return view_of(sizes, None if is_cut else data.size)


def time_bundles(
    run: Run, patches: int, progress: Callable[[int, int, str], None] | None = None
) -> BenchResult:
    """Export the unpruned and the best model into the run (what is there is kept), time both
    interleaved, and note it as its bench.
    """
    with writing(run.path):
        return _timed(run, patches, progress)


def _timed(run: Run, patches: int, progress: Callable[[int, int, str], None] | None) -> BenchResult:
    bundles = []
    for name, is_baseline in (("bundle-unpruned", True), ("bundle", False)):
        if not (run.path / name / "manifest.json").exists():
            write_bundle(run, run.path / name, baseline=is_baseline)
        bundles.append(Candidate(open_bundle(run.path / name)))
    measured = bench(bundles, patches=patches, progress=progress)
    run.write("bench.json", measured.to_json())
    return measured
