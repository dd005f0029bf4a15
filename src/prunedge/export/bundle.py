"""A model as a bundle: in every form that was asked for, each compared with torch on real
images before it is kept.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.edge.bundle import SELFTEST, Bundle, open_bundle, write_manifest
from prunedge.edge.image.normalise import ImageNorm, Statistics, statistics
from prunedge.edge.image.read import Greys
from prunedge.edge.manifest import ExportCheck, Form, GreyRange, View
from prunedge.edge.runtimes import Model, missing, runtime_of
from prunedge.edge.session import (
    LARGEST_SELFTEST,
    TOLERANCE,
    SelfTest,
    compare,
    selftest_bytes,
)
from prunedge.edge.targets import ONNX, TARGETS, Target
from prunedge.edge.tasks import decoder_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import Decision
from prunedge.edge.tasks.metric import POINTS, Drop, Metric
from prunedge.errors import BundleError, ExportError, ExtraMissing, PartialExport, PrunedgeError
from prunedge.export.logits import giving_logits
from prunedge.export.onnx import write_onnx
from prunedge.export.source import Source
from prunedge.graph import copied
from prunedge.models.final_activation import refuse_probabilities
from prunedge.surgery import save_model
from prunedge.utils.advice import option
from prunedge.utils.files import behind_links, written_folder
from prunedge.utils.machine import is_scarce
from prunedge.utils.packages import versions_of
from prunedge.utils.wording import figure

log = logging.getLogger(__name__)

WEIGHTS, PLAN = "model.safetensors", "plan.json"  # for torch, and for those who want to know
SELFTEST_IMAGES = 4
WORSE = 0.03  # in recall or false alarms, from which on a form in integers is told to decide worse
PACKAGES = ("torch", *dict.fromkeys(chain(*(t.packages for t in TARGETS.values()))))


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


def export_bundle(
    model: nn.Module,
    out: Path | str,
    *,
    model_name: str,
    task: TaskSpec,
    images: torch.Tensor,
    macs: int,
    params: int,
    formats: Sequence[str] = ("onnx",),
    calibration: torch.Tensor | None = None,
    judge: Judge | None = None,
    metrics: Mapping[str, Any] | None = None,
    plan: Mapping[str, Sequence[int]] | None = None,
    about: Mapping[str, Any] | None = None,
    view: View | None = None,
    greys: Greys | None = None,
    image_norm: ImageNorm = "imagenet",
) -> Bundle:
    """Write a bundle: the model in each of the `formats` (`prunedge.edge.targets`), torch's
    weights, plan.json, a self-test, a manifest.

    `task` says what the model predicts, from images of which size and how many channels. `images`
    (n, channels, height, width) float32 are real images, normalised: the outputs of every exact
    form on them, run by its own runtime, must be torch's to 1e-3 of the largest, with the same
    predictions. A form in integers is calibrated on `calibration` (as `images`, but training
    images), and judged by `judge`. What they differ by is kept in the manifest. `plan` names the
    kept channels of each group, counted in the model of that name (None: the bundle doesn't say).
    `view` is what a training image showed (`prunedge.edge.manifest.view_of`), without which an
    inspection has to guess; `greys` the range of greys of more than eight bits, if the training
    images had any; `image_norm` how `images` are normalised.

    The folder appears whole or not at all. Raises ExportError when a form fails, differs, loses too
    much, or `out` already holds something; ExtraMissing when its runtime is not installed. Where
    others of several `formats` could be exported, they are kept, and it is a PartialExport.
    """
    unknown = [name for name in formats if name not in TARGETS]
    if unknown or not formats:
        raise ExportError(
            f"unknown format '{unknown[0]}'" if unknown else "no format",
            where=option("format"),
            remedy=f"choose {', '.join(TARGETS)}",
        )
    if calibration is None and any(TARGETS[name].is_integer for name in formats):
        raise ExportError(
            "eight-bit integers need images to calibrate on", remedy="give calibration="
        )
    target = Path(out)
    mean, std = statistics(image_norm, task.in_channels)
    refuse_full(target)
    with written_folder(behind_links(target), "bundle") as folder:
        refuse_full(target)  # another process may have been faster
        if any(x.device.type != "cpu" for x in model.parameters()):
            model = copied(model)  # the caller's stays where it is
        model = model.cpu().eval()
        answering = giving_logits(model, images[:1])
        refuse_probabilities(answering, images[:SELFTEST_IMAGES], model_name)
        # Inside, and gone before the files are counted: whatever happens, the next command finds
        # and removes all of it at once.
        with tempfile.TemporaryDirectory(dir=folder) as elsewhere:
            is_kept = any(TARGETS[name].file == ONNX.file for name in formats)
            onnx_file = (folder if is_kept else Path(elsewhere)) / ONNX.file
            onnx = _once(answering, onnx_file, task.image_shape)
            source = Source(answering, task, folder, onnx, calibration)
            forms: dict[str, Form] = {}
            failures: dict[str, PrunedgeError] = {}
            for name in dict.fromkeys(formats):
                before = {*folder.iterdir(), onnx_file}
                try:
                    forms[name] = _form(TARGETS[name], source, images, task, judge)
                except (ExportError, ExtraMissing) as error:
                    if is_scarce():
                        raise
                    failures[name] = error
                    _remove_all_but(before, folder)
            if not forms:
                raise next(iter(failures.values()))
            if not any(ONNX.file in form.files for form in forms.values()):
                (folder / ONNX.file).unlink(missing_ok=True)
        save_model(model, folder / WEIGHTS)
        if plan is not None:
            (folder / PLAN).write_text(
                json.dumps({name: list(kept) for name, kept in plan.items()}), encoding="utf-8"
            )
        shown = max(1, min(SELFTEST_IMAGES, LARGEST_SELFTEST // selftest_bytes(task)))
        _write_selftest(answering, images[:shown], (mean, std), folder / SELFTEST)
        write_manifest(
            folder,
            sorted(file.name for file in folder.iterdir()),
            (WEIGHTS, PLAN),
            model=model_name,
            task=task,
            mean=mean,
            std=std,
            metrics=dict(metrics or {}),
            macs=macs,
            params=params,
            forms=forms,
            versions=versions_of(PACKAGES),
            about=dict(about or {}),
            view=view,
            greys=None
            if greys is None
            else GreyRange(low=greys.low, high=greys.high, mixed=greys.mixed),
        )
        # Whatever the writer's own rights are: a bundle is made to be copied.
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o755 if file.suffix == ".sh" else 0o644)
    if failures:
        raise _partial(failures, list(forms), target)
    return open_bundle(target)


def _remove_all_but(kept: Collection[Path], folder: Path) -> None:
    """Remove what a form that failed has left in the bundle's folder."""
    for path in set(folder.iterdir()) - set(kept):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _partial(
    failures: Mapping[str, PrunedgeError], kept: Sequence[str], out: Path
) -> PartialExport:
    """The error for forms that failed beside those that are `kept` in the bundle."""
    whats = []
    for name, error in failures.items():
        whats.append(error.what if name in error.what else f"{name}: {error.what}")
    remedies = dict.fromkeys(error.remedy for error in failures.values() if error.remedy)
    has = f"{out} has {', '.join(kept)} alone"
    return PartialExport("; ".join(whats), bundle=out, remedy="; ".join((*remedies, has)))


def refuse_full(target: Path) -> None:
    """ExportError where no bundle can be made, since something lies there; a link to an empty
    folder, or to none yet, is followed.
    """
    target = behind_links(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError("the folder is not empty", where=target, remedy="choose another --out")


def _once(model: nn.Module, file: Path, shape: tuple[int, ...]) -> Callable[[], Path]:
    @cache
    def onnx() -> Path:
        write_onnx(model, file, shape)
        return file

    return onnx


def _form(
    target: Target, source: Source, images: torch.Tensor, task: TaskSpec, judge: Judge | None
) -> Form:
    """Write one form, run it as the device will, and compare."""
    try:
        files = import_module(f"prunedge.export.{target.name.replace('-', '_')}").write(source)
        if not target.runs_here:
            return Form(files=files, check=None)
        exported, _ = runtime_of(target).load(source.folder / files[0], 1)
    except ImportError as error:
        raise missing(target, error, target.export_extra) from None

    with torch.no_grad():
        wanted = source.model(images).numpy()
    # One by one and together: the batch must really be dynamic.
    batches = [batch.numpy() for batch in (images[:1], images[1:]) if len(batch)]
    outputs = np.concatenate([exported(batch) for batch in batches])
    try:
        result = compare(decoder_of(task), outputs, wanted)
    except BundleError as error:
        raise ExportError(
            f"{target.name}: {error.what}", where=files[0], remedy="report this model to prunedge"
        ) from None

    difference = float(np.abs(outputs - wanted).max())
    if target.is_exact:
        _refuse_differences(result, difference, files[0])
    metrics: dict[str, float] = {}
    decision: Decision | None = None
    if not target.is_exact:
        metrics, decision = _judged(target, exported, source, judge)
    check = ExportCheck(
        images=len(images),
        max_abs_difference=difference,
        agreement=result.agreement,
        metrics=metrics,
    )
    return Form(files=files, check=check, decision=decision)


def _refuse_differences(result: SelfTest, difference: float, file: str) -> None:
    """ExportError when the outputs of a form that should be exact are not torch's."""
    remedy = "report this model to prunedge"
    if result.relative_difference > TOLERANCE:
        what = f"the exported model differs from torch by {difference:.2e}"
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
        raise ExportError(
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


def _write_selftest(
    model: nn.Module, images: torch.Tensor, normalised_by: Statistics, file: Path
) -> None:
    """Images as a device reads them, uint8, and what torch answers to just these."""
    mean, std = (torch.tensor(values)[:, None, None] for values in normalised_by)
    pixels = ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        outputs = model((pixels.float() / 255 - mean) / std)
    np.savez_compressed(
        file, pixels=pixels.permute(0, 2, 3, 1).contiguous().numpy(), outputs=outputs.numpy()
    )
