"""The run folder: recipe, history, checkpoints and what was measured. Every write is atomic, nothing is pickled."""

from __future__ import annotations

import filecmp
import json
import logging
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from prunedge.utils import checksums, trust
from prunedge.utils.advice import command
from prunedge.runs.chain import FIRST, RECORD, Chain, Reference
from prunedge.edge.bench.hardware import processor
from prunedge.errors import RunError
from prunedge.utils.files import clear_below, held, is_ours, write_text, written, written_folder
from prunedge.importance import Provenance, Scores
from prunedge.utils.filetypes import instead
from prunedge.pruning.loop import Checkpoint, Step, Stop, Turn, last_good
from prunedge.models import rebuild
from prunedge.graph.plan import Plan
from prunedge.runs.profile import profile_of
from prunedge.utils.distributed import by_first
from prunedge.config import Recipe
from prunedge.utils.tracing import timed
from prunedge.surgery import restore_network, save_network
from prunedge.utils.tensor_files import save_tensors, texts_of
from prunedge.train import flattened, unflattened
from prunedge.utils.machine import pass_on_reading, unwritable

RESUMED, EARLIER = "resumed.json", "earlier"  # what changed on the way, and what was measured before that
SEEN = "seen.json"  # lines about what can't be known of the pictures that taught the network which the run starts from
# What can be had again once it is deleted, and how; all else is known to the run's files alone.
REPEATED = {
    "test.json": "--resume measures it again", "stop.json": "--resume finds out again", "bench.json": "`prunedge bench` writes it again",
}  # fmt: skip
# What a file of that name always holds: what lacks it was damaged, or written by something else.
HOLDS = {
    "engine.json": ("precision", "fingerprint", "classes"), "test.json": ("baseline", "best"), "stop.json": ("reason",),
    "bench.json": ("bundles", "ratios"),
}  # fmt: skip
PACKAGES = ("prunedge", "torch", "torchvision", "timm", "onnxruntime", "numpy")


_SEAL = re.compile(r"# run ([0-9a-f]{16}) sha256 ([0-9a-f]{64})\n\Z")  # the last line of a recipe
_said_unsealed: set[Path] = set()  # runs of which it has been said that they have no checksums

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run folder. `recipe` is what it was asked to do, as a plain dict.

    `sign` stands for this run in the checksums of its files, so that a file of another run is told from its own. It is empty in runs of
    an older prunedge, whose files have no checksums.
    """

    path: Path
    recipe: dict[str, Any]
    sign: str = ""

    def steps(self) -> list[Step]:
        """The history: step 0 is the network that pruning starts from; empty before that is trained."""
        return [step for step, _ in self._history()]

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
            found = checksums.read(file, self.about(name), must=bool(self.sign))
            for key in HOLDS.get(name, ()):
                found[key]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise self._damaged(name, error) from None
        return found

    def read_as(self, name: str, make: Callable[[Any], T]) -> T | None:
        """What `make` makes of a JSON file of the run; None when it isn't there, RunError when it holds something else."""
        if (found := self.read(name)) is None:
            return None
        try:
            return make(found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise self._damaged(name, error) from None

    @by_first
    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically, with its checksum."""
        write_text(self.path / name, json.dumps(checksums.sealed(value, self.about(name)), indent=1))

    def about(self, name: str) -> str:
        """What the checksum of a file is about, beside what the file holds."""
        # Where it lies is not its own affair: a result that is put aside stays what it is.
        return f"{self.sign} {Path(name).name}"

    def load(self, step: int | None = None, device: str = "cpu") -> nn.Module:
        """The network after a step (None: the best; 0: unpruned), in evaluation mode."""
        return self.checkpoint(self.best().index if step is None else step).network.to(device).eval()

    @timed("load network")
    def checkpoint(self, step: int) -> Checkpoint:
        """Everything that was kept of an accepted step."""
        plan = self.plan(step)
        network = restore_network(self._untrained(), self.network_file(step))
        momentum = self._checked(step, "momentum.safetensors")
        return Checkpoint(network, plan, self._scores(step), None if momentum is None else unflattened(_tensors(momentum)))

    def plan(self, step: int) -> Plan:
        """What led from the first, unpruned network to that of an accepted step."""
        if not self._folder(step).exists():
            raise RunError(f"no network is kept of step {step}", where=self.path, remedy=f"steps with a network: {self._known()}")
        file = self._needed(step, "plan.json")
        try:
            return Plan.from_json(file.read_text(encoding="utf-8"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged_step(file, str(error)) from None

    def network_file(self, step: int) -> Path:
        """The weights of an accepted step, which are those that were written; RunError where they are not."""
        return self._needed(step, "model.safetensors")

    def first_file(self) -> Path:
        """The weights of the first network of the chain, where the run starts from one that was pruned before."""
        return self.path / FIRST / "model.safetensors"

    def chain(self) -> Chain | None:
        """Where the run comes from; None where it trained its network itself, or has not begun yet."""
        return self.read_as(RECORD, Chain.from_json)

    def verb(self) -> str | None:
        """What made the run, `train` or `prune`; None where it was an older prunedge, which did not note it."""
        return (self.read("environment.json") or {}).get("verb")

    def how_to_go_on(self) -> str:
        """The command that goes on with the run."""
        return command(self.verb() or "prune", "--resume", self.path)

    def resumptions(self) -> list[dict[str, Any]]:
        """What changed when the run was gone on with: after which step, and each key with its old and new value."""
        return self.read(RESUMED) or []

    def computed_with(self) -> str:
        """What the weights depend on beside the recipe, in a sentence; empty before the run has begun."""
        began = self.engine()
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
        if accelerator := began.get("accelerator"):
            said += f", on {accelerator}"
        elif "processor" in began:
            said += f", on {began['processor']}"
        return f"{said}: another number of threads or processes, precision or processor gives other weights"

    def engine(self) -> dict[str, Any] | None:
        """What computes the run, and the pictures that it began with; None before it has begun."""
        return self.read("engine.json")

    def stopped(self) -> str | None:
        """Why the loop ended; None where it has not."""
        found = self.read("stop.json")
        return None if found is None else str(found["reason"])

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
        return restore_network(self._untrained(), self.checked_first_file()).to(device).eval()

    def checked_first_file(self) -> Path:
        """`first_file`, which is what was written; RunError where it is not."""
        file, chain = self.first_file(), self.chain()
        try:
            if chain is not None and chain.weights is not None:
                checksums.check(file, {file.name: chain.weights})
        except checksums.Broken as error:
            raise self._damaged_step(file, str(error)) from None
        return file

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
        before = self._history()
        files = self._keep(turn) if turn.step.accepted else {}
        steps = [step for step, _ in before]
        lines = [self._line(step, its) for step, its in (*before, (turn.step, files))]
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
                with written(mine) as link:
                    os.link(theirs, link)
        except OSError:
            return  # another disk, or one without links: it stays a copy

    def finish(self, stop: Stop) -> None:
        """Note why the loop ended."""
        self.write("stop.json", {"reason": stop.reason, "keep": stop.keep})

    def summary(self) -> dict[str, Any]:
        """What `prunedge show --json` prints."""
        steps, recipe, best = self.steps(), self.recipe, self.best()
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
            "stop": self.stopped(),
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
        began = self.engine() or {}
        return {
            **{key: began.get(key) for key in ("threads", "processes", "precision", "processor", "accelerator")},
            "said": self.computed_with(),
        }

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:03d}"

    def _keep(self, turn: Turn) -> dict[str, str]:
        """Write the checkpoint of a turn; gives the SHA-256 of each file."""
        final, kept = self._folder(turn.step.index), turn.checkpoint
        # A checkpoint that is there already was cut off before its line in the history: it was never used.
        with written_folder(final, "checkpoint") as folder:
            save_network(kept.network, folder / "model.safetensors")
            (folder / "plan.json").write_text(kept.plan.to_json(), encoding="utf-8")
            if kept.scores is not None and kept.scores.provenance is not None:
                about = {
                    "criterion": kept.scores.criterion,
                    "examples": str(kept.scores.examples),
                    "provenance": kept.scores.provenance.to_json(),
                }
                save_tensors({k: v.contiguous() for k, v in kept.scores.values.items()}, folder / "scores.safetensors", about)
            if kept.state:
                save_tensors(flattened(kept.state), folder / "momentum.safetensors")
            for file in folder.iterdir():
                file.chmod(0o644)
            folder.chmod(0o755)
            return {file.name: checksums.file_digest(file) for file in sorted(folder.iterdir())}

    def _history(self) -> list[tuple[Step, dict[str, str]]]:
        """Each step, with the SHA-256 of each file of its checkpoint (none in runs of an older prunedge)."""
        file = self.path / "history.jsonl"
        if not file.exists():
            # Between its checkpoint and its line in the history a step 0 can be alone; nothing that comes later can.
            if any((self.path / name).exists() for name in ("checkpoints/step-001", "test.json", "stop.json")):
                raise RunError("the history is missing", where=file, remedy="bring it back from a copy, or begin the run anew")
            return []
        found: list[tuple[Step, dict[str, str]]] = []
        lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines):
            try:
                record, is_sealed = checksums.opened(json.loads(line), self.about(file.name))
                if self.sign and not is_sealed:
                    raise checksums.Broken("it has no checksum")
                files = record.pop("files", {})
                step = Step(**record)
                if step.index != number:
                    raise checksums.Broken(f"it is that of step {step.index}")
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                remedy = "bring it back from a copy, or begin the run anew"
                raise RunError(f"the history is damaged in line {number + 1}: {error}", where=file, remedy=remedy) from None
            found.append((step, files))
        return found

    def _line(self, step: Step, files: Mapping[str, str]) -> str:
        return json.dumps(checksums.sealed({**step.to_json(), **({"files": files} if files else {})}, self.about("history.jsonl")))

    def _known(self, but: int | None = None) -> str:
        """The steps whose networks are kept, in words."""
        return ", ".join(str(step.index) for step in self.steps() if step.accepted and step.index != but) or "none"

    def _checked(self, step: int, name: str) -> Path | None:
        """A file of a step's checkpoint, which is what was written; None where there is none. RunError where it is another."""
        file, history = self._folder(step) / name, self._history()
        files = history[step][1] if step < len(history) else {}
        if not files:
            self._say_unsealed()
            return file if file.exists() else None
        if not file.exists():
            # Scores and momentum are kept of the last good step alone: only that is gone on from.
            is_due = name in files and step == last_good([one for one, _ in history]).index
            if is_due:
                raise self._damaged_step(file, "it is missing")
            return None
        try:
            if name not in files:
                raise checksums.Broken("this run has not written it")
            checksums.check(file, files)
        except checksums.Broken as error:
            raise self._damaged_step(file, str(error)) from None
        return file

    def _needed(self, step: int, name: str) -> Path:
        file = self._checked(step, name)
        if file is None:
            others = self._known(but=step)
            raise RunError(
                "a file of the checkpoint is missing", where=self._folder(step) / name,
                remedy=f"bring it back from a copy, or take another step's network: {others}",
            )  # fmt: skip
        return file

    def _say_unsealed(self) -> None:
        if self.path not in _said_unsealed:
            _said_unsealed.add(self.path)
            log.warning("%s: an older prunedge made this run, without checksums: damage in its files may go unnoticed", self.path)

    def _damaged_step(self, file: Path, why: str) -> RunError:
        step = next((step.index for step in self.steps() if self._folder(step.index) == file.parent), None)
        remedy = f"bring it back from a copy, or take another step's network: {self._known(but=step)}"
        return RunError(f"damaged, or of another network: {why}", where=file, remedy=remedy)

    def _damaged(self, name: str, error: Exception) -> RunError:
        why = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        again = f"delete it: {REPEATED[name]}" if name in REPEATED else "begin the run anew"
        return RunError(f"damaged, or of another run: {why}", where=self.path / name, remedy=f"bring it back from a copy, or {again}")

    def _scores(self, step: int) -> Scores | None:
        """The scores that were kept; None where there are none, or nothing says what they are of (runs of 0.1 kept only a name)."""
        file = self._checked(step, "scores.safetensors")
        if file is None:
            return None
        values = _tensors(file)
        with safe_open(file, "pt") as opened:
            about = texts_of(opened.metadata())
        provenance = Provenance.from_json(about.get("provenance"))
        if provenance is None:
            return None
        return Scores(values, about.get("criterion", ""), int(about.get("examples", 0)), provenance)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends; what killed processes left in it is removed. InUse when another process holds it."""
    with held(path, "run"):
        clear_below(path)
        # Of an older prunedge, which held nothing.
        for left in (*(path / "checkpoints").glob(".writing-*"), *path.glob(".training.safetensors-*")):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        yield


@by_first
def create(path: Path | str, recipe: Mapping[str, Any], verb: str = "prune") -> Run:
    """Start a run folder of `train` or `prune` (`verb`); RunError when the folder already holds something."""
    folder = Path(path)
    _refuse_full(folder)
    checked = Recipe.make("recipe", **recipe)
    run = Run(folder, checked.model_dump(), secrets.token_hex(8))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, "run"):
            _refuse_full(folder)  # another process may have been faster
            # The recipe comes last: a folder without one is no run yet, and can be begun again.
            run.write("environment.json", {"verb": verb, **_environment()})
            write_recipe(run, checked)
    except OSError as error:
        raise unwritable(error, folder) from None
    return run


def write_recipe(run: Run, recipe: Recipe) -> None:
    """Write what a run is asked to do, with the run's sign and a checksum in the last line, unless an older prunedge began the run."""
    text = recipe.to_toml()
    seal = f"# run {run.sign} sha256 {_seal_of(text, run.sign)}\n" if run.sign else ""
    write_text(run.path / "recipe.toml", text + seal)


def open_run(path: Path | str) -> Run:
    """The run in a folder; RunError when there is none."""
    folder = Path(path)
    if not (folder / "recipe.toml").is_file():
        why, remedy = instead(folder, "recipe.toml", "name the folder that --out made")
        raise RunError(f"not a run folder ({why})", where=folder, remedy=remedy)
    sign = _sign_of(folder / "recipe.toml")
    run = Run(folder, Recipe.from_toml(folder / "recipe.toml").model_dump(), sign)
    # What only the pictures could tell: their classes and fingerprint, and the range of deep greys.
    engine = run.engine() or {"classes": run.recipe["classes"], "fingerprint": run.recipe["data_fingerprint"]}
    span = engine.get("range") or run.recipe["range"]
    run.recipe.update(classes=engine["classes"], data_fingerprint=engine["fingerprint"], range=span)
    return run


def sign_in(recipe: str) -> str:
    """The sign that the text of a run's recipe holds; empty where it holds none."""
    found = _SEAL.search(recipe)
    return found[1] if found else ""


def _refuse_full(folder: Path) -> None:
    """RunError where a folder holds something, but for what a killed process that began a run there has left."""
    if not folder.exists():
        return
    begun = {"environment.json"} if not (folder / "recipe.toml").exists() else set()
    if folder.is_dir() and all(is_ours(one.name) or one.name in begun for one in folder.iterdir()):
        return
    remedy = "choose another --out"
    if (folder / "recipe.toml").exists():
        remedy = f"go on with {open_run(folder).how_to_go_on()}, or {remedy}"
    raise RunError("the folder is not empty", where=folder, remedy=remedy)


def _seal_of(text: str, sign: str) -> str:
    return checksums.digest(text, f"{sign} recipe.toml")


def _sign_of(file: Path) -> str:
    """The sign of the run that a recipe is of, empty where an older prunedge wrote it. RunError where it is not what was written."""
    try:
        # Not read_text: it would take other ends of lines for those that were written.
        text = file.read_bytes().decode()
        found = _SEAL.search(text)
        if found is None and text.rstrip().rpartition("\n")[2].startswith("#"):
            raise checksums.Broken("its last line is no checksum")
        if found is not None and found[2] != _seal_of(text[: found.start()], found[1]):
            raise checksums.Broken("it differs from its checksum")
    except ValueError as error:
        remedy = "bring it back from a copy; where you have edited it, change the run with --resume instead"
        raise RunError(f"the recipe is damaged: {error}", where=file, remedy=remedy) from None
    return "" if found is None else found[1]


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
        pass_on_reading(error, file)
        raise RunError(f"can't read the weights: {error}", where=file, remedy="the file is damaged; repeat the run") from None
