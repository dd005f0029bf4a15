"""Original, pruned, and pruned in eight-bit integers, on every runtime of this machine: time, memory, size, accuracy.

    python benchmarks/runtimes.py RUN [RUN ...] --out results.json [--patches 3720] [--size 224]

RUN is a finished run of `prunedge prune` (or a study's trial). All forms of a run are timed in one interleaved run, one thread, batch 1; the
accuracy of each is that of its own runtime on the run's test split. With --size the same networks are timed on pictures of another size as
well (what a network is worth at a size that it was not trained for is not asked, so there is no accuracy).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from prunedge import data as pictures
from prunedge.edge import Bundle, Candidate, bench
from prunedge.edge.image.size import square
from prunedge.edge.session import open_session
from prunedge.edge.tasks.base import TaskSpec
from prunedge.export import Judge, export_bundle
from prunedge.models import cost
from prunedge.runs.export import CALIBRATED, write_bundle
from prunedge.runs.run import Run, open_run

EXACT = ("onnx", "openvino", "executorch")
INTEGERS = ("onnx-int8", "openvino-int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=3720)
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    results = []
    for path in given.runs:
        run = open_run(path)
        with tempfile.TemporaryDirectory() as folder:
            original = write_bundle(run, Path(folder) / "original", 0, EXACT)
            pruned = write_bundle(run, Path(folder) / "pruned", None, (*EXACT, *INTEGERS), max_int8_drop=100.0)
            results.append(_result(run, original, pruned, given.patches, accuracy=True))
            if given.size:
                several = [_resized(run, step, Path(folder) / f"{step}-{given.size}", given.size) for step in (0, run.best().index)]
                results.append(_result(run, *several, given.patches, accuracy=False))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1))


def _result(run: Run, original: Bundle, pruned: Bundle, patches: int, *, accuracy: bool) -> dict[str, object]:
    candidates = [Candidate(one, target) for one in (original, pruned) for target in one.manifest.forms]
    measured = bench(candidates, patches=patches).to_json()
    print(
        f"\n{run.config.model.name}, {original.manifest.task.size} px, {patches} patches, 1 thread, batch 1, {measured['device']['processor']}"
    )
    for place, (one, found) in enumerate(zip(candidates, measured["bundles"], strict=True)):
        found["which"] = "original" if one.bundle is original else "pruned"
        found["bundle"] = found["which"]
        found["test_accuracy"] = _accuracy(run, one) if accuracy else None
        ratio = measured["ratios"][place - 1]["speedup"] if place else {"median": 1.0, "low": 1.0, "high": 1.0}
        print(
            f"{found['which']:9} {found['target']:14} {found['seconds_total']:8.1f} s  median {found['latency_ms']['median']:7.2f} ms  "
            f"{ratio['median']:6.1f} x ({ratio['low']:.1f} to {ratio['high']:.1f})  {found['peak_rss_mb']:6.0f} MB  {found['size_mb']:7.2f} MB"
            + (f"  {found['test_accuracy']:.1%}" if accuracy else ""),
            flush=True,
        )
    return {"run": run.path.name, "model": run.config.model.name, "size": original.manifest.task.size.plain(), **measured}


def _accuracy(run: Run, one: Candidate) -> float:
    recipe = run.config
    data = pictures.load(recipe.data.path, **recipe.image_settings())
    session = open_session(one.bundle, 1, one.target)
    right = [(session.outputs(inputs.numpy()).argmax(1) == labels.numpy()) for inputs, labels in data.test.batches(32)]
    return float(np.concatenate(right).mean())


def _resized(run: Run, step: int, out: Path, size: int) -> Bundle:
    chosen = next(one for one in run.steps() if one.index == step)
    recipe = run.config
    data = pictures.load(recipe.data.path, **{**recipe.image_settings(), "size": size})
    inputs = next(iter(data.val.take(8).batches(8)))[0]
    calibration = next(iter(data.train.take(CALIBRATED // 4, recipe.data.seed).batches(CALIBRATED // 4)))[0]

    network = run.load(step)
    spent = cost(network, torch.zeros(1, 3, size, size))
    return export_bundle(
        network, out, model_name=recipe.model.name, images=inputs, task=TaskSpec(name="classification", classes=tuple(recipe.data.classes), size=square(size)), macs=spent.macs, params=chosen.params,
        formats=(*EXACT, *(INTEGERS if step else ())), calibration=calibration,
        judge=Judge("accuracy", lambda found: (0.0, found(inputs.numpy())), 100.0),
    )  # fmt: skip


if __name__ == "__main__":
    main()
