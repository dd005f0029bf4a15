"""Whole searches with the defaults, and what they have to beat: the strongest rival, small networks.

    pip install torch-pruning==1.6.1
    python benchmarks/whole_search.py run masonry.csv steel.csv --weights vgg16-features.safetensors
        --size 64 --seeds 0,1,2 --small squeezenet1_0=squeezenet.pth --out searches
    python benchmarks/whole_search.py time searches
    python benchmarks/whole_search.py table searches > table.md

`run` does this for each set of images and seed, in one process:

- *unpruned*: the network is taught for `--train-epochs`.
- *prunedge*: `pe.prune` with its defaults, `--max-drop` points, and a budget of `--passes` epochs of
  the unpruned network, as long as they took here. With `--steps N` there is no rule and no budget:
  N steps of `--step-ratio`, with `--epochs`, without polish, so that all come to the same
  milliseconds (those of a small network, say).
- *torch-pruning*: its Taylor importance over all layers (benchmarks/ways.py), in the same engine,
  to the estimated milliseconds of each step that led to prunedge's result, with as many epochs of
  the same fine-tuning after each, and the same polish.
- *scratch*: prunedge's widths from random weights, taught for as many epochs as the result had in
  all.
- `--small`: networks that are small by design, taught for as many epochs.

The test split is looked at once for each. Everything is written to a bundle with ONNX and ONNX in
eight-bit integers, and both forms answer the test split. `time` times these in turns, by ONNX
Runtime, one thread, batch 1; in the place of a bundle that was not brought along (`run` may have
been on another machine) a network of the same widths is timed with random weights, which take as
long. `table` makes the table: mean over the seeds with a 95 % interval (Student's t), and the
difference to prunedge's model of the same seed.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch import nn
from ways import Job, cut_by_torch_pruning, taught
from ways_page import of_widths

import prunedge as pe
from prunedge.data import Dataset, load
from prunedge.edge import Candidate
from prunedge.graph import trace
from prunedge.latency.roofline import estimate
from prunedge.models import build
from prunedge.pruning.polish import SEED_OF_POLISH
from prunedge.pruning.steps import Step, handed_over, lineage
from prunedge.tasks import make_task
from prunedge.train import TransferSettings, evaluate, fit, make_engine
from prunedge.train.batches import usual_batch_size

Row = dict[str, Any]

MINUTE_S = 60
PATCHES = 372
FORMS = ("onnx", "onnx-int8")
clock = time.time if torch.cuda.is_available() else time.process_time
PRUNED = ("prunedge", "torch-pruning", "scratch")


@dataclass(frozen=True)
class Search:
    """What a search found: its steps, and the model of the result."""

    steps: list[Step]
    model: nn.Module
    costs: dict[int, float]  # the estimated milliseconds of each step's model
    seconds: float

    @property
    def result(self) -> Step:
        """The step that is handed over."""
        return handed_over(self.steps)

    def way(self) -> list[Step]:
        """The steps that led to the result, without those that were taken back; its polish last."""
        before = lineage(self.steps, self.result.index)
        return [step for step in before if step.index]


def main() -> None:
    """One of the three commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("data", nargs="+")
    running.add_argument("--model", default="vgg16")
    running.add_argument("--weights", default="none")
    running.add_argument("--size", type=int, default=64)
    running.add_argument("--seeds", default="0,1,2")
    running.add_argument("--train-epochs", type=int, default=4)
    running.add_argument("--max-drop", type=float, default=1.0)
    running.add_argument("--passes", type=float, default=4.0)
    running.add_argument("--steps", type=int)
    running.add_argument("--step-ratio", type=float, default=0.9)
    running.add_argument("--epochs", type=int, default=2)
    running.add_argument("--small", nargs="*", default=[], metavar="MODEL=WEIGHTS")
    running.add_argument("--ways", default="torch-pruning,scratch,small")
    running.add_argument("--not-exported", default="", metavar="WAY,WAY", help="judged as torch has them")
    running.add_argument("--precision", default="bf16")
    running.add_argument("--out", type=Path, required=True)
    timing = commands.add_parser("time")
    timing.add_argument("out", type=Path)
    timing.add_argument("--patches", type=int, default=PATCHES)
    timing.add_argument("--seeds", help="of these alone")
    commands.add_parser("table").add_argument("out", type=Path)
    given = parser.parse_args()
    {"run": run, "time": measure, "table": table}[given.command](given)


# -- run ---------------------------------------------------------------------------------------


def run(given: Namespace) -> None:
    """Every seed and set; what fails is written, and the next goes on."""
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        for data in given.data:
            try:
                one(given, data, seed)
            except Exception:
                write(given, {"data": data, "seed": seed, "error": traceback.format_exc()[-2000:]})


def one(given: Namespace, name: str, seed: int) -> None:
    """One set of images and one seed."""
    images = load(name, size=given.size)
    engine = make_engine(given.precision)
    model = build(given.model, images.classes, given.weights, seed=seed)
    settings = TransferSettings(
        pretrained=given.weights != "none", epochs=given.train_epochs, augment="flips",
        batch_size=usual_batch_size(len(images.train)),
    )  # fmt: skip
    began = clock()
    model, rate = taught(model, images, settings, engine, seed)
    seconds = clock() - began
    finetune = replace(settings, temporary_norms=True).config(model)
    job = Job(Namespace(**vars(given), name=name), images, seed, engine, model, finetune)
    tell(job, "unpruned", model, seconds, epochs=given.train_epochs, lr=rate)

    epoch = seconds_of_epoch(job)
    found = search(job, given.passes * epoch / MINUTE_S)
    epochs = sum(step.epochs for step in found.way())
    tell(
        job, "prunedge", found.model, found.seconds, epochs=epochs, epoch_seconds=epoch,
        steps=[summary(step) for step in found.steps],
    )  # fmt: skip
    ways = given.ways.split(",")
    if "torch-pruning" in ways:
        began = clock()
        rival = by_torch_pruning(job, found)
        tell(job, "torch-pruning", rival, clock() - began, epochs=epochs)
    if "scratch" in ways:
        shape = copy.deepcopy(found.model)
        shape.apply(forget)
        began = clock()
        shape, rate = taught(shape, images, longer(settings, epochs, pretrained=False), engine, seed)
        tell(job, "scratch", shape, clock() - began, epochs=given.train_epochs + epochs)
    for text in given.small if "small" in ways else ():
        network, _, weights = text.partition("=")
        small = build(network, images.classes, weights or "none", seed=seed)
        began = clock()
        pretrained = weights not in ("", "none")
        small, rate = taught(small, images, longer(settings, epochs, pretrained=pretrained), engine, seed)
        tell(job, network, small, clock() - began, epochs=given.train_epochs + epochs, lr=rate)


def longer(settings: TransferSettings, epochs: int, *, pretrained: bool) -> TransferSettings:
    """The first training, with the epochs of a search behind it."""
    return replace(settings, epochs=settings.epochs + epochs, pretrained=pretrained)


def seconds_of_epoch(job: Job) -> float:
    """How long an epoch of the unpruned network takes: one of an eighth of the images."""
    part = job.data.train.take(len(job.data.train) // 8, 0)
    began = time.time()
    fit(
        copy.deepcopy(job.model), part, epochs=1, config=job.finetune, engine=job.engine, seed=0,
        task=make_task(job.data.spec),
    )  # fmt: skip
    return (time.time() - began) * len(job.data.train) / len(part)


def search(job: Job, minutes: float) -> Search:
    """`pe.prune` with its defaults."""
    given = job.given
    began = clock()
    steps: list[Step] = []
    models: dict[int, nn.Module] = {}
    costs: dict[int, float] = {}
    settings: Row = {"max_drop": given.max_drop, "augment": "flips", "budget": minutes}
    if given.steps is not None:
        settings = {
            "max_drop": 100.0, "augment": "flips", "max_steps": given.steps, "epochs": given.epochs,
            "step_ratio": given.step_ratio, "polish": 0, "extra_rounds": 0,
        }  # fmt: skip
    for step, model in pe.prune(job.model, job.data, engine=job.engine, seed=job.seed, **settings):
        steps.append(step)
        costs[step.index] = estimate(model, trace(model, job.data.example()))(None)
        result = handed_over(steps).index
        if result == step.index or step.index == 0:
            models = {result: copy.deepcopy(model)}
    return Search(steps, models[handed_over(steps).index], costs, clock() - began)


def by_torch_pruning(job: Job, found: Search) -> nn.Module:
    """Torch-Pruning's model after as many steps and epochs, estimated to take as long."""
    model = job.model
    for number, step in enumerate(found.way(), 1):
        seed = job.seed + number
        if step.is_polish:
            seed = job.seed + SEED_OF_POLISH
        else:
            cost = found.costs[step.index]
            model = cut_by_torch_pruning(job, "torch-pruning", model, cost)
        model = tuned(job, model, step.epochs, seed)
    return model


def tuned(job: Job, model: nn.Module, epochs: int, seed: int) -> nn.Module:
    """A fine-tuning as a step has it; its best epoch on validation data, as the rival's favour."""
    fitted = fit(
        model.to(job.engine.device), job.data.train, epochs=epochs, config=job.finetune,
        engine=job.engine, seed=seed, val=job.data.val, task=make_task(job.data.spec),
    )  # fmt: skip
    return fitted.model


def forget(layer: nn.Module) -> None:
    """Random weights again."""
    if hasattr(layer, "reset_parameters"):
        layer.reset_parameters()


def summary(step: Step) -> Row:
    """What a table needs of a step."""
    return {
        "index": step.index, "macs": step.macs, "params": step.params, "before": step.metric_before,
        "after": step.metric_after, "accepted": step.accepted, "keeps_rule": step.keeps_rule,
        "epochs": step.epochs, "rounds": step.rounds, "polish": step.is_polish,
        "seconds": round(step.seconds, 1), "reason": step.reason,
    }  # fmt: skip


def tell(job: Job, way: str, model: nn.Module, seconds: float, **more: Any) -> None:
    """Evaluate a model, keep its bundle, and write its line."""
    model = model.cpu().eval()
    graph = trace(model, job.data.example())
    test = evaluate(model, job.data.test, make_engine("32"))
    val = evaluate(model, job.data.val, make_engine("32"))
    name = f"{Path(job.given.name).stem}-{Path(job.given.name).parent.name}-{job.seed}-{way}"
    small = [text.partition("=")[0] for text in job.given.small]
    network = way if way in small else job.given.model
    row = {
        "data": job.given.name, "seed": job.seed, "way": way, "val": val.accuracy, "test": test.accuracy,
        "correct": test.correct, "macs": graph.macs(), "params": graph.params(),
        "estimate": estimate(model, graph)(None), "seconds": round(seconds, 1), "bundle": name,
        "size": job.given.size, "network": network, "widths": graph.widths(), **more,
    }  # fmt: skip
    if way in job.given.not_exported.split(","):
        row["forms"] = {"onnx": {"test": test.accuracy}}
        write(job.given, row)
        return
    try:
        bundle = export(model, job.data, job.given.out / name, network)
        row["forms"] = {
            form: {"test": pe.evaluate_on(bundle, job.given.name, target=form).judged.value} for form in FORMS
        }
    except pe.PrunedgeError as error:
        row["export_error"] = str(error)
    write(job.given, row)


def export(model: nn.Module, data: Dataset, out: Path, network: str) -> Path:
    """A bundle with both forms."""
    pe.export_bundle(model, data, out, model_name=network, formats=FORMS, max_int8_drop=100.0)
    return out


def write(given: Namespace, row: Row) -> None:
    """Append a line."""
    with open(given.out / "rows.jsonl", "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    print(row["data"], row["seed"], row.get("way"), row.get("val"), row.get("test"), row.get("error"), flush=True)


# -- time --------------------------------------------------------------------------------------


def measure(given: Namespace) -> None:
    """Milliseconds of every bundle in both forms, in turns with the unpruned one's ONNX, and what
    each is right about on the test split.
    """
    rows = [row for row in read(given.out, "rows.jsonl") if "bundle" in row]
    if given.seeds is not None:
        rows = [row for row in rows if str(row["seed"]) in given.seeds.split(",")]
    with open(given.out / "times.jsonl", "w", encoding="utf-8") as out:
        for data, seed in dict.fromkeys((row["data"], row["seed"]) for row in rows):
            group = [row for row in rows if (row["data"], row["seed"]) == (data, seed)]
            for line in timed(given.out, group, given.patches):
                out.write(json.dumps(line) + "\n")


def timed(folder: Path, rows: Sequence[Row], patches: int) -> Iterator[Row]:
    """A line for each form of every bundle of one set and seed; the unpruned one's ONNX is first,
    and what all others are compared with.
    """
    candidates, keys = [], []
    for row in rows:
        bundle = pe.open_bundle(there(folder, row))
        for form in bundle.manifest.forms:
            candidates.append(Candidate(bundle, form))
            keys.append((row, form))
    found = pe.bench(candidates, patches=patches)
    # The first is what the others are compared with.
    all_ratios = [{"speedup": {"median": 1.0}}, *found.ratios]
    for (row, form), record, ratios in zip(keys, found.bundles, all_ratios, strict=True):
        yield {
            "data": row["data"], "seed": row["seed"], "way": row["way"], "form": form,
            "ms": record["latency_ms"], "size_mb": record["size_mb"], "speedup": ratios["speedup"],
            "test": row["forms"].get(form, {}).get("test"),
        }  # fmt: skip


def there(folder: Path, row: Row) -> Path:
    """The bundle of a row; one with random weights where it was not brought along."""
    bundle: Path = folder / row["bundle"]
    if bundle.exists():
        return bundle
    data = load(row["data"], size=row["size"])
    model = build(row["network"], data.classes, "none", seed=0)
    if row["way"] in PRUNED:
        model = of_widths(model, row["widths"], row["size"])
    biases = [layer.bias for layer in model.modules() if getattr(layer, "bias", None) is not None]
    with torch.no_grad():
        biases[-1][0] += 10.0  # an export refuses answers that rounding turns round
    return export(model, data, bundle, row["network"])


# -- table -------------------------------------------------------------------------------------


def table(given: Namespace) -> None:
    """One table for each set of images."""
    rows = [row for row in read(given.out, "rows.jsonl") if "bundle" in row]
    times = read(given.out, "times.jsonl")
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        print(f"\n**{Path(data).parent.name}/{Path(data).stem}**, test, %\n")
        print("| way | form | ms | times faster | MB | times smaller | MACs, times fewer | test | to prunedge | seconds |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for way in dict.fromkeys(row["way"] for row in mine):
            for form in FORMS:
                print(line(mine, [one for one in times if one["data"] == data], way, form))


def line(rows: Sequence[Row], times: Sequence[Row], way: str, form: str) -> str:
    """One row of a table."""
    seeds = sorted({row["seed"] for row in rows})
    of = {(row["way"], row["seed"]): row for row in rows}
    at = {(one["way"], one["seed"], one["form"]): one for one in times}
    seeds = [seed for seed in seeds if (way, seed, form) in at]
    if not seeds:
        return f"| {way} | {form} | not made |"
    here = [at[way, seed, form] for seed in seeds]
    whole = [at["unpruned", seed, "onnx"] for seed in seeds]
    is_judged = all(at[one, seed, form]["test"] is not None for one in (way, "prunedge") for seed in seeds)
    ours = [100 * (at[way, seed, form]["test"] - at["prunedge", seed, form]["test"]) for seed in seeds] if is_judged else []
    cells = [
        way,
        form,
        spread([one["ms"]["median"] for one in here], 2),
        spread([one["speedup"]["median"] for one in here], 1),
        spread([one["size_mb"] for one in here], 2),
        spread([all_["size_mb"] / one["size_mb"] for all_, one in zip(whole, here, strict=True)], 0),
        spread([of["unpruned", seed]["macs"] / of[way, seed]["macs"] for seed in seeds], 0),
        interval([100 * one["test"] for one in here]) if is_judged else "not judged",
        "" if way == "prunedge" or not is_judged else interval(ours, sign="+"),
        spread([of[way, seed]["seconds"] for seed in seeds], 0),
    ]
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the lowest and highest."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def interval(values: Sequence[float], sign: str = "") -> str:
    """The mean, and how far the 95 % interval of Student's t reaches to both sides."""
    mean = format(statistics.mean(values), f"{sign}.1f")
    if len(values) < 2:
        return mean
    reach = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} ± {reach:.1f}"


def read(folder: Path, name: str) -> list[Row]:
    """The lines of a file."""
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
