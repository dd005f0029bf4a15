"""Ways to prune, side by side: the same trained model, the same engine and epochs, to the same cost.

    pip install torch-pruning==1.6.1
    python benchmarks/ways.py cracks.csv steel.csv --model vgg16 --weights vgg16-features.safetensors
        --size 96 --seeds 0,1,2 --ways latency,macs,torch-pruning --out ways.jsonl [--processes 9]

Each set of images and seed is a process: it trains a model, and prunes it by every way in four
steps, each to a quarter of what the step before left of the estimated milliseconds (`latency`: that
is what sets the pace; every other way prunes until its model is estimated to take as long, so that
rows compare; `macs` saves a quarter of the MACs, as `--for macs` does). No rule takes a step back.
After the last two steps the model is polished, as `--polish` does it.

`torch-pruning` is its Taylor importance, over all layers at once, from the gradients of ten
batches, in the engine of prunedge: its precision, its cached images, its epochs and schedule, its
temporary norms and optimizer (`torch-pruning-sgd`: without these, as in 0.1);
`torch-pruning-local` compares no layers, `torch-pruning-l2` and `torch-pruning-hessian` are its
other importances. `random` draws as many channels of each layer as `latency` leaves. `small` are
networks that are small by design, taught for as many epochs.

A line of JSON for each model: widths, MACs, parameters, estimated milliseconds, validation and test
metric, and which test images it has right. benchmarks/ways_page.py times the models by ONNX Runtime
and makes the tables.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.data import Dataset, load
from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.importance import CRITERIA, rank
from prunedge.importance.agreement import agreement
from prunedge.importance.oracle import oracle, sample
from prunedge.latency.roofline import estimate
from prunedge.models import build
from prunedge.pruning.context import MOST_GROWTH
from prunedge.pruning.polish import SEED_OF_POLISH
from prunedge.pruning.prune import prune
from prunedge.surgery import operate
from prunedge.tasks import make_task
from prunedge.train import (
    Engine,
    TrainConfig,
    TransferSettings,
    evaluate,
    fit,
    make_engine,
    transfer,
)
from prunedge.train.batches import usual_batch_size
from prunedge.train.transfer import transfer_rate

STEPS = 4
STEP_RATIO = 0.75
POLISHED = (3, 4)  # steps after which the model is polished
POLISH = 8
BISECTIONS = 7
PLAIN_RATE = 0.01  # of SGD without norms
RANKED = 10  # batches of Torch-Pruning's gradients, as its examples take them

# What `prune` is told, beside the steps, the epochs and the rate.
OURS: dict[str, dict[str, Any]] = {
    "latency": {"cost": "latency"},
    "macs": {"cost": "macs"},
    "params": {"cost": "params"},
    "uniform": {"cost": "channels", "per_layer": True, "step_ratio": 0.5},
    "penalty": {"cost": "channels", "macs_penalty": 1.0, "max_ratio": 1.0},
    "lstsq": {"cost": "latency", "compensate": "lstsq"},
    "mean": {"cost": "latency", "compensate": "mean"},
    "distill": {"cost": "latency", "distill": 0.5},
    "lstsq-distill": {"cost": "latency", "compensate": "lstsq", "distill": 0.5},
    "weight-l2": {"cost": "latency", "criterion": "weight-l2"},
    "fpgm": {"cost": "latency", "criterion": "fpgm"},
    "epochs-1": {"cost": "latency", "epochs": 1},
    "epochs-10": {"cost": "latency", "epochs": 10},
}
RIVALS = ("torch-pruning", "torch-pruning-sgd", "torch-pruning-local", "torch-pruning-l2", "torch-pruning-hessian")


@dataclass(frozen=True)
class Job:
    """One set of images and one seed: the model that was trained, and what every way needs."""

    given: argparse.Namespace
    data: Dataset
    seed: int
    engine: Engine
    model: nn.Module
    finetune: TrainConfig

    def row(self, way: str, step: int, model: nn.Module, seconds: float, **more: Any) -> None:
        """Evaluate a model and write its line."""
        graph = trace(model, self.data.example().cpu()) if step else None
        val = evaluate(model, self.data.val, self.engine)
        test = evaluate(model, self.data.test, self.engine)
        row = {
            "data": Path(self.given.name).stem, "seed": self.seed, "way": way, "step": step,
            "val": val.accuracy, "test": test.accuracy, "correct": test.correct,
            "seconds": round(seconds, 2), **figures(model, graph, self.data), **more,
        }  # fmt: skip
        write(self.given.out, row)

    def polished(self, model: nn.Module) -> nn.Module:
        """A copy that was fine-tuned for longer; the better epoch on validation data is kept."""
        fitted = fit(
            copy.deepcopy(model), self.data.train, epochs=self.given.polish, config=self.finetune,
            engine=self.engine, seed=self.seed + SEED_OF_POLISH, val=self.data.val,
            task=make_task(self.data.spec),
        )  # fmt: skip
        return fitted.model


def main() -> None:
    """Every set and seed in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default="latency,macs,torch-pruning,random")
    parser.add_argument("--small", default="", help="MODEL=WEIGHTS, with commas")
    parser.add_argument("--train-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--polish", type=int, default=POLISH)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sampled", type=int, default=32, help="channels of each layer, by `oracle`")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no way is begun")
    parser.add_argument("--out", type=Path, default=Path("ways.jsonl"))
    given = parser.parse_args()
    given.deadline = time.time() + given.seconds
    jobs = [(given, data, int(seed)) for seed in given.seeds.split(",") for data in given.data]
    if given.processes == 1:
        for job in jobs:
            work(*job)
        return
    context = multiprocessing.get_context("spawn")
    running: list[Any] = []
    for job in jobs:
        process = context.Process(target=work, args=job)
        process.start()
        running.append(process)
    for process in running:
        process.join()


def work(given: argparse.Namespace, data: str, seed: int) -> None:
    """Train one model and prune it by every way; what fails is written, and the next one goes on."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // max(1, given.processes)))
    given.name = data
    images = load(data, size=given.size)
    engine = make_engine(given.precision)
    model = build(given.model, images.classes, given.weights, seed=seed)
    settings = TransferSettings(
        pretrained=given.weights != "none", epochs=given.train_epochs, augment="flips", batch_size=usual_batch_size(len(images.train)),
    )  # fmt: skip
    started = time.time()
    model, rate = taught(model, images, settings, engine, seed)
    finetune = replace(settings, temporary_norms=True).config(model)
    if not finetune.temporary_norms:
        finetune = replace(finetune, lr=rate)
    job = Job(given, images, seed, engine, model, finetune)
    job.row("unpruned", 0, model, time.time() - started, lr=rate)

    costs: list[float] = []  # what `latency` left after each step
    plans: list[dict[str, int]] = []
    for way in given.ways.split(","):
        if time.time() > given.deadline:
            write(given.out, {"data": Path(data).stem, "seed": seed, "way": way, "error": "no time"})
            continue
        try:
            if way == "small":
                small_networks(job)
            elif way == "oracle":
                correlations(job)
            else:
                prune_by(job, way, costs, plans)
        except Exception:
            error = traceback.format_exc()[-1500:]
            write(given.out, {"data": Path(data).stem, "seed": seed, "way": way, "error": error})


def prune_by(job: Job, way: str, costs: list[float], plans: list[dict[str, int]]) -> None:
    """Every step of a way, and the polished models; `latency` notes what the others are held to."""
    if way in OURS:
        made = by_prunedge(job, way)
    elif way in RIVALS:
        made = by_torch_pruning(job, way, costs)
    else:
        made = at_random(job, plans)
    for step, model, seconds in made:
        if way == "latency":
            graph = trace(model, job.data.example())
            costs.append(estimate(model, graph)(None))
            plans.append({group.name: group.size for group in graph.groups})
        job.row(way, step, model, seconds)
        if step in POLISHED and job.given.polish:
            started = time.time()
            polished = job.polished(model)
            job.row(way, step, polished, time.time() - started, polished=True)


def taught(
    model: nn.Module, data: Dataset, settings: TransferSettings, engine: Engine, seed: int
) -> tuple[nn.Module, float]:
    """The model after its first training, and the peak learning rate that was found for it."""
    config = settings.config(model)
    rate = None
    if settings.epochs:
        rate = transfer_rate(model, data, config, pretrained=settings.pretrained, engine=engine, seed=seed)
    fitted = transfer(model, data, settings, engine=engine, seed=seed, rate=rate)
    return fitted.model, config.lr if rate is None else rate.lr


Made = Iterator[tuple[int, nn.Module, float]]


def by_prunedge(job: Job, way: str) -> Made:
    """The library's loop; (step, model, seconds)."""
    settings: dict[str, Any] = {"step_ratio": STEP_RATIO, "epochs": job.given.epochs, "max_steps": job.given.steps}
    settings |= {"max_drop": 100.0, "polish": 0, "extra_rounds": 0, "seed": job.seed}
    settings |= OURS[way]
    finetune = replace(job.finetune, distill=settings.pop("distill", 0.0))
    started = time.time()
    for step, model in prune(job.model, job.data, engine=job.engine, finetune=finetune, **settings):
        if step.index:
            yield step.index, model, time.time() - started
            started = time.time()


def at_random(job: Job, widths: list[dict[str, int]]) -> Made:
    """As many channels of each layer as `latency` leaves, drawn at random."""
    generator = torch.Generator().manual_seed(job.seed)
    model = job.model
    for number, sizes in enumerate(widths, 1):
        started = time.time()
        graph = trace(model, job.data.example())
        keep = {}
        for group in graph.groups:
            drawn = torch.randperm(group.size, generator=generator)[: sizes[group.name]]
            keep[group.name] = tuple(sorted(drawn.tolist()))
        model = operate(model, graph, Plan(keep)).model
        yield number, tuned(job, model, number), time.time() - started


def by_torch_pruning(job: Job, way: str, costs: list[float]) -> Made:
    """Torch-Pruning, in the engine of prunedge, until its model is estimated to take as long."""
    model = job.model
    for number, cost in enumerate(costs, 1):
        started = time.time()
        model = cut_by_torch_pruning(job, way, model, cost)
        if way == "torch-pruning-sgd":
            job = replace(job, finetune=replace(job.finetune, optimizer="sgd", temporary_norms=False, lr=PLAIN_RATE))
        yield number, tuned(job, model, number), time.time() - started


def cut_by_torch_pruning(job: Job, way: str, model: nn.Module, cost: float) -> nn.Module:
    """By its smallest pruning ratio that reaches the cost: bisection, each time from the model."""
    import torch_pruning as tp

    importances: dict[str, Callable[[], Any]] = {
        "torch-pruning": tp.importance.GroupTaylorImportance,
        "torch-pruning-sgd": tp.importance.GroupTaylorImportance,
        "torch-pruning-local": tp.importance.GroupTaylorImportance,
        "torch-pruning-l2": tp.importance.GroupMagnitudeImportance,
        "torch-pruning-hessian": tp.importance.GroupHessianImportance,
    }
    example = job.data.example().to(job.engine.device)
    whole = copy.deepcopy(model).to(job.engine.device).eval()
    gradients = gradients_of(job, whole, squared=way == "torch-pruning-hessian")
    low, high = 0.0, math.log(100)  # of one over the share that is kept
    best: nn.Module | None = None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        ratio = 1 - math.exp(-middle)
        small = copy.deepcopy(whole)
        importance = importances[way]()
        for parameter, gradient in zip(small.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        last = [layer for layer in small.modules() if isinstance(layer, nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            small, example, importance=importance, pruning_ratio=ratio, max_pruning_ratio=0.995,
            global_pruning=way != "torch-pruning-local", ignored_layers=[last],
        )  # fmt: skip
        pruner.step()
        small.zero_grad(set_to_none=True)
        graph = trace(small, job.data.example())
        if estimate(small, graph)(None) <= cost:
            high = middle
            best = small
        else:
            low = middle
    if best is None:
        raise RuntimeError(f"{way} doesn't reach {cost:.3f} ms")
    return best


def gradients_of(job: Job, model: nn.Module, *, squared: bool) -> list[torch.Tensor]:
    """The gradients of some batches, summed, as its examples do; or the squares of those of single
    images, which its Hessian importance takes in their place.
    """
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for number, (images, labels) in enumerate(job.data.train.batches(32, shuffle_seed=job.seed)):
        if number == RANKED:
            break
        logits = model(images.to(job.engine.device))
        labels = labels.to(job.engine.device)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        for loss in losses if squared else [losses.mean()]:
            found = torch.autograd.grad(loss, parameters, retain_graph=squared)
            for total, gradient in zip(sums, found, strict=True):
                total += gradient**2 if squared else gradient
    return sums


def tuned(job: Job, model: nn.Module, number: int) -> nn.Module:
    """The fine-tuning of a step."""
    unpruned = trace(job.model, job.data.example()).macs()
    macs = trace(model.cpu(), job.data.example()).macs()
    growth = min(MOST_GROWTH, max(1.0, (unpruned / macs) ** 0.5))
    fitted = fit(
        model.to(job.engine.device), job.data.train, epochs=round(growth * job.given.epochs), config=job.finetune,
        engine=job.engine, seed=job.seed + number, val=job.data.val, task=make_task(job.data.spec),
    )  # fmt: skip
    return fitted.model


def small_networks(job: Job) -> None:
    """Every network that is small by design, taught for as many epochs in all."""
    for network in job.given.small.split(","):
        small_network(job, network)


def small_network(job: Job, network: str) -> None:
    """One of them, MODEL=WEIGHTS."""
    name, _, weights = network.partition("=")
    model = build(name, job.data.classes, weights or "none", seed=job.seed)
    given = job.given
    epochs = given.train_epochs + given.steps * given.epochs + given.polish
    settings = TransferSettings(
        pretrained=weights not in ("", "none"), epochs=epochs, augment="flips", batch_size=job.finetune.batch_size,
    )  # fmt: skip
    started = time.time()
    model, rate = taught(model, job.data, settings, job.engine, job.seed)
    job.row(name, STEPS, model, time.time() - started, lr=rate)


def correlations(job: Job) -> None:
    """Spearman's rank correlation of every criterion with what leaving a channel out does; for the
    first seed.
    """
    if job.seed:
        return
    model = job.model
    graph = trace(model, job.data.example())
    batches = [(images, labels) for images, labels in job.data.train.take(256, 0).batches(64)]
    started = time.time()
    truth = oracle(model, graph, batches, sample(graph, job.given.sampled, 0))
    seconds = time.time() - started
    for name in CRITERIA:
        try:
            found = agreement(truth, rank(model, graph, job.data.train, name)).to_json()
        except Exception as error:
            found = {"error": str(error)}
        row = {"data": Path(job.given.name).stem, "seed": 0, "way": "oracle", "criterion": name}
        write(job.given.out, {**row, "agreement": found, "seconds": seconds})


def figures(model: nn.Module, graph: ChannelGraph | None, data: Dataset) -> dict[str, Any]:
    """What a model costs, and how wide its layers are."""
    graph = graph or trace(model, data.example())
    return {
        "macs": graph.macs(),
        "params": graph.params(),
        "estimate": estimate(model, graph)(None),
        "widths": graph.widths(),
    }


def write(file: Path, row: dict[str, Any]) -> None:
    """Append a line; several processes write to one file."""
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
