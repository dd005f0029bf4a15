"""The run folder: recipe, history, checkpoints and what was measured. Every write is atomic, nothing is pickled."""

from __future__ import annotations

import filecmp
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from prunedge import trust
from prunedge.chain import FIRST, RECORD, Chain, Reference
from prunedge.edge.device import processor
from prunedge.errors import RunError
from prunedge.files import write_text
from prunedge.importance import Provenance, Scores
from prunedge.loop import Checkpoint, Step, Stop, Turn, last_good
from prunedge.models import rebuild
from prunedge.plan import Plan
from prunedge.profile import profile_of
from prunedge.ranks import by_first
from prunedge.recipe import Recipe
from prunedge.spans import timed
from prunedge.surgery import OptimState, restore_network, save_network
from prunedge.systems import replace, sync_file, sync_folder
from prunedge.train import flattened, unflattened

RESUMED, EARLIER = "resumed.json", "earlier"  # what changed on the way, and what was measured before that
PACKAGES = ("prunedge", "torch", "torchvision", "timm", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder. `recipe` is what it was asked to do, as a plain dict."""

    path: Path
    recipe: dict[str, Any]

    def steps(self) -> list[Step]:
        """The history: step 0 is the network that pruning starts from; empty before that is trained."""
        file = self.path / "history.jsonl"
        if not file.exists():
            return []
        try:
            return [Step(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        except (ValueError, TypeError) as error:
            raise RunError(f"the history is damaged: {error}", where=file, remedy="delete its last line, then --resume") from None

    def best(self) -> Step:
        """The last step that kept the rule; RunError before the unpruned network is trained."""
        if not (steps := self.steps()):
            raise RunError("no network yet", where=self.path, remedy=self.how_to_go_on())
        return last_good(steps)

    def test(self) -> dict[str, Any] | None:
        """The test split's metrics of the first, unpruned network (`baseline`) and the best; None before the run's end.

        Where the run starts from a network that was pruned before, `start` has that one's.
        """
        return self.read("test.json")

    def read(self, name: str) -> Any:
        """A JSON file of the run; None when it isn't there."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"damaged: {error}", where=file, remedy="delete it and repeat the command that wrote it") from None

    @by_first
    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        write_text(self.path / name, json.dumps(value, indent=1))

    def load(self, step: int | None = None, device: str = "cpu") -> nn.Module:
        """The network after a step (None: the best; 0: unpruned), in evaluation mode."""
        return self.checkpoint(self.best().index if step is None else step).network.to(device).eval()

    @timed("load network")
    def checkpoint(self, step: int) -> Checkpoint:
        """Everything that was kept of an accepted step."""
        folder, plan = self._folder(step), self.plan(step)
        network = restore_network(self._untrained(), folder / "model.safetensors")
        return Checkpoint(network, plan, self._scores(folder), _state(folder / "momentum.safetensors"))

    def plan(self, step: int) -> Plan:
        """What led from the first, unpruned network to that of an accepted step."""
        folder = self._folder(step)
        if not folder.exists():
            known = ", ".join(str(s.index) for s in self.steps() if s.accepted) or "none"
            raise RunError(f"no network is kept of step {step}", where=self.path, remedy=f"steps with a network: {known}")
        return Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))

    def network_file(self, step: int) -> Path:
        """The weights of an accepted step."""
        return self._folder(step) / "model.safetensors"

    def first_file(self) -> Path:
        """The weights of the first network of the chain, where the run starts from one that was pruned before."""
        return self.path / FIRST / "model.safetensors"

    def chain(self) -> Chain | None:
        """Where the run comes from; None where it trained its network itself, or has not begun yet."""
        found = self.read(RECORD)
        return None if found is None else Chain.from_json(found)

    def verb(self) -> str | None:
        """What made the run, `train` or `prune`; None where it was an older prunedge, which did not note it."""
        return (self.read("environment.json") or {}).get("verb")

    def how_to_go_on(self) -> str:
        """The command that goes on with the run."""
        return f"prunedge {self.verb() or 'prune'} --resume {self.path}"

    def resumptions(self) -> list[dict[str, Any]]:
        """What changed when the run was gone on with: after which step, and each key with its old and new value."""
        return self.read(RESUMED) or []

    def computed_with(self) -> str:
        """What the weights depend on beside the recipe, in a sentence; empty before the run has begun."""
        began = self.read("engine.json")
        if began is None:
            return ""
        parts = []
        for name, one in (("threads", "thread"), ("processes", "process")):
            part = _counted(began.get(name, 1), one)
            for entry in self.resumptions():
                if name in entry["changes"]:
                    part += f" ({_counted(entry['changes'][name][1], one)} after step {entry['after_step']})"
            parts.append(part)
        said = f"computed with {', '.join(parts)}"
        said += f", precision {began['precision']}"
        if "processor" in began:
            said += f", on {began['processor']}"
        return f"{said}: another number of threads or processes, precision or processor gives other weights"

    def looks_before(self) -> int:
        """How often the test split had been looked at before the run went on to its present result."""
        return len(list((self.path / EARLIER).glob("*/test.json")))

    def first(self) -> Step:
        """The first, unpruned network of the chain on this run's validation split: what the rule and every ratio refer to."""
        chain = self.chain()
        return self.steps()[0] if chain is None or chain.first is None else chain.first

    def load_first(self, device: str = "cpu") -> nn.Module:
        """The first, unpruned network of the chain, in evaluation mode.

        RunError where the run starts from a pruned network and, made by an older prunedge, holds no other.
        """
        if self.is_of_unknown_origin():
            what = "the run starts from a pruned network and does not hold the first one: it was made by an older prunedge"
            raise RunError(what, where=self.path, remedy=f"take it from the run that this one began from, {self.recipe['start']}")
        if not self.first_file().is_file():
            return self.load(0, device)
        return restore_network(self._untrained(), self.first_file()).to(device).eval()

    def is_of_unknown_origin(self) -> bool:
        """Whether the run starts from a network that was pruned before and kept nothing of the first one."""
        return bool(self.recipe["start"]) and self.chain() is None and bool(self.steps()) and bool(self.plan(0).keep)

    def references(self) -> list[Reference]:
        """What the result is compared with: the first network, and the one that the run starts from where that is another."""
        chain, start = self.chain(), self.steps()[0]
        if chain is None:
            name = "the start, which was pruned before" if self.is_of_unknown_origin() else "the unpruned network"
            return [Reference(name, start, "baseline")]
        if chain.first is None:
            return [Reference(f"the unpruned network ({chain.links[0]})", start, "baseline")]
        return [
            Reference(f"the first network ({chain.links[0]})", chain.first, "baseline"),
            Reference(f"the start ({chain.links[-1]})", start, "start"),
        ]

    def _untrained(self) -> nn.Module:
        trust.check(self.recipe["model"], self.path)
        return rebuild(self.recipe["model"], self.recipe["classes"], seed=self.recipe["seed"])

    @timed("keep")
    @by_first
    def commit(self, turn: Turn) -> None:
        """Keep a turn: its checkpoint first (if the step was accepted), then its line in the history."""
        steps = self.steps()
        if turn.step.accepted:
            self._keep(turn)
        lines = [json.dumps(step.to_json()) for step in (*steps, turn.step)]
        write_text(self.path / "history.jsonl", "\n".join(lines) + "\n")
        if turn.step.accepted and turn.step.index:
            # Only the last good step is ever resumed from; the others keep their network alone.
            for name in ("momentum.safetensors", "scores.safetensors"):
                (self._folder(last_good(steps).index) / name).unlink(missing_ok=True)

    @by_first
    def share_network(self, source: Run) -> None:
        """Let the unpruned network be the same file on disk as the best one of `source`, where it is the same and the disk can."""
        mine, theirs = (folder / "model.safetensors" for folder in (self._folder(0), source._folder(source.best().index)))
        try:
            if filecmp.cmp(mine, theirs, shallow=False):
                link = mine.with_name(f".{mine.name}-{os.getpid()}")
                os.link(theirs, link)
                os.replace(link, mine)
        except OSError:
            return  # another disk, or one without links: it stays a copy

    def finish(self, stop: Stop) -> None:
        """Note why the loop ended."""
        self.write("stop.json", {"reason": stop.reason, "keep": stop.keep})

    def summary(self) -> dict[str, Any]:
        """What `prunedge show --json` prints."""
        steps, recipe, best = self.steps(), self.recipe, self.best()
        stop = self.read("stop.json")
        return {
            **{key: recipe[key] for key in ("model", "criterion", "metric", "classes", "size", "seed", "data", "weights")},
            "baseline": _figures(self.first()),
            "references": [{"name": one.name, "step": one.step.to_json(), "tested_as": one.tested} for one in self.references()],
            "best": {**_figures(best), "step": best.index, "channels": best.channels},
            "test": self._test(),
            "test_looks_before": self.looks_before(),
            "resumptions": self.resumptions(),
            "computing": self._computing(),
            "steps": [step.to_json() for step in steps],
            "stop": stop["reason"] if stop else None,
            "learning_rate": self.read("lr.json"),
            "weights_loaded": self.read("weights.json"),
            "bench": self.read("bench.json"),
            "profile": profile_of(self.path),
            **(self.read("environment.json") or {}),
        }

    def _test(self) -> dict[str, Any] | None:
        found = self.test()
        return {key: found[key] for key in ("baseline", "start", "best") if key in found} if found else None

    def _computing(self) -> dict[str, Any]:
        began = self.read("engine.json") or {}
        return {
            **{key: began.get(key) for key in ("threads", "processes", "precision", "processor")},
            "said": self.computed_with(),
        }

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:03d}"

    def _keep(self, turn: Turn) -> None:
        final, kept = self._folder(turn.step.index), turn.checkpoint
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=".writing-"))
        save_network(kept.network, folder / "model.safetensors")
        (folder / "plan.json").write_text(kept.plan.to_json(), encoding="utf-8")
        if kept.scores is not None and kept.scores.provenance is not None:
            about = {
                "criterion": kept.scores.criterion,
                "examples": str(kept.scores.examples),
                "provenance": kept.scores.provenance.to_json(),
            }
            save_file({k: v.contiguous() for k, v in kept.scores.values.items()}, folder / "scores.safetensors", about)
        if kept.state:
            save_file(flattened(kept.state), folder / "momentum.safetensors")
        for file in folder.iterdir():
            file.chmod(0o644)
            sync_file(file)
        folder.chmod(0o755)
        # A checkpoint that is there already was cut off before its line in the history: it was never used.
        shutil.rmtree(final, ignore_errors=True)
        replace(folder, final)
        sync_folder(final.parent)

    def _scores(self, folder: Path) -> Scores | None:
        """The scores that were kept; None where there are none, or nothing says what they are of (runs of 0.1 kept only a name)."""
        file = folder / "scores.safetensors"
        if not file.exists():
            return None
        values = _tensors(file)
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
        provenance = Provenance.from_json(about.get("provenance"))
        if provenance is None:
            return None
        return Scores(values, about.get("criterion", ""), int(about.get("examples", 0)), provenance)


@by_first
def create(path: Path | str, recipe: Mapping[str, Any], verb: str = "prune") -> Run:
    """Start a run folder of `train` or `prune` (`verb`); RunError when the folder already holds something."""
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        remedy = "choose another --out"
        if (folder / "recipe.toml").exists():
            remedy = f"go on with {open_run(folder).how_to_go_on()}, or {remedy}"
        raise RunError("the folder is not empty", where=folder, remedy=remedy)
    checked = Recipe.make("recipe", **recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, checked.model_dump())
        write_text(folder / "recipe.toml", checked.to_toml())
        run.write("environment.json", {"verb": verb, **_environment()})
    except OSError as error:
        raise RunError(f"can't write: {error.strerror}", where=folder, remedy="choose another --out") from None
    return run


def open_run(path: Path | str) -> Run:
    """The run in a folder; RunError when there is none."""
    folder = Path(path)
    if not (folder / "recipe.toml").is_file():
        raise RunError("not a run folder (it holds no recipe.toml)", where=folder, remedy="name the folder that --out made")
    for left in (folder / "checkpoints").glob(".writing-*"):
        shutil.rmtree(left, ignore_errors=True)
    run = Run(folder, Recipe.from_toml(folder / "recipe.toml").model_dump())
    # What only the pictures could tell: their classes and fingerprint, and the range of deep greys.
    engine = run.read("engine.json") or {"classes": run.recipe["classes"], "fingerprint": run.recipe["data_fingerprint"]}
    span = engine.get("range") or run.recipe["range"]
    run.recipe.update(classes=engine["classes"], data_fingerprint=engine["fingerprint"], range=span)
    return run


def _environment() -> dict[str, Any]:
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = f"{processor()}, {torch.get_num_threads()} threads, {platform.system()} {platform.machine()}"
    return {"versions": versions, "device": machine}


def _counted(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {'processes' if one == 'process' else one + 's'}"


def _figures(step: Step) -> dict[str, Any]:
    return {"accuracy": step.accuracy_after, "macs": step.macs, "params": step.params, "size_mb": step.size_mb}


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"can't read the weights: {error}", where=file, remedy="the file is damaged; repeat the run") from None


def _state(file: Path) -> OptimState | None:
    return unflattened(_tensors(file)) if file.exists() else None
