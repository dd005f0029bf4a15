"""Which layers give the channels: ways to choose all widths at once, at the same estimated time.

    python benchmarks/allocation.py steel.csv --weights vgg16-features.safetensors --size 64
        --shares 16,64 --ways loss,score-per-cost,knapsack --seeds 0 --out allocation.jsonl

A model is taught, its channels are scored (Taylor), and each way cuts the same model to the same
milliseconds of `prunedge.latency.roofline`; then it is fine-tuned as a step of `prunedge prune` is.

- `loss`: `prunedge.pruning.allocate`, what a step does. The next channel is the one that takes the
  least share of what is left of its group's importance for what it saves at the widths of the moment;
- `score-per-cost`: every channel's score, divided by its layer's norm, over what it costs in the
  unpruned model, lowest first. (The score less a multiple of the cost, with the multiple that the
  time asks for, takes the same channels: those below 0 are those whose ratio is below it.)
- `score`: lowest scores first, whatever they cost;
- `uniform`: the same share of every layer, its lowest scores;
- `knapsack`: all widths by one integer programme (scipy.optimize.milp), solved anew as costs change:
  of a table of widths for each group the ones that keep most of the sum of the logarithms of the
  importance, where the model costs a tenth less than before;
- `torch-pruning`: its own cut, by its Taylor importance over all layers at once (benchmarks/ways.py).

A line of JSON for each: widths, cost, validation and test metric right after the cut and in the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping
from math import log
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from ways import Job, cut_by_torch_pruning

from prunedge.data import load
from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores, rank
from prunedge.latency.roofline import estimate
from prunedge.models import build
from prunedge.pruning.context import MOST_GROWTH
from prunedge.pruning.select import choose
from prunedge.surgery import operate
from prunedge.tasks import make_task
from prunedge.train import TransferSettings, evaluate, fit, make_engine, transfer
from prunedge.train.batches import usual_batch_size

LEAST = 2  # channels that every group keeps
TABLE = 12  # widths of each group that the integer programme may choose from
SAVED = 0.1  # of the cost, in each of its rounds

Total = Callable[[Plan | None], float]
Order = Mapping[str, list[int]]  # each group's channels, least important first


def main() -> None:
    """Teach, score, cut in every way, fine-tune."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--weights", default="none")
    parser.add_argument(
        "--start", type=Path, help="a taught model's state dict, instead of a training"
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--train-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--shares", default="16,64")
    parser.add_argument("--ways", default=",".join([*WAYS, "torch-pruning"]))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, default=Path("allocation.jsonl"))
    given = parser.parse_args()
    for seed in map(int, given.seeds.split(",")):
        compare(given, seed)


def compare(given: argparse.Namespace, seed: int) -> None:
    """All ways and shares, for one taught model."""
    data = load(given.data, size=given.size)
    engine = make_engine(given.precision)
    model = build(given.model, data.classes, given.weights, seed=seed)
    settings = TransferSettings(
        pretrained=given.weights != "none", epochs=given.train_epochs, augment="flips", batch_size=usual_batch_size(len(data.train)),
    )  # fmt: skip
    if given.start is None:
        transfer(model, data, settings, engine=engine, seed=seed)
    else:
        model.load_state_dict(torch.load(given.start, weights_only=True))
    graph = trace(model, data.example())
    scores = rank(model, graph, data.train, "taylor", engine=engine, seed=seed)
    total = estimate(model, graph)
    settings = TransferSettings(
        pretrained=True, augment="flips", batch_size=settings.batch_size, temporary_norms=True
    )  # fmt: skip
    whole = {
        "val": evaluate(model, data.val, engine).accuracy,
        "test": evaluate(model, data.test, engine).accuracy,
    }
    for share in map(int, given.shares.split(",")):
        for way in given.ways.split(","):
            started = time.perf_counter()
            goal = total(None) / share
            if way == "torch-pruning":
                job = Job(given, data, seed, engine, model, settings.config(model))
                cut = cut_by_torch_pruning(job, way, model, goal).cpu()
            else:
                cut = operate(model, graph, WAYS[way](graph, scores, total, goal)).model
            seconds = time.perf_counter() - started
            before = evaluate(cut, data.val, engine).accuracy
            smaller = trace(cut, data.example())
            growth = min(MOST_GROWTH, (graph.macs() / smaller.macs()) ** 0.5)
            fitted = fit(
                copy.deepcopy(cut), data.train, epochs=round(growth * given.epochs), config=settings.config(cut), engine=engine,
                seed=seed + 1, val=data.val, task=make_task(data.spec),
            )  # fmt: skip
            row = {
                "data": Path(given.data).stem, "model": given.model, "seed": seed, "way": way, "share": share, "unpruned": whole,
                "times": total(None) / estimate(cut, smaller)(None), "macs": graph.macs() / smaller.macs(), "params": graph.params() / smaller.params(),
                "widths": [group.size for group in smaller.groups], "seconds_choose": seconds, "before": before,
                "val": fitted.val.accuracy if fitted.val else None, "test": evaluate(fitted.model, data.test, engine).accuracy,
                "epochs": round(growth * given.epochs), "seconds": time.perf_counter() - started,
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            with given.out.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")


def by_loss(graph: ChannelGraph, scores: Scores, total: Total, goal: float) -> Plan:
    """What a step does."""
    return choose(graph, scores, 1 - goal / total(None), total_cost=total)


def first_until(
    graph: ChannelGraph, values: Mapping[str, torch.Tensor], total: Total, goal: float
) -> Plan:
    """The lowest of these values, as many as the goal asks for: bisection over their number."""
    ordered = sorted(
        (float(value), name, channel)
        for name in values
        for channel, value in enumerate(values[name])
    )
    low, high = 0, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        if total(without(graph, ordered[:middle])) <= goal:
            high = middle
        else:
            low = middle
    return without(graph, ordered[:high])


def without(graph: ChannelGraph, ordered: list[tuple[float, str, int]]) -> Plan:
    """The plan without these channels, as far as a group keeps the least."""
    gone: dict[str, list[int]] = {}
    for _, name, channel in ordered:
        listed = gone.setdefault(name, [])
        if len(listed) < graph.group(name).size - LEAST:
            listed.append(channel)
    return Plan(
        {
            name: tuple(sorted(set(range(graph.group(name).size)) - set(out)))
            for name, out in gone.items()
            if out
        }
    )


def normed(scores: Scores) -> dict[str, torch.Tensor]:
    """Each group's scores over their Euclidean norm."""
    return {name: value / value.norm().clamp_min(1e-30) for name, value in scores.values.items()}


def costs_of(graph: ChannelGraph, total: Total) -> dict[str, float]:
    """What a channel of each group costs in the unpruned model: a quarter's saving, shared."""
    costs = {}
    for group in graph.groups:
        gone = max(1, group.size // 4)
        costs[group.name] = (
            total(None) - total(Plan({group.name: tuple(range(group.size - gone))}))
        ) / gone
    return costs


def by_score(graph: ChannelGraph, scores: Scores, total: Total, goal: float) -> Plan:
    """Lowest scores first."""
    return first_until(graph, normed(scores), total, goal)


def by_score_per_cost(graph: ChannelGraph, scores: Scores, total: Total, goal: float) -> Plan:
    """Lowest score over cost first."""
    costs = costs_of(graph, total)
    return first_until(
        graph, {name: value / costs[name] for name, value in normed(scores).items()}, total, goal
    )


def uniform(graph: ChannelGraph, scores: Scores, total: Total, goal: float) -> Plan:
    """The same share of every group."""
    order = ordered(scores)
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if (
            total(widths(graph, order, {group.name: middle * group.size for group in graph.groups}))
            <= goal
        ):
            low = middle
        else:
            high = middle
    return widths(graph, order, {group.name: low * group.size for group in graph.groups})


def ordered(scores: Scores) -> Order:
    """Each group's channels, least important first."""
    return {name: value.argsort(stable=True).tolist() for name, value in scores.values.items()}


def widths(graph: ChannelGraph, order: Order, sizes: Mapping[str, float]) -> Plan:
    """The most important channels of each group, so many."""
    keep = {}
    for group in graph.groups:
        size = max(LEAST, min(group.size, round(sizes[group.name])))
        if size < group.size:
            keep[group.name] = tuple(sorted(order[group.name][group.size - size :]))
    return Plan(keep)


def by_knapsack(graph: ChannelGraph, scores: Scores, total: Total, goal: float) -> Plan:
    """Integer programmes, one for every tenth of the cost: what a group costs depends on the widths around it."""
    order = ordered(scores)
    sizes: dict[str, float] = {group.name: group.size for group in graph.groups}
    now = total(None)
    while now > goal * 1.001:
        sizes = _solved(graph, scores, total, order, sizes, max(goal, (1 - SAVED) * now))
        after = total(widths(graph, order, sizes))
        if after >= now * 0.999:
            break
        now = after
    return widths(graph, order, sizes)


def _solved(
    graph: ChannelGraph,
    scores: Scores,
    total: Total,
    order: Order,
    sizes: Mapping[str, float],
    allowed: float,
) -> dict[str, float]:
    """The widths that keep most at this cost, each at most a quarter less than it is."""
    now = total(widths(graph, order, sizes))
    values: list[float] = []
    costs: list[float] = []
    owner: list[int] = []
    options: list[tuple[str, int]] = []
    for place, group in enumerate(graph.groups):
        size = round(sizes[group.name])
        kept = torch.tensor(
            [float(scores.values[group.name][channel]) for channel in order[group.name]]
        ).clamp_min(0)
        importance = kept.flip(0).cumsum(0)
        for width in sorted(
            {round(value) for value in np.linspace(max(LEAST, 0.75 * size), size, TABLE)}
        ):
            saved = now - total(widths(graph, order, {**sizes, group.name: width}))
            values.append(log(max(1e-12, float(importance[width - 1] / importance[-1]))))
            costs.append(-saved)
            owner.append(place)
            options.append((group.name, width))
    one_each = np.zeros((len(graph.groups), len(options)))
    one_each[owner, range(len(options))] = 1
    solved = milp(
        -np.array(values),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(np.array(costs)[None], -np.inf, allowed - now)],
        integrality=np.ones(len(options)), bounds=Bounds(0, 1),
    )  # fmt: skip
    if solved.x is None:  # every group would have to lose more than a quarter
        return {name: max(LEAST, 0.75 * size) for name, size in sizes.items()}
    return {options[number][0]: options[number][1] for number in np.flatnonzero(solved.x > 0.5)}


WAYS: dict[str, Callable[[ChannelGraph, Scores, Total, float], Plan]] = {
    "loss": by_loss,
    "knapsack": by_knapsack,
    "score-per-cost": by_score_per_cost,
    "score": by_score,
    "uniform": uniform,
}


if __name__ == "__main__":
    main()
