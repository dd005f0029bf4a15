"""One form of a model: written, run by its own runtime as the device will, and compared with torch
on real images; judged on validation data where it is not exact.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
import torch
from torch import nn

from prunedge.edge.manifest import ExportCheck, Form
from prunedge.edge.runtimes import Model, missing, runtime_of
from prunedge.edge.session import SelfTest, compare
from prunedge.edge.targets import ONNX, Target
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.decision import Decision
from prunedge.edge.tasks.metric import POINTS, Drop, Metric
from prunedge.errors import BundleError, ExportError
from prunedge.export.source import Source
from prunedge.utils.advice import option
from prunedge.utils.wording import figure

log = logging.getLogger(__name__)

WORSE = 0.03  # in recall or false alarms, from which on a form in integers is told to decide worse


@dataclass(frozen=True)
class Comparison:
    """A form beside the float model, on `images` of the validation split: the metric of both, the
    share of answers that are the same, and how far these are apart in their own unit
    (`Decoder.differences`). `decision` is the form's own, and `figures` are what comes of both
    models' decisions, by name; None and {} where there is nothing to decide.
    """

    before: float
    after: float
    images: int
    agreement: float
    differences: Mapping[str, float] = field(default_factory=dict)
    decision: Decision | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Says whether a form that is not exact is good enough.

    `compare` shows the float model and a form, in this order, the validation split; a form may lose
    `max_drop` of the metric (`prunedge.edge.tasks.metric.Drop`).
    """

    metric: Metric
    compare: Callable[[Model, Model], Comparison]
    max_drop: Drop = 1.0


class LosesTooMuch(ExportError):
    """A form in integers loses more of the metric than it may."""


@dataclass(frozen=True)
class Checks:
    """What every form is compared with: `images` (n, channels, height, width) float32, torch's
    outputs for them, `wanted` (n, ...) float32, and the judge of those that are not exact.
    """

    images: torch.Tensor
    wanted: np.ndarray
    judge: Judge | None

    @classmethod
    def of(cls, model: nn.Module, images: torch.Tensor, judge: Judge | None) -> Checks:
        """Those of a model as it was trained, before anything was done to it for the device."""
        with torch.no_grad():
            return cls(images, model(images).numpy(), judge)


def checked_form(target: Target, source: Source, checks: Checks) -> Form:
    """Write one form, run it as the device will, and compare; where integers lose too much, with
    ever more layers in float, the most sensitive first. Raises ExportError where it fails,
    differs or loses too much, ExtraMissing where its runtime is not installed.
    """
    try:
        exporter = import_module(f"prunedge.export.{target.name.replace('-', '_')}")
        files = exporter.write(source)
        if not target.runs_here:
            return Form(files=files, check=None)
        try:
            return _compared(target, files, source, checks)
        except LosesTooMuch as error:
            if not target.is_mixable:
                raise
            return _mixed(target, files, source, checks, exporter.mixed(source), error)
    except ImportError as error:
        raise missing(target, error, target.export_extra) from None


def _mixed(
    target: Target,
    files: list[str],
    source: Source,
    checks: Checks,
    versions: Iterator[list[str]],
    error: LosesTooMuch,
) -> Form:
    """The first of the `versions`, each written with one more layer in float, that loses no more
    than it may; the `error` of the one all in integers where none does.
    """
    for float_layers in versions:
        try:
            form = _compared(target, files, source, checks)
        except LosesTooMuch:
            continue
        return form.model_copy(update={"float_layers": float_layers})
    raise error


def _compared(target: Target, files: list[str], source: Source, checks: Checks) -> Form:
    """A form that was written, run as the device will, and compared."""
    exported, _ = runtime_of(target).load(source.folder / files[0], 1)
    images, wanted = checks.images, checks.wanted
    # One by one and together: the batch must really be dynamic.
    batches = [batch.numpy() for batch in (images[:1], images[1:]) if len(batch)]
    outputs = np.concatenate([exported(batch) for batch in batches])
    try:
        result = compare(decoder_of(source.task), outputs, wanted, target.tolerance)
    except BundleError as error:
        raise ExportError(
            f"{target.name}: {error.what}", where=files[0], remedy="report this model to prunedge"
        ) from None

    difference = float(np.abs(outputs - wanted).max())
    if target.is_exact:
        _refuse_differences(result, target, files[0])
    metrics: dict[str, float] = {}
    decision: Decision | None = None
    if not target.is_exact:
        metrics, decision = _judged(target, exported, source, checks.judge)
    check = ExportCheck(
        images=len(images),
        max_abs_difference=difference,
        agreement=result.agreement,
        metrics=metrics,
    )
    return Form(files=files, check=check, decision=decision)


def _refuse_differences(result: SelfTest, target: Target, file: str) -> None:
    """ExportError when the outputs of a form that should be exact are not torch's."""
    remedy = "report this model to prunedge"
    if result.relative_difference > target.tolerance:
        what = (
            f"the exported model differs from torch by {result.relative_difference:.2g} of the "
            f"largest output, more than {target.tolerance:g}"
        )
        raise ExportError(what, where=file, remedy=remedy)
    if result.agreement < 1:
        what = "the exported model gives other answers than torch"
        raise ExportError(what, where=file, remedy=remedy)


def _judged(
    target: Target, exported: Model, source: Source, judge: Judge | None
) -> tuple[dict[str, float], Decision | None]:
    """The metrics of a form that is not exact, and its own decision; ExportError when it has lost
    too much.
    """
    if judge is None:
        raise ExportError(
            f"'{target.name}' is not exact: validation images must judge it", remedy="give judge="
        )
    # Both through a runtime: what torch and ONNX differ by is not the integers' fault.
    float_model, _ = runtime_of(ONNX).load(source.onnx(), torch.get_num_threads())
    compared = judge.compare(float_model, exported)
    before = compared.before
    after = compared.after
    metric = judge.metric
    lost = metric.drop(before, after)
    allowed = metric.allowed(judge.max_drop, before)
    if lost > allowed + 1e-9:
        number = f"{lost:.1f}" if metric.unit == POINTS else metric.number(lost, signed=False)
        told = f"loses {metric.in_unit(number)} of {metric.name}"
        if not metric.higher_is_better:
            told = f"raises {metric.name} by {metric.in_unit(number)}"
        raise LosesTooMuch(
            f"{target.name} {told} on validation data "
            f"({metric.text(before)} -> {metric.text(after)}), more than {figure(allowed)}",
            where=target.file,
            remedy=f"allow more with {option('max_int8_drop')}, or leave this format out",
        )
    _warn_of_decision(target, compared.figures)
    metrics = {
        f"{metric.name}_float": before,
        metric.name: after,
        "agreement": compared.agreement,
        "images": compared.images,
        **compared.differences,
        **compared.figures,
    }
    return metrics, compared.decision


def _warn_of_decision(target: Target, figures: Mapping[str, float]) -> None:
    """A line where a form finds less damage, or calls more that is sound damaged, at its own
    threshold than the float model at its.
    """
    if not figures:
        return
    less = figures["recall_float"] - figures["recall"]
    more = figures["alarms"] - figures["alarms_float"]
    if max(less, more) > WORSE:
        log.warning(
            "mind: %s decides worse on validation data, whatever its metric says: recall %.1f%% -> "
            "%.1f%%, false alarms %.1f%% -> %.1f%%",
            target.name,
            100 * figures["recall_float"],
            100 * figures["recall"],
            100 * figures["alarms_float"],
            100 * figures["alarms"],
        )
