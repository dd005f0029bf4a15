"""torch to ONNX with a dynamic batch, compared with torch on real pictures before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunedge.edge.bundle import NETWORK, Bundle, ExportCheck, open_bundle, write_manifest
from prunedge.edge.pictures import IMAGENET_MEAN, IMAGENET_STD
from prunedge.errors import ExportError
from prunedge.surgery import save_network

TOLERANCE = 1e-3  # of the largest output, float32
OPSET = 18


def export_bundle(
    network: nn.Module, out: Path | str, *, model: str, classes: Sequence[str], size: int, pictures: torch.Tensor, macs: int, params: int,
    metrics: Mapping[str, Any] | None = None, plan: Mapping[str, Sequence[int]] | None = None, about: Mapping[str, Any] | None = None,
) -> Bundle:  # fmt: skip
    """Write a bundle: model.onnx (float32, dynamic batch), model.safetensors, plan.json and the manifest.

    `pictures` (n, 3, size, size) float32 are real pictures, normalised: ONNX Runtime's outputs on them must be torch's to 1e-3 of
    the largest, with the same labels; the difference is kept in the manifest. `plan` names the kept channels of each group,
    counted in the network of that name. The folder appears whole or not at all. Raises ExportError when the export fails or differs,
    or when `out` already holds something.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError("the folder is not empty", where=target, remedy="choose another --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        network = network.cpu().eval()
        _write_onnx(network, folder / NETWORK, size)
        check = _compare(network, folder / NETWORK, pictures)
        save_network(network, folder / "model.safetensors")
        (folder / "plan.json").write_text(json.dumps({name: list(kept) for name, kept in (plan or {}).items()}), encoding="utf-8")
        write_manifest(
            folder, [NETWORK, "model.safetensors", "plan.json"], model=model, classes=list(classes), input_size=size, mean=IMAGENET_MEAN,
            std=IMAGENET_STD, metrics=dict(metrics or {}), macs=macs, params=params, check=check,
            versions={name: version(name) for name in ("prunedge", "torch", "onnx", "onnxruntime")}, about=dict(about or {}),
        )  # fmt: skip
        # Temporary folders and files are private; a bundle is made to be copied.
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        if target.exists():
            target.rmdir()
        os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return open_bundle(target)


def _write_onnx(network: nn.Module, file: Path, size: int) -> None:
    import onnx

    example = torch.zeros(2, 3, size, size)
    talk = io.StringIO()
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript")
    levels = [logger.level for logger in quiet]
    try:
        for logger in quiet:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(talk), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65535)},),
                input_names=["pictures"], output_names=["logits"], opset_version=OPSET, verbose=False,
            )  # fmt: skip
        assert program is not None
        # One file, so that the bundle can be moved and checked as a whole.
        onnx.save_model(program.model_proto, str(file), save_as_external_data=False)
    except Exception as error:  # torch.export raises many kinds
        why = " ".join(str(error).split())[:200]
        raise ExportError(
            f"torch can't export the network to ONNX: {why}", where=type(network).__name__, remedy="does its forward depend on values?"
        ) from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def _compare(network: nn.Module, file: Path, pictures: torch.Tensor) -> ExportCheck:
    import onnxruntime

    with torch.no_grad():
        wanted = network(pictures).numpy()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # One by one and together: the batch must really be dynamic.
    found = np.concatenate(
        [
            session.run(None, {name: pictures[:1].numpy()})[0],
            *([session.run(None, {name: pictures[1:].numpy()})[0]] if len(pictures) > 1 else []),
        ]
    )
    difference = float(np.abs(found - wanted).max())
    same = bool((found.argmax(1) == wanted.argmax(1)).all())
    if not np.isfinite(difference) or difference > TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ExportError(
            f"the exported network differs from torch by {difference:.2e}", where=file.name, remedy="report this network to prunedge"
        )
    ordered = np.sort(wanted, axis=1)
    margins = ordered[:, -1] - ordered[:, -2] if wanted.shape[1] > 1 else np.full(len(wanted), np.inf)
    if not same and bool((margins[found.argmax(1) != wanted.argmax(1)] > 2 * difference).any()):
        raise ExportError("the exported network gives other labels than torch", where=file.name, remedy="report this network to prunedge")
    return ExportCheck(pictures=len(pictures), max_abs_difference=difference, labels_identical=same)
