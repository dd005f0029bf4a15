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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from prunedge.edge.device import processor
from prunedge.errors import RunError
from prunedge.files import write_text
from prunedge.importance import Scores
from prunedge.loop import Checkpoint, Step, Stop, Turn, last_good
from prunedge.models import build
from prunedge.plan import Plan
from prunedge.profile import profile_of
from prunedge.ranks import by_first
from prunedge.recipe import Recipe
from prunedge.spans import timed
from prunedge.surgery import OptimState, restore_network, save_network
from prunedge.train import flattened, unflattened

PACKAGES = ("prunedge", "torch", "torchvision", "timm", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Run:
    """A run folder. `recipe` is what it was asked to do, as a plain dict."""

    path: Path
    recipe: dict[str, Any]

    def steps(self) -> list[Step]:
        """The history: step 0 is the unpruned network; empty before that is trained."""
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
            raise RunError("no network yet", where=self.path, remedy=f"prunedge prune --resume {self.path}")
        return last_good(steps)

    def test(self) -> dict[str, Any] | None:
        """The test split's metrics of the unpruned and the best network; None before the run's end."""
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
        folder = self._folder(step)
        if not folder.exists():
            known = ", ".join(str(s.index) for s in self.steps() if s.accepted) or "none"
            raise RunError(f"no network is kept of step {step}", where=self.path, remedy=f"steps with a network: {known}")
        network = build(self.recipe["model"], self.recipe["classes"], "none", seed=self.recipe["seed"])
        network = restore_network(network, folder / "model.safetensors")
        plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
        return Checkpoint(network, plan, self._scores(folder), _state(folder / "momentum.safetensors"))

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
            "baseline": _figures(steps[0]),
            "best": {**_figures(best), "step": best.index, "channels": best.channels},
            "test": self._test(),
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
        return {key: found[key] for key in ("baseline", "best")} if found else None

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:03d}"

    def _keep(self, turn: Turn) -> None:
        final, kept = self._folder(turn.step.index), turn.checkpoint
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=".writing-"))
        save_network(kept.network, folder / "model.safetensors")
        (folder / "plan.json").write_text(kept.plan.to_json(), encoding="utf-8")
        if kept.scores is not None:
            about = {"criterion": kept.scores.criterion, "examples": str(kept.scores.examples)}
            save_file({k: v.contiguous() for k, v in kept.scores.values.items()}, folder / "scores.safetensors", about)
        if kept.state:
            save_file(flattened(kept.state), folder / "momentum.safetensors")
        for file in folder.iterdir():
            file.chmod(0o644)
            _sync(file)
        folder.chmod(0o755)
        # A checkpoint that is there already was cut off before its line in the history: it was never used.
        shutil.rmtree(final, ignore_errors=True)
        os.replace(folder, final)

    def _scores(self, folder: Path) -> Scores | None:
        file = folder / "scores.safetensors"
        if not file.exists():
            return None
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            about = opened.metadata()
        return Scores(_tensors(file), about["criterion"], int(about["examples"]))


@by_first
def create(path: Path | str, recipe: Mapping[str, Any]) -> Run:
    """Start a run folder; RunError when the folder already holds something."""
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        remedy = f"go on with --resume {folder}, or choose another --out" if (folder / "recipe.toml").exists() else "choose another --out"
        raise RunError("the folder is not empty", where=folder, remedy=remedy)
    checked = Recipe.make("recipe", **recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, checked.model_dump())
        write_text(folder / "recipe.toml", checked.to_toml())
        run.write("environment.json", _environment())
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
    # What only the pictures could tell: their classes and fingerprint.
    engine = run.read("engine.json") or {"classes": run.recipe["classes"], "fingerprint": run.recipe["data_fingerprint"]}
    run.recipe.update(classes=engine["classes"], data_fingerprint=engine["fingerprint"])
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


def _figures(step: Step) -> dict[str, Any]:
    return {"accuracy": step.accuracy_after, "macs": step.macs, "params": step.params, "size_mb": step.size_mb}


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"can't read the weights: {error}", where=file, remedy="the file is damaged; repeat the run") from None


def _state(file: Path) -> OptimState | None:
    return unflattened(_tensors(file)) if file.exists() else None


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
