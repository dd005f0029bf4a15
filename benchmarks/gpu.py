"""prunedge on a GPU: the whole job by its own commands, the speed of training, and inference of what comes out.

    python benchmarks/gpu.py DATA --weights vgg16-features.safetensors     needs an NVIDIA GPU; writes results/gpu.json

DATA is what `prunedge prune` takes. ResNet18 starts from random weights, VGG16 from a file with the convolutions of ImageNet
(without --weights it is left out). What is measured:

- `jobs`: `prunedge prune` from pictures to the test split, in a process of its own: seconds of each part, accuracy, MACs, parameters;
- `training`: pictures a second of fine-tuning and evaluation of the first and the last network, beside the bare network on tensors that
  lie in the GPU's memory, with and without the scores that fine-tuning gathers; and the race that chose the precision;
- `latency`: milliseconds of a batch of the first and the last network, each forward pass launched by the program (`eager`) or replayed as
  a CUDA graph. Timed with CUDA events. A measurement is the mean of passes over several buffers of pictures; whole and pruned networks take
  turns, and the figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import ratio, save, spread, told
from torch import nn

from prunedge.data import Dataset, Split, load
from prunedge.data.loader import _makers
from prunedge.graph import trace
from prunedge.importance import gathered_while_training
from prunedge.models.cost import cost
from prunedge.models.tf32 import full_float32
from prunedge.runs.run import Run, open_run
from prunedge.train import (
    Engine,
    TrainConfig,
    TrainExtras,
    evaluate,
    fit,
    make_engine,
    measure_engine,
)
from prunedge.train.deterministic import same_bits
from prunedge.train.optim import make_optimizer

SIZE = 224
# Few pictures and a fast machine: epochs that a processor would need minutes for.
JOBS: dict[str, list[str]] = {
    "resnet18": ["--train-epochs", "20", "--step-ratio", "0.5", "--epochs", "6", "--max-steps", "4"],
    "vgg16": ["--train-epochs", "8", "--step-ratio", "0.5", "--epochs", "4", "--max-steps", "5"],
}
USUAL = ["--size", str(SIZE), "--round-to", "16", "--augment", "flips", "--max-drop", "4", "--json"]
PICTURES = 640  # of an epoch whose speed is measured
EPOCHS = 4  # of them, the first of which warms up
BATCHES = (1, 64)
BUFFERS = 4  # of pictures, so that no pass finds its input in the cache by accident of the test
ROUND_S = 0.08  # that a measurement of latency takes, at least


def main() -> None:
    """Prune, then time what went in and what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--weights", type=Path, help="VGG16's convolutions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="as little of everything as shows that it runs; writes nothing")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU")
    result: dict[str, Any] = {"size": SIZE, "cudnn": torch.backends.cudnn.version(), "jobs": [], "training": [], "latency": []}
    with tempfile.TemporaryDirectory() as folder:
        for model in JOBS:
            if model == "vgg16" and given.weights is None:
                continue
            run = _job(given, model, Path(folder) / model, result)
            data = load(given.data, size=SIZE)
            networks = {"unpruned": run.load(0), "pruned": run.load()}
            _training(given, model, networks, data, result)
            _latency(given, model, networks, result)
            if not given.smoke:
                save("gpu", result)  # what is there stays if the machine is taken away


def _job(given: argparse.Namespace, model: str, out: Path, result: dict[str, Any]) -> Run:
    """`prunedge prune`, as a user would call it."""
    weights = str(given.weights) if model == "vgg16" else "none"
    options = ["--train-epochs", "6", "--epochs", "1", "--max-steps", "1", "--step-ratio", "0.5"] if given.smoke else JOBS[model]
    command = ["prune", given.data, "--model", model, "--weights", weights, "--out", str(out), *options, *USUAL]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "prunedge", *command], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"prunedge {' '.join(command)} failed:\n{done.stderr[-6000:]}")
    run = open_run(out)
    test, steps = run.read("test.json"), run.steps()
    best = run.best()
    row = {
        "model": model, "weights": "ImageNet's convolutions" if model == "vgg16" else "random", "options": options + USUAL[:-1],
        "seconds": seconds, "computed_with": run.computed_with(), "told": done.stderr[-3000:].splitlines(), "best": best.index,
        "steps": [_step(step) for step in steps],
        "test": {name: {key: test[name][key] for key in ("accuracy", "n", "loss")} for name in ("baseline", "best")},
    }  # fmt: skip
    result["jobs"].append(row)
    print(f"{model}: {seconds:.1f} s; {row['computed_with']}", flush=True)
    for step in row["steps"]:
        print(f"   {step}", flush=True)
    print(f"   test {row['test']}; step {best.index} of {steps[-1].index}", flush=True)
    return run


def _step(step: Any) -> dict[str, Any]:
    parts = ("rank", "surgery", "finetune", "evaluate")
    found = {key: getattr(step, key) for key in ("index", "accepted", "macs", "params", "rounds", "metrics_before", "metrics")}
    return {**found, "channels": step.channels, **{f"seconds_{part}": round(getattr(step, f"seconds_{part}"), 3) for part in parts}}


def _training(given: argparse.Namespace, model: str, networks: dict[str, nn.Module], data: Dataset, result: dict[str, Any]) -> None:
    """Fine-tuning and evaluation beside the bare network; every measurement is an epoch that comes after another."""
    race = measure_engine(networks["unpruned"], data.example(8))
    print(f"{model}: race {race.name}, ms a picture {race.timings}", flush=True)
    recipe = TrainConfig(lr=1e-4, augment="flips")
    epochs, train = 2 if given.smoke else EPOCHS, data.train.take(PICTURES)
    for which, network in networks.items():
        for name in dict.fromkeys((race.name, "32")):
            engine = make_engine(name)
            torch.cuda.reset_peak_memory_stats()
            plain = fit(network, train, epochs=epochs, config=recipe, engine=engine, seed=0)
            memory = torch.cuda.max_memory_allocated() / 1e6
            collector = gathered_while_training("taylor", trace(network, data.example()))
            scored = fit(network, train, epochs=epochs, config=recipe, engine=engine, seed=0, extras=TrainExtras(collector=collector))
            bare = _bare(network, train, engine, recipe, epochs)
            row: dict[str, Any] = {
                "model": model, "network": which, "engine": name, "macs": cost(network, data.example()).macs, "peak_mb": memory,
                "race_ms": race.timings, "pictures": len(train),
                "pictures_per_second": {
                    "fine-tuning": _rate(len(train), [epoch.seconds for epoch in plain.history]),
                    "and ranking": _rate(len(train), [epoch.seconds for epoch in scored.history]),
                    "bare": _rate(len(train), bare),
                    "evaluation": _rate(len(data.val), _evaluated(network, data, engine, epochs)),
                },
            }  # fmt: skip
            result["training"].append(row)
            rates = {what: told(rate, 0) for what, rate in row["pictures_per_second"].items()}
            print(f"{model} {which} {name}: pictures/s {rates}, {memory:.0f} MB", flush=True)
    pipeline = [_seconds(lambda: [None for _ in train.batches(32, shuffle_seed=0, augment="flips")]) for _ in range(3)]
    print(f"   the pictures alone: {told(_rate(len(train), pipeline), 0)} pictures/s", flush=True)
    result["training"][-1] |= {"pictures_alone_per_second": _rate(len(train), pipeline), "makers": _makers()}


def _rate(pictures: int, seconds: list[float]) -> dict[str, float]:
    """Pictures a second, the first measurement left out, which also warms up."""
    return spread([pictures / one for one in seconds[1:]])


def _seconds(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _evaluated(network: nn.Module, data: Dataset, engine: Engine, epochs: int) -> list[float]:
    return [_seconds(lambda: evaluate(network, data.val, engine)) for _ in range(epochs)]


def _bare(network: nn.Module, train: Split, engine: Engine, recipe: TrainConfig, epochs: int) -> list[float]:
    """Seconds of epochs on batches in the GPU's memory: forward, backward, the optimiser's step, and nothing that waits."""
    batches = [(engine.to_device(x), y.to(engine.device)) for x, y in train.batches(recipe.batch_size, shuffle_seed=0)]
    network.train()

    def epoch() -> None:
        for x, y in batches:
            with engine.autocast():
                logits = network(x)
            F.cross_entropy(logits.float(), y).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    with engine.holding(network), same_bits(engine.device):
        optimiser = make_optimizer(network, recipe)
        return [_seconds(epoch) for _ in range(epochs)]


@dataclass(frozen=True)
class Mode:
    """How a network computes: the type of its numbers, the memory format, and what is on while it does."""

    dtype: torch.dtype
    channels_last: bool
    inside: Callable[[], Any]


@contextmanager
def _tf32() -> Iterator[None]:
    cudnn, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, products


MODES = {
    "float32": Mode(torch.float32, False, full_float32),
    "float32, TF32": Mode(torch.float32, True, _tf32),
    "float16": Mode(torch.float16, True, nullcontext),
    "bfloat16": Mode(torch.bfloat16, True, nullcontext),
}


def _latency(given: argparse.Namespace, model: str, networks: dict[str, nn.Module], result: dict[str, Any]) -> None:
    rounds = 2 if given.smoke else given.rounds
    for name, mode in MODES.items():
        for batch in BATCHES:
            with mode.inside(), torch.inference_mode():
                timers = {which: _timers(network, mode, batch) for which, network in networks.items()}
                for way in ("eager", "graph"):
                    took = _turns({which: timer[way] for which, timer in timers.items()}, rounds)
                    ms = {which: spread(found) for which, found in took.items()}
                    row = {
                        "model": model,
                        "numbers": name,
                        "batch": batch,
                        "way": way,
                        "ms": ms,
                        "speedup": ratio(took["unpruned"], took["pruned"]),
                    }
                    result["latency"].append(row)
                    print(f"{model} {name} batch {batch} {way}: {told(ms['unpruned'], 3)} -> {told(ms['pruned'], 3)} ms, "
                          f"{told(row['speedup'])} times as fast", flush=True)  # fmt: skip
            del timers
            torch.cuda.empty_cache()


def _timers(network: nn.Module, mode: Mode, batch: int) -> dict[str, Callable[[], float]]:
    """Milliseconds of a batch, eager and as a CUDA graph."""
    form = torch.channels_last if mode.channels_last else torch.contiguous_format
    ready = _copied(network).eval().to("cuda", mode.dtype).to(memory_format=form)
    pictures = [torch.randn(batch, 3, SIZE, SIZE, device="cuda", dtype=mode.dtype).contiguous(memory_format=form) for _ in range(BUFFERS)]

    def passes() -> None:
        for one in pictures:
            ready(one)

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            passes()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        passes()
    return {"eager": lambda: _timed(passes), "graph": lambda: _timed(graph.replay)}


def _copied(network: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(network)


def _timed(work: Callable[[], Any]) -> float:
    """Milliseconds of one batch: the median over as many runs of `work`, of `BUFFERS` batches each, as fit into ROUND_S."""
    found: list[float] = []
    ends = time.perf_counter() + ROUND_S
    while len(found) < 3 or time.perf_counter() < ends:
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        work()
        after.record()
        after.synchronize()
        found.append(before.elapsed_time(after) / BUFFERS)
    return statistics.median(found)


def _turns(rivals: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each rival measures of itself, once in every round, after one that warms up."""
    took: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + 1):
        for name in rivals if number % 2 else reversed(rivals):
            took[name].append(rivals[name]())
    return {name: found[1:] for name, found in took.items()}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
