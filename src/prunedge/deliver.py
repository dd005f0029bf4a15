"""From a run to the device: its networks as bundles, and their time here beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prunedge import data as pictures
from prunedge.edge import Bundle, bench, open_bundle
from prunedge.edge.bench import BenchResult
from prunedge.export import export_bundle
from prunedge.recipe import PICTURE_KEYS

if TYPE_CHECKING:
    from pathlib import Path

    from prunedge.runs import Run

CHECKED = 32  # validation pictures on which a bundle is compared with torch


def write_bundle(run: Run, out: Path, step: int | None = None) -> Bundle:
    """Export a step (None: the best; 0: the unpruned network) of a run."""
    chosen = run.best() if step is None else next((s for s in run.steps() if s.index == step), None)
    checkpoint = run.checkpoint(step if chosen is None else chosen.index)  # type: ignore[arg-type]
    assert chosen is not None
    recipe = run.recipe
    data = pictures.load(recipe["data"], **{key: recipe[key] for key in PICTURE_KEYS})
    test = (run.test() or {}).get("baseline" if chosen.index == 0 else "best") if chosen.index in (0, run.best().index) else None
    metrics = {"validation": {recipe["metric"]: chosen.metric_after}}
    if test:
        metrics["test"] = {key: test[key] for key in ("accuracy", "f1", "auroc")}
    inputs = next(iter(data.val.take(CHECKED).batches(CHECKED)))[0]
    return export_bundle(
        checkpoint.network, out, model=recipe["model"], classes=recipe["classes"], size=recipe["size"], pictures=inputs, macs=chosen.macs,
        params=chosen.params, plan=checkpoint.plan.keep, about={"run_step": chosen.index, "data_fingerprint": recipe["data_fingerprint"]},
        metrics=metrics,
    )  # fmt: skip


def time_bundles(run: Run, patches: int, progress: Callable[[int, int, str], None] | None = None) -> BenchResult:
    """Export the unpruned and the best network into the run (what is there is kept), time both interleaved, and note it as its bench."""
    bundles = []
    for name, step in (("bundle-unpruned", 0), ("bundle", None)):
        if not (run.path / name / "manifest.json").exists():
            write_bundle(run, run.path / name, step)
        bundles.append(open_bundle(run.path / name))
    measured = bench(bundles, patches=patches, progress=progress)
    run.write("bench.json", measured.to_json())
    return measured
