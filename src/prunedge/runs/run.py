"""The run folder: config, history, checkpoints and what was measured. Every write is atomic,
nothing is pickled.
"""

from __future__ import annotations

import filecmp
import json
import os
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from prunedge.config import RunConfig
from prunedge.edge.bench.hardware import processor
from prunedge.errors import RunError
from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.importance import Provenance, Scores
from prunedge.models import fits_classes, rebuild
from prunedge.pruning.policy import Finished
from prunedge.pruning.steps import Iteration, State, Step, last_good
from prunedge.runs.chain import FIRST, RECORD, Chain, Reference
from prunedge.runs.profile import profile_of
from prunedge.runs.records import KINDS, require_step
from prunedge.surgery import restore_model, save_model
from prunedge.train import flattened, unflattened
from prunedge.utils import checksums, trust
from prunedge.utils.advice import command
from prunedge.utils.distributed import rank_zero_only
from prunedge.utils.files import (
    clear_below,
    held,
    is_ours,
    make_folder,
    read_bytes,
    read_text,
    refuse_url,
    require_regular,
    write_text,
    written,
    written_folder,
)
from prunedge.utils.filetypes import instead
from prunedge.utils.formats import FORMAT, KEY, refuse_newer, refuse_other
from prunedge.utils.machine import pass_on_reading, unwritable
from prunedge.utils.records import require
from prunedge.utils.signs import CONFIG, sign_of, signed
from prunedge.utils.tensor_files import save_tensors, texts_of
from prunedge.utils.tracing import traced

RESUMED, EARLIER = (
    "resumed.json",
    "earlier",
)  # what changed on the way, and what was measured before that
# lines about what can't be known of the images that taught the model which the run starts from
SEEN = "seen.json"
# What can be had again once it is deleted, and how; all else is known to the run's files alone.
REPEATED = {
    "test.json": "--resume measures it again",
    "stop.json": "--resume finds out again",
    "bench.json": "`prunedge bench` writes it again",
}
# What is written once the engine is known, beside the history.
BEGUN = ("lr.json", "latency.json", "training.safetensors", RECORD)
PACKAGES = ("prunedge", "torch", "torchvision", "timm", "onnxruntime", "numpy")


T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run folder. `config` is what it was asked to do.

    `sign` stands for this run in the checksums of its files, so that a file of another run is told
    from its own.
    """

    path: Path
    config: RunConfig
    sign: str

    def steps(self) -> list[Step]:
        """The history: step 0 is the model that pruning starts from; empty before that is
        trained.
        """
        return [step for step, _ in self._history()]

    def best(self) -> Step:
        """The last step that kept the rule; RunError before the unpruned model is trained."""
        if not (steps := self.steps()):
            raise RunError("no model yet", where=self.path, remedy=self.how_to_go_on())
        return last_good(steps)

    def test(self) -> dict[str, Any] | None:
        """The test split's metrics of the first, unpruned model (`baseline`) and the best; None
        before the run's end.

        Where the run starts from a model that was pruned before, `start` has that one's.
        """
        found = self.read("test.json")
        chain = self.chain()
        if (
            found is not None
            and chain is not None
            and chain.first is not None
            and found.get("start") is None
        ):
            raise self._damaged("test.json", ValueError("start: there are no metrics of the start"))
        return found

    def read(self, name: str) -> Any:
        """A JSON file of the run; None when it isn't there."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            found = checksums.read(file, self.about(name))
            if name in KINDS:
                require(KINDS[name], found)
        except (ValueError, RecursionError, TypeError) as error:
            raise self._damaged(name, error) from None
        return found

    def read_as(self, name: str, make: Callable[[Any], T]) -> T | None:
        """What `make` makes of a JSON file of the run; None when it isn't there, RunError when it
        holds something else.
        """
        if (found := self.read(name)) is None:
            return None
        try:
            return make(found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise self._damaged(name, error) from None

    @rank_zero_only
    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically, with its checksum."""
        write_text(
            self.path / name, json.dumps(checksums.sealed(value, self.about(name)), indent=1)
        )

    def about(self, name: str) -> str:
        """What the checksum of a file is about, beside what the file holds."""
        # Where it lies is not its own affair: a result that is put aside stays what it is.
        return f"{self.sign} {Path(name).name}"

    def of_images(self, engine: Mapping[str, Any]) -> Run:
        """The run with what only the images could tell: their classes and fingerprint, and the
        range of deep greys.
        """
        config = self.config.with_values(
            classes=engine["classes"],
            data_fingerprint=engine["fingerprint"],
            range=engine.get("range") or self.config.data.range,
        )
        return replace(self, config=config)

    def load(self, step: int | None = None, device: str = "cpu") -> nn.Module:
        """The model after a step (None: the best; 0: unpruned), in evaluation mode."""
        return self.state(self.best().index if step is None else step).model.to(device).eval()

    @traced("load model")
    def state(self, step: int) -> State:
        """Everything that was kept of an accepted step."""
        plan = self.plan(step)
        model = self._restored(self.model_file(step))
        momentum = self._checked(step, "momentum.safetensors")
        return State(
            model,
            plan,
            self._scores(step),
            None if momentum is None else unflattened(_tensors(momentum)),
        )

    def plan(self, step: int) -> Plan:
        """What led from the first, unpruned model to that of an accepted step."""
        file = self._needed(step, "plan.json")
        try:
            text = read_text(file, RunError)
            require(dict[str, list[int]], json.loads(text))
            plan = Plan.from_json(text)
            self._require_fitting(plan)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged_step(file, str(error)) from None
        return plan

    def _require_fitting(self, plan: Plan) -> None:
        """ValueError where a plan keeps a channel that the layer of that name never had
        (`require_plan` looks closer).
        """
        widths = self.first().original
        for name, kept in plan.keep.items():
            if name in widths and kept[-1] >= widths[name]:
                raise ValueError(f"it keeps channel {kept[-1]} of {name}, which has {widths[name]}")

    def require_plan(self, step: int, graph: ChannelGraph) -> None:
        """RunError where the plan of a step is none for the first, unpruned model, whose graph
        this is.
        """
        plan = self.plan(step)
        sizes = {group.name: group.size for group in graph.groups}
        for name, kept in plan.keep.items():
            why = (
                f"the model has no group {name}"
                if name not in sizes
                else f"it keeps channel {kept[-1]} of {name}"
            )
            if name not in sizes or kept[-1] >= sizes[name]:
                raise self._damaged_step(self._folder(step) / "plan.json", why)

    def model_file(self, step: int) -> Path:
        """The weights of an accepted step, which are those that were written; RunError where they
        are not.
        """
        return self._needed(step, "model.safetensors")

    def first_file(self) -> Path:
        """The weights of the first model of the chain, where the run starts from one that was
        pruned before.
        """
        return self.path / FIRST / "model.safetensors"

    def chain(self) -> Chain | None:
        """Where the run comes from; None where it trained its model itself, or has not begun
        yet.
        """
        chain = self.read_as(RECORD, Chain.from_json)
        if chain is not None and chain.first is not None:
            try:
                require_step(chain.first, self.config)
            except ValueError as error:
                raise self._damaged(RECORD, error) from None
        return chain

    def refuse_incomplete(self) -> None:
        """RunError where a file is missing that the run must have by now: what it holds would be
        guessed, or written anew.
        """
        has_steps = (self.path / "history.jsonl").exists()
        has_begun = has_steps or any(
            (self.path / name).exists() for name in (*BEGUN, "checkpoints/step-000")
        )
        needed = []
        if has_begun:
            needed += ["environment.json", "engine.json"]
        if has_steps:
            needed += ["lr.json"]
        if has_steps and self.config.device.address is not None:
            needed += ["latency.json"]
        if has_steps and self.config.model.start is not None:
            needed += [RECORD]

        for name in needed:
            if not (self.path / name).exists():
                raise self._missing(name)

        chain = self.chain() if has_steps else None
        if chain is not None and chain.first is not None and not self.first_file().is_file():
            raise self._missing(str(self.first_file().relative_to(self.path)))

    def verb(self) -> str:
        """What made the run, `train` or `prune`."""
        return str(self.environment()["verb"])

    def environment(self) -> dict[str, Any]:
        """What the run was made by and on: the verb, the versions of packages, the machine."""
        found = self.read("environment.json")
        if found is None:
            raise self._missing("environment.json")
        return dict(found)

    def how_to_go_on(self) -> str:
        """The command that goes on with the run."""
        return command(self.verb(), "--resume", self.path)

    def resumptions(self) -> list[dict[str, Any]]:
        """What changed when the run was gone on with: after which step, and each key with its old
        and new value.
        """
        return self.read(RESUMED) or []

    def computed_with(self) -> str:
        """What the weights depend on beside the config, in a sentence; empty before the run has
        begun.
        """
        began = self.engine()
        if began is None:
            return ""
        parts = []
        for name, one in (("threads", "thread"), ("processes", "process")):
            part = _counted(began[name], one)
            for entry in self.resumptions():
                if name in entry["changes"]:
                    part += (
                        f" ({_counted(entry['changes'][name][1], one)} after step "
                        f"{entry['after_step']})"
                    )
            parts.append(part)
        said = f"computed with {', '.join(parts)}"
        said += f", precision {began['precision']}"
        said += f", on {began['accelerator'] or began['processor']}"
        return (
            f"{said}: another number of threads or processes, precision or processor gives "
            "other weights"
        )

    def engine(self) -> dict[str, Any] | None:
        """What computes the run, and the images that it began with; None before it has begun."""
        return self.read("engine.json")

    def stopped(self) -> str | None:
        """Why the loop ended; None where it has not."""
        found = self.read("stop.json")
        return None if found is None else str(found["reason"])

    def looks_before(self) -> int:
        """How often the test split had been looked at before the run went on to its present
        result.
        """
        return len(list((self.path / EARLIER).glob("*/test.json")))

    def first(self) -> Step:
        """The first, unpruned model of the chain on this run's validation split: what the rule
        and every ratio refer to.
        """
        chain = self.chain()
        return self.steps()[0] if chain is None or chain.first is None else chain.first

    def load_first(self, device: str = "cpu") -> nn.Module:
        """The first, unpruned model of the chain, in evaluation mode."""
        if not self.first_file().is_file():
            return self.load(0, device)
        return self._restored(self.checked_first_file()).to(device).eval()

    def checked_first_file(self) -> Path:
        """`first_file`, which is what was written; RunError where it is not."""
        file, chain = self.first_file(), self.chain()
        try:
            if chain is not None and chain.weights is not None:
                checksums.check(file, {file.name: chain.weights})
        except checksums.Broken as error:
            raise self._damaged_step(file, str(error)) from None
        return file

    def references(self) -> list[Reference]:
        """What the result is compared with: the first model, and the one that the run starts from
        where that is another.
        """
        chain, start = self.chain(), self.steps()[0]
        if chain is None:
            return [Reference("the unpruned model", start, "baseline")]
        if chain.first is None:
            return [Reference(f"the unpruned model ({chain.links[0]})", start, "baseline")]
        return [
            Reference(f"the first model ({chain.links[0]})", chain.first, "baseline"),
            Reference(f"the start ({chain.links[-1]})", start, "start"),
        ]

    def _restored(self, file: Path) -> nn.Module:
        """The model that a file holds the weights of."""
        name = self.config.model.name
        classes = self.config.data.classes
        trust.check(name, self.path)
        model = restore_model(rebuild(name, classes, seed=self.config.data.seed), file)
        if not fits_classes(name, model, len(classes)):
            raise self._damaged(
                "engine.json",
                ValueError(f"it names {len(classes)} classes, and the model has another number"),
            )
        return model

    @traced("keep")
    @rank_zero_only
    def commit(self, iteration: Iteration) -> None:
        """Keep an iteration: its state first (if the step was accepted), then its line in the
        history.
        """
        before = self._history()
        files = self._keep(iteration) if iteration.step.accepted else {}
        steps = [step for step, _ in before]
        lines = [self._line(step, its) for step, its in (*before, (iteration.step, files))]
        write_text(self.path / "history.jsonl", "\n".join(lines) + "\n")
        if iteration.step.accepted and iteration.step.index:
            # Only the last good step is ever resumed from; the others keep their model alone.
            for name in ("momentum.safetensors", "scores.safetensors"):
                (self._folder(last_good(steps).index) / name).unlink(missing_ok=True)

    @rank_zero_only
    def share_model(self, source: Run) -> None:
        """Let the unpruned model be the same file on disk as the best one of `source`, where it
        is the same and the disk can.
        """
        mine, theirs = (
            folder / "model.safetensors"
            for folder in (self._folder(0), source._folder(source.best().index))
        )
        try:
            if filecmp.cmp(mine, theirs, shallow=False):
                with written(mine) as link:
                    os.link(theirs, link)
        except OSError:
            return  # another disk, or one without links: it stays a copy

    def finish(self, stop: Finished) -> None:
        """Note why the loop ended."""
        self.write("stop.json", {"reason": stop.reason, "keep": stop.keep})

    def summary(self) -> dict[str, Any]:
        """What `prunedge show --json` prints."""
        steps, config, best = self.steps(), self.config.flat(), self.best()
        return {
            **{
                key: config[key]
                for key in (
                    "model",
                    "criterion",
                    "metric",
                    "classes",
                    "size",
                    "seed",
                    "data",
                    "weights",
                )
            },
            "baseline": _figures(self.first()),
            "references": [
                {"name": one.name, "step": one.step.to_json(), "tested_as": one.tested}
                for one in self.references()
            ],
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
            **self.environment(),
        }

    def _test(self) -> dict[str, Any] | None:
        found = self.test()
        return (
            {key: found[key] for key in ("baseline", "start", "best") if key in found}
            if found
            else None
        )

    def _computing(self) -> dict[str, Any]:
        began = self.engine() or {}
        return {
            **{
                key: began.get(key)
                for key in ("threads", "processes", "precision", "processor", "accelerator")
            },
            "said": self.computed_with(),
        }

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:03d}"

    def _keep(self, iteration: Iteration) -> dict[str, str]:
        """Write the state after an iteration; gives the SHA-256 of each file."""
        final = self._folder(iteration.step.index)
        kept = iteration.state
        # A checkpoint that is there already was cut off before its line in the history: it was
        # never used.
        with written_folder(final, "checkpoint") as folder:
            save_model(kept.model, folder / "model.safetensors")
            (folder / "plan.json").write_text(kept.plan.to_json(), encoding="utf-8")
            if kept.scores is not None and kept.scores.provenance is not None:
                about = {
                    "criterion": kept.scores.criterion,
                    "examples": str(kept.scores.examples),
                    "provenance": kept.scores.provenance.to_json(),
                }
                save_tensors(
                    {k: v.contiguous() for k, v in kept.scores.values.items()},
                    folder / "scores.safetensors",
                    about,
                )
            if kept.momentum:
                save_tensors(flattened(kept.momentum), folder / "momentum.safetensors")
            for file in folder.iterdir():
                file.chmod(0o644)
            folder.chmod(0o755)
            return {file.name: checksums.file_digest(file) for file in sorted(folder.iterdir())}

    def _history(self) -> list[tuple[Step, dict[str, str]]]:
        """Each step, with the SHA-256 of each file of its checkpoint (none where it was taken
        back).
        """
        file = self.path / "history.jsonl"
        if not file.exists():
            # Between its checkpoint and its line in the history a step 0 can be alone; nothing that
            # comes later can.
            if any(
                (self.path / name).exists()
                for name in ("checkpoints/step-001", "test.json", "stop.json")
            ):
                raise RunError(
                    "the history is missing",
                    where=file,
                    remedy="bring it back from a copy, or begin the run anew",
                )
            return []
        found: list[tuple[Step, dict[str, str]]] = []
        lines = read_bytes(file, RunError).removesuffix(b"\n").split(b"\n")
        for number, line in enumerate(lines):
            try:
                sealed = dict(json.loads(line))
                refuse_newer(sealed.get(KEY), "history", file)
                record = checksums.opened(sealed, self.about(file.name))
                refuse_other(record.pop(KEY, None), "history", file)
                files = record.pop("files", {})
                require(dict[str, str], files)
                require(Step, record)
                step = Step(**record)
                if step.index != number:
                    raise checksums.Broken(f"it is that of step {step.index}")
                require_step(step, self.config, found[0][0] if found else step)
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                remedy = "bring it back from a copy, or begin the run anew"
                raise RunError(
                    f"the history is damaged in line {number + 1}: {error}",
                    where=file,
                    remedy=remedy,
                ) from None
            found.append((step, files))
        return found

    def _line(self, step: Step, files: Mapping[str, str]) -> str:
        record = {KEY: FORMAT, **step.to_json(), **({"files": files} if files else {})}
        return json.dumps(checksums.sealed(record, self.about("history.jsonl")))

    def _known(self, but: int | None = None) -> str:
        """The steps whose models are kept, in words."""
        return (
            ", ".join(
                str(step.index) for step in self.steps() if step.accepted and step.index != but
            )
            or "none"
        )

    def _checked(self, step: int, name: str) -> Path | None:
        """A file of a step's checkpoint, which is what was written; None where there is none.
        RunError where it is another.
        """
        file, history = self._folder(step) / name, self._history()
        files = history[step][1] if 0 <= step < len(history) else {}
        if not files:
            raise RunError(
                f"no model is kept of step {step}",
                where=self.path,
                remedy=f"steps with a model: {self._known()}",
            )
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
                "a file of the checkpoint is missing",
                where=self._folder(step) / name,
                remedy=f"bring it back from a copy, or take another step's model: {others}",
            )
        return file

    def _missing(self, name: str) -> RunError:
        return RunError(
            "a file of the run is missing",
            where=self.path / name,
            remedy="bring it back from a copy, or begin the run anew",
        )

    def _damaged_step(self, file: Path, why: str) -> RunError:
        step = next(
            (step.index for step in self.steps() if self._folder(step.index) == file.parent), None
        )
        remedy = f"bring it back from a copy, or take another step's model: {self._known(but=step)}"
        return RunError(f"damaged, or of another model: {why}", where=file, remedy=remedy)

    def _damaged(self, name: str, error: Exception) -> RunError:
        why = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        again = f"delete it: {REPEATED[name]}" if name in REPEATED else "begin the run anew"
        return RunError(
            f"damaged, or of another run: {why}",
            where=self.path / name,
            remedy=f"bring it back from a copy, or {again}",
        )

    def _scores(self, step: int) -> Scores | None:
        """The scores that were kept; None where there are none."""
        file = self._checked(step, "scores.safetensors")
        if file is None:
            return None
        values = _tensors(file)
        try:
            with safe_open(file, "pt") as opened:
                about = texts_of(opened.metadata())
            provenance = Provenance.from_json(about["provenance"])
            return Scores(values, about["criterion"], int(about["examples"]), provenance)
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged_step(
                file, f"it does not say what the scores are of ({error})"
            ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends; what killed processes left in it is removed.
    InUse when another process holds it.
    """
    with held(path, "run"):
        clear_below(path)
        yield


@rank_zero_only
def create(path: Path | str, config: RunConfig, verb: str = "prune") -> Run:
    """Start a run folder of `train` or `prune` (`verb`); RunError when the folder already holds
    something.
    """
    folder = Path(path)
    refuse_url(folder)
    refuse_full(folder)
    run = Run(folder, config, secrets.token_hex(8))
    try:
        make_folder(folder)
        with held(folder, "run"):
            refuse_full(folder)  # another process may have been faster
            # The config comes last: a folder without one is no run yet, and can be begun again.
            run.write("environment.json", {"verb": verb, **_environment()})
            write_config(run, config)
    except OSError as error:
        raise unwritable(error, folder) from None
    return run


def write_config(run: Run, config: RunConfig) -> None:
    """Write what a run is asked to do, with the run's sign and a checksum in the last line."""
    write_text(run.path / CONFIG, signed(config.to_toml(), run.sign))


def open_run(path: Path | str) -> Run:
    """The run in a folder; RunError when there is none, or one of another format."""
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        why, remedy = instead(folder, CONFIG, "name the folder that --out made")
        raise RunError(f"not a run folder ({why})", where=folder, remedy=remedy)
    sign = sign_of(folder)
    run = Run(folder, RunConfig.from_toml(folder / CONFIG), sign)
    # What only the images could tell: their classes and fingerprint, and the range of deep greys.
    engine = run.engine()
    if engine is not None:
        run = run.of_images(engine)
    run.refuse_incomplete()
    return run


def refuse_full(folder: Path) -> None:
    """RunError where a folder holds something, but for what a killed process that began a run there
    has left.
    """
    if not folder.exists():
        return
    begun = {"environment.json"} if not (folder / CONFIG).exists() else set()
    if folder.is_dir() and all(is_ours(one.name) or one.name in begun for one in folder.iterdir()):
        return
    remedy = "choose another --out"
    if (folder / CONFIG).exists():
        remedy = f"go on with {open_run(folder).how_to_go_on()}, or {remedy}"
    raise RunError("the folder is not empty", where=folder, remedy=remedy)


def _environment() -> dict[str, Any]:
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = (
        f"{processor()}, {torch.get_num_threads()} threads, {platform.system()} "
        f"{platform.machine()}"
    )
    return {"versions": versions, "device": machine}


def _counted(number: int, one: str) -> str:
    return (
        f"{number} {one}"
        if number == 1
        else f"{number} {'processes' if one == 'process' else one + 's'}"
    )


def _figures(step: Step) -> dict[str, Any]:
    return {
        **{name: value for name, value in step.metrics.items() if name != "loss"},
        "macs": step.macs,
        "params": step.params,
        "size_mb": step.size_mb,
    }


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    require_regular(file, RunError)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        pass_on_reading(error, file)
        raise RunError(
            f"can't read the weights: {error}",
            where=file,
            remedy="the file is damaged; repeat the run",
        ) from None
