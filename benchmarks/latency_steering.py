"""Is a network that latency steered faster on the device than one that MACs steered, at the same accuracy?

    python benchmarks/latency_steering.py START [START ...] --out results.json [--steps 6 --step-ratio 0.3 --epochs 2]

START is a run folder of `prunedge train` (or a study's start). From each, three runs with the same schedule: channels ranked by Taylor
divided by the MACs that they cost, by the milliseconds that they cost on this machine, and by neither. Every network of every run is then
timed beside all the others, in passes over all of them, and tested on the run's test split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from prunedge import data as pictures
from prunedge.config import IMAGE_KEYS, RunConfig
from prunedge.edge.bench.hardware import device
from prunedge.export.onnx import write_onnx
from prunedge.latency import Timer
from prunedge.runs.execute import prune
from prunedge.runs.run import Run, open_run
from prunedge.train import evaluate, make_engine

WAYS = {"latency": {"device": "local"}, "macs": {"per_mac": True}, "score": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs; what is there is taken")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--step-ratio", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--max-ratio", type=float, default=0.5)
    given = parser.parse_args()
    points = []
    for place, start in enumerate(given.starts):
        source = open_run(start)
        for way, more in WAYS.items():
            folder = given.runs / f"{place}-{way}"
            if not (folder / "test.json").exists():
                _run(source, folder, given, more)
            points += _points(open_run(folder), place, way)
            print(f"{folder}: {len(points)} networks so far", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, point in enumerate(points):
            name = f"n{number:03d}.onnx"
            run = open_run(given.runs / f"{point['start']}-{point['way']}")
            write_onnx(run.load(point["step"]), Path(folder) / name, (3, *run.config.data.size))
            files[name] = Path(folder) / name
        timed = Timer().time(files)
    for number, point in enumerate(points):
        point["ms"] = timed.ms[f"n{number:03d}.onnx"]
    result = {"device": device(), "runtime": timed.runtime, "threads": 1, "batch": 1, "points": points, "compared": _compared(points)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result["compared"], indent=1))


def _run(source: Run, folder: Path, given: argparse.Namespace, more: dict[str, object]) -> None:
    kept = {key: source.config.flat()[key] for key in ("data", "model", "weights", "metric", "batch_size", "precision", *IMAGE_KEYS)}
    recipe = RunConfig.make(
        "benchmark", **kept, start=str(source.path.resolve()), train_epochs=0, schedule_epochs=source.config.train.epochs, step_ratio=given.step,
        epochs=given.epochs, max_drop=100.0, max_steps=given.steps, extra_rounds=0, max_ratio=given.cap, **more,
    )  # fmt: skip
    prune(recipe, folder)


def _points(run: Run, start: int, way: str) -> list[dict[str, object]]:
    """Accuracy of every network of a run on the test split."""
    recipe = run.config
    data = pictures.load(recipe.data.path, **recipe.image_settings())
    engine = make_engine("32")
    found = []
    for step in run.steps():
        accuracy = evaluate(run.load(step.index), data.test, engine).accuracy
        found.append(
            {"start": start, "way": way, "step": step.index, "macs": step.macs, "params": step.params, "validation": step.metric_after,
             "test": accuracy, "said_ms": step.latency_ms, "predicted_ms": step.predicted_ms}
        )  # fmt: skip
    return found


def _compared(points: list[dict]) -> dict[str, object]:
    """What latency's networks have over the others', start by start, each along the run's own line of networks.

    `times faster at equal MACs`: on average over the MACs that both runs reach. `points of accuracy at equal time`: how much more accurate they
    are, on average over the times that both reach. Accuracies scatter by what the split's size allows: mind the spread over starts.
    """
    found: dict[str, object] = {}
    for other in ("macs", "score"):
        faster, test, validation = [], [], []
        for start in sorted({point["start"] for point in points}):
            ours, theirs = ([p for p in points if p["start"] == start and p["way"] == way] for way in ("latency", other))
            faster.append(float(np.exp(_difference(theirs, ours, "macs", lambda p: np.log(p["ms"])))))
            test.append(100 * _difference(ours, theirs, "ms", lambda p: p["test"]))
            validation.append(100 * _difference(ours, theirs, "ms", lambda p: p["validation"]))
        found[f"latency against {other}"] = {
            "times faster at equal MACs": faster, "points of test accuracy at equal time": test,
            "points of validation accuracy at equal time": validation,
        }  # fmt: skip
    return found


def _difference(first: list[dict], second: list[dict], key: str, value: Callable[[dict], float]) -> float:
    """The mean of first minus second over the logarithm of `key`, where both have it; the unpruned network, which they share, left out."""
    lines = []
    for several in (first, second):
        ordered = sorted((p for p in several if p["step"]), key=lambda p: p[key])
        lines.append((np.log([p[key] for p in ordered]), np.array([value(p) for p in ordered])))
    levels = np.linspace(max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines), 41)
    return float(np.mean(np.interp(levels, *lines[0]) - np.interp(levels, *lines[1])))


if __name__ == "__main__":
    main()
