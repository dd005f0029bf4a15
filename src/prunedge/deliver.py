"""From a run to the device: its networks as bundles, and their time here beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunedge import data as pictures
from prunedge.data.cache import looks_of
from prunedge.edge import Bundle, Contestant, bench, open_bundle
from prunedge.edge.bench import BenchResult
from prunedge.edge.bundle import View, view_of
from prunedge.edge.runtimes import Network
from prunedge.export import Judge, export_bundle
from prunedge.recipe import PICTURE_KEYS
from prunedge.train import measure

if TYPE_CHECKING:
    from pathlib import Path

    from prunedge.data import Dataset
    from prunedge.runs import Run

CHECKED = 32  # validation pictures on which a bundle is compared with torch
CALIBRATED = 128  # training pictures that show which numbers eight-bit integers must hold


def write_bundle(run: Run, out: Path, step: int | None = None, formats: Sequence[str] = ("onnx",), max_int8_drop: float = 1.0) -> Bundle:
    """Export a step (None: the best; 0: the unpruned network) of a run.

    A form in integers may lose `max_int8_drop` points of the run's metric on the validation split.
    """
    chosen = run.best() if step is None else next((s for s in run.steps() if s.index == step), None)
    checkpoint = run.checkpoint(step if chosen is None else chosen.index)  # type: ignore[arg-type]
    assert chosen is not None
    recipe = run.recipe
    data = pictures.load(recipe["data"], **{key: recipe[key] for key in PICTURE_KEYS})
    test = (run.test() or {}).get("baseline" if chosen.index == 0 else "best") if chosen.index in (0, run.best().index) else None
    metrics = {"validation": {recipe["metric"]: chosen.metric_after}}
    if test:
        metrics["test"] = {key: test[key] for key in ("accuracy", "f1", "auroc")}
    about = {"run_step": chosen.index, "data_fingerprint": recipe["data_fingerprint"]}
    return export_bundle(
        checkpoint.network, out, model=recipe["model"], classes=recipe["classes"], size=recipe["size"],
        pictures=next(iter(data.val.take(CHECKED).batches(CHECKED)))[0], macs=chosen.macs, params=chosen.params,
        formats=formats, calibration=next(iter(data.train.take(CALIBRATED, recipe["seed"]).batches(CALIBRATED)))[0],
        judge=Judge(recipe["metric"], partial(_score, data, recipe["metric"]), max_int8_drop), plan=checkpoint.plan.keep, about=about,
        metrics=metrics, view=_view(data), greys=data.greys,
    )  # fmt: skip


def _score(data: Dataset, metric: str, network: Network) -> tuple[float, np.ndarray]:
    """The metric of an exported network on the validation split, and its labels."""
    batches = [(torch.from_numpy(network(inputs.numpy())), labels) for inputs, labels in data.val.batches(32)]
    outputs, labels = torch.cat([one for one, _ in batches]), torch.cat([one for _, one in batches])
    return measure(outputs, labels).value(metric), outputs.argmax(1).numpy()


def _view(data: Dataset) -> View:
    """What the training pictures showed."""
    looks = looks_of(data.train)
    return view_of([(look.width, look.height) for look in looks])


def time_bundles(run: Run, patches: int, progress: Callable[[int, int, str], None] | None = None) -> BenchResult:
    """Export the unpruned and the best network into the run (what is there is kept), time both interleaved, and note it as its bench."""
    bundles = []
    for name, step in (("bundle-unpruned", 0), ("bundle", None)):
        if not (run.path / name / "manifest.json").exists():
            write_bundle(run, run.path / name, step)
        bundles.append(Contestant(open_bundle(run.path / name)))
    measured = bench(bundles, patches=patches, progress=progress)
    run.write("bench.json", measured.to_json())
    return measured
