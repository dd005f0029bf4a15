"""A model as a bundle: in every form that was asked for, each compared with torch on real
images before it is kept.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.edge.bundle import SELFTEST, Bundle, open_bundle, write_manifest
from prunedge.edge.image.normalise import ImageNorm, Statistics, statistics
from prunedge.edge.image.read import Greys
from prunedge.edge.manifest import Form, GreyRange, View
from prunedge.edge.session import LARGEST_SELFTEST, selftest_bytes
from prunedge.edge.targets import ONNX, TARGETS
from prunedge.edge.tasks.base import TaskSpec
from prunedge.errors import ExportError, ExtraMissing, PartialExport, PrunedgeError
from prunedge.export.denormals import torchs_own_denormals, without_tiny
from prunedge.export.description import describe_forms, description_of
from prunedge.export.forms import Checks, Judge, checked_form
from prunedge.export.logits import giving_logits
from prunedge.export.onnx import OnnxFile, OnnxOptions
from prunedge.export.source import Source
from prunedge.graph import copied
from prunedge.models.final_activation import refuse_probabilities
from prunedge.surgery import save_model
from prunedge.utils.advice import option
from prunedge.utils.files import behind_links, written_folder
from prunedge.utils.machine import is_scarce
from prunedge.utils.packages import versions_of

WEIGHTS, PLAN = "model.safetensors", "plan.json"  # for torch, and for those who want to know
SELFTEST_IMAGES = 4
PACKAGES = ("torch", *dict.fromkeys(chain(*(t.packages for t in TARGETS.values()))))


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
    onnx_options: OnnxOptions | None = None,
) -> Bundle:
    """Write a bundle: the model in each of the `formats` (`prunedge.edge.targets`), torch's
    weights, plan.json, a self-test, a manifest.

    `task` says what the model predicts, from images of which size and how many channels. `images`
    (n, channels, height, width) float32 are real images, normalised: the outputs of every exact
    form on them, run by its own runtime, must be torch's to 1e-3 of the largest, with the same
    predictions. A form in integers is calibrated on `calibration` (as `images`, but training
    images), and judged by `judge`. What they differ by is kept in the manifest. `plan` names the
    kept channels of each group, counted in the model of that name (None: the bundle doesn't say).
    Weights below `prunedge.edge.denormals.TINY` are zero in every form; the manifest says how many.
    `view` is what a training image showed (`prunedge.edge.manifest.view_of`), without which an
    inspection has to guess; `greys` the range of greys of more than eight bits, if the training
    images had any; `image_norm` how `images` are normalised; `onnx_options` what the
    ONNX file is like that most forms are made of.

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
    options = onnx_options or OnnxOptions()
    options.require_possible()
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
        with tempfile.TemporaryDirectory(dir=folder) as elsewhere, torchs_own_denormals():
            is_kept = any(TARGETS[name].file == ONNX.file for name in formats)
            onnx_file = (folder if is_kept else Path(elsewhere)) / ONNX.file
            flushed, zeroed = without_tiny(answering)
            onnx = OnnxFile(flushed, onnx_file, task.image_shape, options)
            source = Source(flushed, task, folder, onnx, calibration, options.batch)
            checks = Checks.of(answering, images, judge)
            forms: dict[str, Form] = {}
            failures: dict[str, PrunedgeError] = {}
            for name in dict.fromkeys(formats):
                before = {*folder.iterdir(), onnx_file}
                try:
                    forms[name] = checked_form(TARGETS[name], source, checks)
                except (ExportError, ExtraMissing) as error:
                    if is_scarce():
                        raise
                    failures[name] = error
                    _remove_all_but(before, folder)
            if not forms:
                raise next(iter(failures.values()))
            if not any(ONNX.file in form.files for form in forms.values()):
                (folder / ONNX.file).unlink(missing_ok=True)
        description = description_of(model_name, task, (mean, std), macs, params, options.batch)
        describe_forms(folder, forms, description)
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
            zeroed=zeroed + onnx.zeroed,
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
