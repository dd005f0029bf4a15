"""checkpoints/step-NNN: what is kept of an accepted step: weights, plan, scores, momentum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from prunedge.errors import RunError
from prunedge.graph.plan import Plan
from prunedge.importance import Provenance, Scores
from prunedge.pruning.steps import Iteration, last_accepted, removals
from prunedge.runs.history import read_history
from prunedge.surgery import save_model
from prunedge.train import OptimState, flattened, unflattened
from prunedge.utils import checksums
from prunedge.utils.files import read_text, require_regular, written_folder
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import require
from prunedge.utils.tensor_files import save_tensors, texts_of

if TYPE_CHECKING:
    from prunedge.runs.run import Run

MODEL = "model.safetensors"
PLAN = "plan.json"
SCORES = "scores.safetensors"
MOMENTUM = "momentum.safetensors"


def folder_of(run: Run, step: int) -> Path:
    """Where a step's files lie."""
    return run.path / "checkpoints" / f"step-{step:03d}"


def write_checkpoint(run: Run, iteration: Iteration) -> dict[str, str]:
    """Write the state after an iteration; gives the SHA-256 of each file by name.

    A checkpoint that is there already was cut off before its line in the history: it was never
    used.
    """
    state = iteration.state
    with written_folder(folder_of(run, iteration.step.index), "checkpoint") as folder:
        save_model(state.model, folder / MODEL)
        (folder / PLAN).write_text(state.plan.to_json(), encoding="utf-8")
        if state.scores is not None and state.scores.provenance is not None:
            _write_scores(state.scores, state.scores.provenance, folder / SCORES)
        if state.optimizer_state:
            save_tensors(flattened(state.optimizer_state), folder / MOMENTUM)

        digests = {}
        for file in sorted(folder.iterdir()):
            file.chmod(0o644)
            digests[file.name] = checksums.file_digest(file)
        folder.chmod(0o755)
        return digests


def _write_scores(scores: Scores, provenance: Provenance, file: Path) -> None:
    tensors = {name: values.contiguous() for name, values in scores.values.items()}
    about = {
        "criterion": scores.criterion,
        "examples": str(scores.examples),
        "provenance": provenance.to_json(),
    }
    save_tensors(tensors, file, about)


def forget_state(run: Run, step: int) -> None:
    """Delete what only the last good step needs, which alone is gone on from."""
    for name in (MOMENTUM, SCORES):
        (folder_of(run, step) / name).unlink(missing_ok=True)


def read_plan(run: Run, step: int) -> Plan:
    """What led from the first, unpruned model to that of an accepted step."""
    file = needed(run, step, PLAN)
    try:
        text = read_text(file, RunError)
        require(dict[str, list[int]], json.loads(text))
        plan = Plan.from_json(text)
        _require_fitting(run, plan)
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(run, file, str(error)) from None
    return plan


def _require_fitting(run: Run, plan: Plan) -> None:
    """ValueError where a plan keeps a channel that the layer of that name never had
    (`Run.require_plan` looks closer).
    """
    widths = run.first().original
    for name, kept in plan.keep.items():
        if name in widths and kept[-1] >= widths[name]:
            raise ValueError(f"it keeps channel {kept[-1]} of {name}, which has {widths[name]}")


def read_scores(run: Run, step: int) -> Scores | None:
    """The scores that were kept; None where there are none."""
    file = checked(run, step, SCORES)
    if file is None:
        return None
    values = read_tensors(file)
    try:
        with safe_open(file, "pt") as opened:
            about = texts_of(opened.metadata())
        provenance = Provenance.from_json(about["provenance"])
        return Scores(values, about["criterion"], int(about["examples"]), provenance)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(run, file, f"it does not say what the scores are of ({error})") from None


def read_momentum(run: Run, step: int) -> OptimState | None:
    """The momentum that was kept, by parameter name; None where there is none."""
    file = checked(run, step, MOMENTUM)
    return None if file is None else unflattened(read_tensors(file))


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file; RunError where it can't be read."""
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


def checked(run: Run, step: int, name: str) -> Path | None:
    """A file of a step's checkpoint, which is what was written; None where there is none.
    RunError where it is another.
    """
    file = folder_of(run, step) / name
    history = read_history(run)
    files = history[step].files if 0 <= step < len(history) else {}
    if not files:
        raise without_model(run, run.name_of_step(step))
    if not file.exists():
        # Scores and momentum are kept of the last accepted step alone: only that is gone on from.
        last = last_accepted([line.step for line in history]).index
        if name in files and step == last:
            raise damaged(run, file, "it is missing")
        return None
    try:
        if name not in files:
            raise checksums.Broken("this run has not written it")
        checksums.check(file, files)
    except checksums.Broken as error:
        raise damaged(run, file, str(error)) from None
    return file


def without_model(run: Run, name: str) -> RunError:
    """The error for a step of which no model is kept; `name` is what users call it."""
    remedy = f"steps with a model: {_steps_with_a_model(run)}"
    return RunError(f"no model is kept of {name}", where=run.path, remedy=remedy)


def needed(run: Run, step: int, name: str) -> Path:
    """The same; RunError where there is none."""
    file = checked(run, step, name)
    if file is None:
        others = _steps_with_a_model(run, but=step)
        raise RunError(
            "a file of the checkpoint is missing",
            where=folder_of(run, step) / name,
            remedy=f"bring it back from a copy, or take another step's model: {others}",
        )
    return file


def damaged(run: Run, file: Path, why: str) -> RunError:
    """The error for a file of a checkpoint that is not what was written."""
    its_step = None
    for step in run.steps():
        if folder_of(run, step.index) == file.parent:
            its_step = step.index
            break
    others = _steps_with_a_model(run, but=its_step)
    remedy = f"bring it back from a copy, or take another step's model: {others}"
    return RunError(f"damaged, or of another model: {why}", where=file, remedy=remedy)


def _steps_with_a_model(run: Run, but: int | None = None) -> str:
    """The steps whose models are kept, by the numbers that users see; `but` is an index."""
    kept = [step for step in removals(run.steps()) if step.accepted and step.index != but]
    return ", ".join(str(step.number) for step in kept) or "none"
