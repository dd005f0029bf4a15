"""The whole pruning of a network: prunedge beside two plain float32 loops, from the same weights, to the same MACs, on the same pictures.

    pip install torch-pruning==1.6.1
    python benchmarks/whole_pruning.py DATA --model resnet18 --size 224

`prunedge` is the library's loop with all that it does: it chooses its precision by timing it, decodes the pictures, ranks while fine-tuning
(the network to start from comes with the scores that its own training gathered, as a run's does), keeps numbers of channels that suit the
processor's vectors (`--round-to 16`), proves every surgery, evaluates before and after. (a) `torch-pruning` is Torch-Pruning's Taylor importance from ten batches, and training as
its examples show it: float32, a DataLoader that decodes the pictures in every epoch. (b) `own-pass` trains in the same way, but ranks in
a pass of its own over the whole training set, as Molchanov et al. (2017) do; its channel graph and surgery are prunedge's.
All three see one seed, batch size, learning-rate schedule, number of epochs and kind of changed pictures (flips); (a) and (b) prune in each step to the MACs that prunedge
came to. Every run is a process of its own, and the rivals take iterate. Accuracy is on the test split, in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import in_process, peak_mb, ratio, save, told
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from prunedge.data import Split, load
from prunedge.edge.image.normalise import IMAGENET_MEAN, IMAGENET_STD
from prunedge.graph import trace
from prunedge.importance import Scores, gathered_while_training, rank
from prunedge.models import build
from prunedge.pruning.context import PruneContext
from prunedge.pruning.gathered import gathered
from prunedge.pruning.record import step_zero
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.select import PlanConstraints, choose
from prunedge.surgery import operate, restore_model, save_model
from prunedge.edge.tasks.classification import ACCURACY
from prunedge.train import (
    TrainConfig,
    TrainExtras,
    TransferSettings,
    evaluate,
    make_engine,
    measure_engine,
    transfer,
)
from prunedge.train.schedule import learning_rate

RIVALS = ("prunedge", "torch-pruning", "own-pass")
RANKED = 10  # batches from which Torch-Pruning's examples take the gradients
SMALL_STEPS = 100  # of its pruner, until the MACs are reached
CAP = 0.5  # of a layer, in a step
RECIPE = TrainConfig(lr=0.01, augment="flips")


def main() -> None:
    """Train the network to start from, then every rival with every seed; or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--pictures", type=int, default=100_000, help="training pictures at most")
    parser.add_argument("--train-epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--step-ratio", type=float, default=0.35)
    parser.add_argument("--round-to", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=Path, help="a folder for the network to start from, which is taken from there if it is there")
    parser.add_argument("--one", nargs=4, metavar=("RIVAL", "SEED", "START", "MACS"))
    given = parser.parse_args()
    if given.one:
        name, seed, start, macs = given.one
        print(json.dumps(_one(given, name, int(seed), Path(start), json.loads(macs))))
        return
    with tempfile.TemporaryDirectory() as folder:
        (given.start or Path(folder)).mkdir(exist_ok=True)
        start = (given.start or Path(folder)) / "start.safetensors"
        accuracy = _start(given, start)
        print(f"the network to start from: {accuracy:.1%} on test", flush=True)
        runs = [_seed(given, seed, start) for seed in range(given.seeds)]
    seconds = {name: [one[name]["seconds"] for one in runs] for name in RIVALS}
    answers = {name: [one[name]["test"] for one in runs] for name in RIVALS}
    ratios = {name: ratio(seconds["prunedge"], seconds[name]) for name in RIVALS[1:]}
    for name in RIVALS:
        spread = statistics.stdev(answers[name]) if len(runs) > 1 else 0.0
        beside = f"  prunedge takes {told(ratios[name])} of its time" if name in ratios else ""
        print(f"{name:14} {statistics.median(seconds[name]):7.1f} s  test {statistics.mean(answers[name]):.1%} +- {spread:.1%}{beside}")
    settings = {key: getattr(given, key) for key in ("model", "size", "pictures", "steps", "step_ratio", "round_to", "seeds")}
    save(f"whole_pruning_{given.model}", {"target": 1 / 3, **settings, "start": accuracy, "ratios": ratios, "runs": runs})


def _seed(given: argparse.Namespace, seed: int, start: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in RIVALS:
        macs = found["prunedge"]["macs"] if found else []
        options = ["--model", given.model, "--size", str(given.size), "--pictures", str(given.pictures)]
        options += ["--steps", str(given.steps), "--step-ratio", str(given.step_ratio), "--round-to", str(given.round_to)]
        found[name] = in_process(__file__, given.data, *options, "--one", name, str(seed), str(start), json.dumps(macs))
        one = found[name]
        print(f"seed {seed} {name:14} {one['seconds']:7.1f} s  test {one['test']:.1%}  MACs {[round(m / 1e6, 1) for m in one['macs']]}  "
              f"{one['peak_mb']:.0f} MB  {one.get('parts', '')}", flush=True)  # fmt: skip
    return found


def _start(given: argparse.Namespace, file: Path) -> float:
    data = load(given.data, size=given.size)
    network = build(given.model, data.classes, "none", seed=0)
    engine = measure_engine(network, data.example(8))
    if file.exists():
        return evaluate(restore_model(network, file), data.test, engine).accuracy
    collector = gathered_while_training("taylor", trace(network, data.example()))
    settings = TransferSettings(pretrained=False, epochs=given.train_epochs, augment=RECIPE.augment)
    fitted = transfer(network, data, settings, engine=engine, seed=0, extras=TrainExtras(collector=collector))
    save_model(network, file)
    save_file({name: value.contiguous() for name, value in fitted.collected.values.items()}, file.with_name("scores.safetensors"))
    return evaluate(network, data.test, engine).accuracy


def _one(given: argparse.Namespace, name: str, seed: int, start: Path, macs: list[int]) -> dict[str, Any]:
    data = load(given.data, size=given.size)
    network = restore_model(build(given.model, data.classes, "none", seed=0), start)
    work: Callable[..., dict[str, Any]] = {"prunedge": _prunedge, "torch-pruning": _torch_pruning, "own-pass": _own_pass}[name]
    torch.manual_seed(seed)
    started = time.perf_counter()
    found = work(given, network, seed, macs, start)
    seconds = time.perf_counter() - started
    test = evaluate(found.pop("network"), data.test, make_engine("32")).accuracy
    return {"seconds": seconds, "test": test, "peak_mb": peak_mb(), **found}


def _prunedge(given: argparse.Namespace, network: nn.Module, seed: int, macs: list[int], start: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:  # the pictures are decoded as if for the first time
        data = load(given.data, size=given.size, cache_dir=cache)
        data = replace(data, train=data.train.take(given.pictures))
        engine = measure_engine(network, data.example())
        shop = PruneContext(data, engine, RECIPE, seed=seed, constraints=PlanConstraints(round_to=given.round_to, max_ratio=CAP), extra_rounds=0)
        rule = StopPolicy(ACCURACY, max_drop=100.0, step_ratio=given.step_ratio, max_steps=given.steps)
        scores = Scores(load_file(start.with_name("scores.safetensors")), "taylor")
        # The start was trained on the same pictures, changed alike: these are the scores that this loop would gather.
        first = step_zero(shop, network, rule, gathered(shop, network, scores))
        done = [first, *iterate(shop, rule, (first.step,), first.state)]
        parts = ("rank", "surgery", "finetune", "evaluate")
        return {
            "network": done[-1].state.model, "macs": [turn.step.macs for turn in done[1:]], "engine": engine.name,
            "parts": {part: round(sum(getattr(turn.step, f"seconds_{part}") for turn in done), 2) for part in parts},
        }  # fmt: skip


def _torch_pruning(given: argparse.Namespace, network: nn.Module, seed: int, macs: list[int], start: Path) -> dict[str, Any]:
    import torch_pruning as tp

    train, val = _loaders(given)
    example = next(iter(val))[0][:1]
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        network, example, importance=tp.importance.GroupTaylorImportance(), global_pruning=True, pruning_ratio=1.0,
        iterative_steps=SMALL_STEPS, ignored_layers=[head],
    )  # fmt: skip
    reached = []
    for limit in macs:
        network.train().zero_grad()
        for number, (x, y) in enumerate(train):
            if number == RANKED:
                break
            F.cross_entropy(network(x), y).backward()
        while tp.utils.count_ops_and_params(network.eval(), example)[0] > limit:
            pruner.step()
        network.zero_grad()
        reached.append(int(tp.utils.count_ops_and_params(network, example)[0]))
        _train(network, train)
        _accuracy(network, val)
    return {"network": network, "macs": reached}


def _own_pass(given: argparse.Namespace, network: nn.Module, seed: int, macs: list[int], start: Path) -> dict[str, Any]:
    train, val = _loaders(given)
    example = next(iter(val))[0][:2]
    reached = []
    for limit in macs:
        graph = trace(network, example)
        scores = rank(network, graph, train)
        limits = PlanConstraints(max_ratio=CAP)
        plan = choose(graph, scores, 0.9, constraints=limits, enough=lambda plan, graph=graph, limit=limit: graph.macs(plan) <= limit)
        network = operate(network, graph, plan).model
        reached.append(graph.macs(plan))
        _train(network, train)
        _accuracy(network, val)
    return {"network": network, "macs": reached}


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Files and labels, decoded whenever they are asked for."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.samples, self.transform = [(sample.path, sample.target) for sample in split.samples], transform

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """A picture as (3, S, S) float32, normalised, and its class."""
        path, label = self.samples[index]
        with Image.open(path) as opened:
            return self.transform(opened.convert("RGB")), label


def _loaders(given: argparse.Namespace) -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = load(given.data, size=given.size)
    usual = [transforms.Resize((given.size, given.size)), transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    changed = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), *usual])
    train = Pictures(data.train.take(given.pictures), changed)
    return (
        DataLoader(train, batch_size=RECIPE.batch_size, shuffle=True, drop_last=True, num_workers=2),
        DataLoader(Pictures(data.val, transforms.Compose(usual)), batch_size=RECIPE.batch_size, num_workers=2),
    )


def _train(network: nn.Module, batches: DataLoader[Any]) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=RECIPE.lr, momentum=0.9, nesterov=True, weight_decay=RECIPE.weight_decay)
    network.train()
    for number, (x, y) in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number, len(batches), RECIPE)
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()


def _accuracy(network: nn.Module, batches: DataLoader[Any]) -> float:
    network.eval()
    with torch.no_grad():
        answers = [(network(x).argmax(1) == y).float() for x, y in batches]
    return float(torch.cat(answers).mean())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
