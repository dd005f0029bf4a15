"""Every criterion judged on real pictures: accuracy against MACs, compensation right after removal, the aids, the controls.

    prunedge train PICTURES --model resnet18 --weights none --epochs 8 --size 112 --out starts/masonry-resnet18-0    (one for each seed)
    prunedge audit starts/masonry-resnet18-0 --channels 48 --images 256                                            (the oracle)
    python benchmarks/criteria.py starts/masonry-resnet18-{0,1,2} --part curves --part compensation --part aids --part controls
    python benchmarks/criteria.py --write

Starting networks are run folders called PICTURES-NETWORK-SEED; where one is missing, seed 0's stands in with another order of the pictures.
Everything is fine-tuned alike: each step brings the MACs to the next of `LEVELS` (shares of the unpruned network's) and fine-tunes
for one epoch. One line for each measurement goes to results/criteria/PICTURES-NETWORK.jsonl; what stands there is not measured again.
`--write` puts all of it, and the audits, into docs/criteria-measured.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "criteria", ROOT / "docs" / "criteria-measured.md"
LEVELS = (0.5, 0.25, 0.125, 0.0625)
CAP = 0.5  # of a layer, in a step
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
PARTS = ("curves", "compensation", "aids", "controls")
AIDS: dict[str, dict[str, Any]] = {
    "none": {}, "compensate mean": {"compensate": "mean"}, "compensate lstsq": {"compensate": "lstsq"}, "distill 0.5": {"distill": 0.5},
    "rewind": {"rewind": True}, "regularise bn-l1": {"sparsity": "bn-l1"}, "regularise group-lasso": {"sparsity": "group-lasso"},
    "regularise growing": {"sparsity": "growing"}, "per-mac": {"per_mac": True}, "normalise none": {"normalise": "none"},
    "normalise mean": {"normalise": "mean"}, "normalise rank": {"normalise": "rank"}, "per-layer": {"per_layer": True},
    "fisher, normalise none": {"criterion": "fisher", "normalise": "none"},
    "fisher, normalise none, per-mac": {"criterion": "fisher", "normalise": "none", "per_mac": True},
    "taylor-fo, normalise none": {"criterion": "taylor-fo", "normalise": "none"},
}  # fmt: skip
Row = dict[str, Any]


class Starts:
    """The starting networks of one network and set of pictures, by seed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        from prunedge import data as pictures
        from prunedge.runs.run import open_run
        from prunedge.train import make_engine

        self.runs = {int(folder.name.rpartition("-")[2]): open_run(folder) for folder in folders}
        self.name = folders[0].name.rpartition("-")[0]
        self.config = self.runs[0].config
        self._first: dict[int, dict[str, Any]] = {}
        self.engine = make_engine(self.config.train.precision)
        self.sets = {
            seed: pictures.load(run.config.data.path, size=run.config.data.size, seed=run.config.data.seed) for seed, run in self.runs.items()
        }

    def at(self, seed: int) -> tuple[Any, Any]:
        """The run and the pictures of a seed."""
        own = seed if seed in self.runs else 0
        return self.runs[own], self.sets[own]

    def scores(self, seed: int, criterion: str) -> Any:
        """Of the unpruned network: all that read pictures are gathered in one pass."""
        from prunedge.errors import PrunedgeError
        from prunedge.graph import trace
        from prunedge.importance import CRITERIA, gather, rank

        run, data = self.at(seed)
        network = run.load(0)
        graph = trace(network, data.example())
        if CRITERIA[criterion].collect is None:
            return rank(network, graph, [], criterion, seed=seed)
        if seed not in self._first:
            collectors = {name: one.collect(graph) for name, one in CRITERIA.items() if one.collect is not None}
            gather(network, data.train, list(collectors.values()))
            self._first[seed] = {}
            for name, collector in collectors.items():
                with contextlib.suppress(PrunedgeError):  # a criterion that can't judge this network
                    self._first[seed][name] = collector.result()
        return self._first[seed][criterion]

    def workshop(self, seed: int, criterion: str, **aids: Any) -> Any:
        """What every turn of the loop works with."""
        from prunedge.pruning.context import PruneContext, RecoveryConfig
        from prunedge.pruning.select import PlanConstraints, ScoreScaling
        from prunedge.runs.training import kept_rate
        from prunedge.train import TransferSettings

        run, data = self.at(seed)
        ranking = {key: aids.pop(key) for key in ("per_mac", "normalise", "per_layer") if key in aids}
        rate = kept_rate(run)
        settings = TransferSettings(
            pretrained=self.config.model.weights != "none",
            batch_size=self.config.train.batch_size,
            lr=rate.lr if rate else None,
        )
        finetune = settings.config(run.load(0))
        if aids.pop("rewind", False):
            finetune = dataclasses.replace(finetune, start=1 - 1 / self.config.train.epochs)
        distill = aids.pop("distill", 0.0)
        finetune = dataclasses.replace(finetune, distill=distill)
        teacher = run.load(0) if distill else None
        return PruneContext(
            data, self.engine, finetune, criterion, 1, seed, extra_rounds=0, scaling=ScoreScaling(**ranking), recovery=RecoveryConfig(teacher=teacher, **aids),
            constraints=PlanConstraints(max_ratio=CAP),
        )  # fmt: skip


def walk(starts: Starts, shop: Any) -> Iterator[tuple[float, Any]]:
    """(level, turn) for each level of MACs; the unpruned network first, at level 1."""
    from prunedge.pruning.gathered import gathered
    from prunedge.pruning.record import step_zero
    from prunedge.pruning.loop import iterate
    from prunedge.pruning.policy import StopPolicy
    from prunedge.edge.tasks.classification import ACCURACY

    run, _ = starts.at(shop.seed)
    network = run.load(0)
    scores = gathered(shop, network, starts.scores(shop.seed, shop.criterion))
    turn = step_zero(shop, network, StopPolicy(ACCURACY), scores)
    history, good = [turn.step], turn.state
    yield 1.0, turn
    for level in LEVELS:
        rule = StopPolicy(ACCURACY, max_drop=100.0, step_ratio=0.9, target_macs=level)
        for turn in iterate(shop, rule, history, good):
            history.append(turn.step)
            good = turn.state
        yield level, turn


def figures(starts: Starts, shop: Any, level: float, turn: Any) -> Row:
    """The figures of a network on the way."""
    step, data = turn.step, shop.data
    return {
        "level": level, "macs": step.macs, "params": step.params, "channels": step.channels, "steps": step.index,
        "val_before": step.metrics_before["accuracy"], "val": step.metrics["accuracy"], "test": accuracy(turn.state.model, data.test, starts),
        "seconds_rank": step.seconds_rank, "seconds": step.seconds_rank + step.seconds_surgery + step.seconds_finetune,
    }  # fmt: skip


def accuracy(network: Any, split: Any, starts: Starts) -> float:
    """Of the network on a split."""
    from prunedge.train import evaluate

    return evaluate(network, split, starts.engine).accuracy


def curves(starts: Starts, seed: int) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Every criterion, at the same MACs with the same fine-tuning."""
    from prunedge.importance import CRITERIA

    def work(name: str) -> list[Row]:
        shop = starts.workshop(seed, name)
        return [figures(starts, shop, level, turn) for level, turn in walk(starts, shop)]

    order = ["taylor", "weight-l2", "random"]
    for name in order + sorted(CRITERIA.keys() - set(order)):
        yield name, lambda name=name: work(name)


def aids(starts: Starts, seed: int) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """The same for `taylor` with what helps, and with other ways to compare layers."""

    def work(options: dict[str, Any]) -> list[Row]:
        shop = starts.workshop(seed, options.get("criterion", "taylor"), **{key: one for key, one in options.items() if key != "criterion"})
        return [figures(starts, shop, level, turn) for level, turn in walk(starts, shop)]

    for name, options in AIDS.items():
        if name != "none":  # stands among the curves
            yield name, lambda options=options: work(options)


def controls(starts: Starts, seed: int) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """`taylor`'s shapes from random weights for as many epochs, and as many channels of each group at random."""
    from prunedge.models import build
    from prunedge.pruning.baselines import random, scratch
    from prunedge.train import TransferSettings

    def work() -> list[Row]:
        shop = starts.workshop(seed, "taylor")
        run, data = starts.at(seed)
        found: list[Row] = []
        plans = []
        for level, turn in walk(starts, shop):
            if level == 1:
                continue
            plans.append((turn.state.plan, 1))
            found.append({"control": "taylor", **figures(starts, shop, level, turn)})
            fresh = build(run.config.model.name, data.classes, "none", seed=seed + 1)
            bold = TransferSettings(pretrained=False, batch_size=shop.finetune.batch_size).config(fresh)
            epochs = run.config.train.epochs + turn.step.index
            fits = {
                "scratch": lambda fresh=fresh, bold=bold, epochs=epochs, plan=turn.state.plan: scratch(
                    fresh, plan, data, epochs=epochs, config=bold, engine=starts.engine, seed=seed + 50
                ),
                "random": lambda: random(run.load(0), plans, data, config=shop.finetune, engine=starts.engine, seed=seed + 60),
            }
            for name, fit in fits.items():
                fitted = fit()
                assert fitted.val is not None
                found.append({
                    "control": name, "level": level, "macs": turn.step.macs, "params": turn.step.params, "val": fitted.val.accuracy,
                    "test": accuracy(fitted.model, data.test, starts), "epochs": epochs if name == "scratch" else len(plans),
                })  # fmt: skip
        return found

    yield "controls", work


def compensation(starts: Starts, seed: int) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Accuracy right after the removal of shares of the channels by `taylor`, nothing trained."""
    from prunedge.graph import trace
    from prunedge.pruning.select import PlanConstraints, choose
    from prunedge.surgery import operate
    from prunedge.surgery.compensate import compensate

    def work() -> list[Row]:
        run, data = starts.at(seed)
        network = run.load(0)
        graph = trace(network, data.example())
        scores = starts.scores(seed, "taylor")
        calibration = data.train.take(256, seed)
        found = []
        for share in SHARES:
            plan = choose(graph, scores, share, constraints=PlanConstraints(max_ratio=0.95))
            for how in ("none", "mean", "lstsq"):
                surgery = operate(network, graph, plan)
                begun = time.perf_counter()
                compensate(network, graph, surgery.plan, surgery.model, calibration.batches(32), how)
                seconds = time.perf_counter() - begun
                found.append({
                    "share": share, "how": how, "seconds": seconds, "macs": graph.macs(surgery.plan) / graph.macs(),
                    **{name: accuracy(surgery.model, split, starts) for name, split in (("val", data.val), ("test", data.test))},
                })  # fmt: skip
        return found

    yield "compensation", work


WORK = {"curves": curves, "aids": aids, "controls": controls, "compensation": compensation}


def measure_all(starts: Starts, parts: Iterable[str], seeds: Sequence[int], out: Path, only: Sequence[str]) -> None:
    """Measure what is not there yet, seed by seed, and keep each line as it comes."""
    file = out / f"{starts.name}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["part"], row["seed"], row["name"]) for row in known}
    for seed in seeds:
        for part in parts:
            for name, work in WORK[part](starts, seed):
                if (part, seed, name) in done or (only and name not in only):
                    continue
                begun = time.perf_counter()
                row = {"part": part, "seed": seed, "start": seed if seed in starts.runs else 0, "name": name, "rows": work()}
                with file.open("a") as opened:
                    opened.write(json.dumps(row) + "\n")
                print(f"{starts.name} {part} seed {seed} {name}: {time.perf_counter() - begun:.0f} s", flush=True)


def main() -> int:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("starts", nargs="*", type=Path)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.starts:
        starts = Starts(args.starts)
        measure_all(starts, args.part or PARTS, [int(seed) for seed in args.seeds.split(",")], args.out, args.only)
    if args.write:
        sys.path.insert(0, str(Path(__file__).parent))
        from criteria_page import page

        PAGE.write_text(page(args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
