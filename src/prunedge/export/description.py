"""What an ONNX file says of itself, for programs that get it without the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from prunedge import __version__
from prunedge.edge.image.normalise import Statistics
from prunedge.edge.manifest import Form
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import TaskSpec


def describe_forms(folder: Path, forms: Mapping[str, Form], description: Mapping[str, str]) -> None:
    """Write a description into the ONNX file of each form, with the threshold that the form has of
    its own.
    """
    written = set()
    for form in forms.values():
        name = form.files[0]
        if not name.endswith(".onnx") or name in written:
            continue
        own = {}
        if form.decision is not None and form.decision.threshold is not None:
            own["threshold"] = repr(form.decision.threshold)
        _describe(folder / name, {**description, **own})
        written.add(name)


def description_of(
    model_name: str,
    task: TaskSpec,
    normalised_by: Statistics,
    macs: int,
    params: int,
    batch: int | None,
) -> dict[str, str]:
    """What there is to say of a model, as text.

    `names`, `task`, `imgsz`, `stride`, `batch` and `channels` are written as Ultralytics writes and
    reads them (Python literals; a classifier's stride is 1); the rest as JSON.
    """
    mean, std = normalised_by
    description = {
        "description": f"{model_name} by prunedge",
        "author": "prunedge",
        "version": __version__,
        "task": DEFINITIONS[task.name].in_metadata or task.name,
        "names": repr(dict(enumerate(task.classes))),
        "imgsz": repr([task.size.height, task.size.width]),
        "stride": "1",
        "batch": str(batch or 1),
        "channels": str(task.in_channels),
        "resize": task.resize,
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "macs": str(macs),
        "params": str(params),
    }
    if task.decision is not None and task.decision.threshold is not None:
        description["threshold"] = repr(task.decision.threshold)
    return description


def _describe(file: Path, description: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(file)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, **description})
    onnx.save_model(model, str(file), save_as_external_data=False)
