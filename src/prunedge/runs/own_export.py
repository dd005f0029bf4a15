"""The model of a run of the user's own training as ONNX: proven on what its functions show it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from prunedge.edge.targets import ONNX
from prunedge.errors import ExportError
from prunedge.export.any_onnx import OnnxFile, compare_with_torch, write_any
from prunedge.export.bundle import PLAN, WEIGHTS, refuse_full
from prunedge.graph import copied
from prunedge.graph.inputs import brought_to
from prunedge.models.cost import evaluating
from prunedge.pruning.from_config import watched_metric
from prunedge.pruning.prune_with import OwnTraining
from prunedge.runs.own_trainer import training_of
from prunedge.runs.run import Run
from prunedge.surgery import save_model
from prunedge.utils.advice import option
from prunedge.utils.files import behind_links, written_folder
from prunedge.utils.packages import versions_of

RECORD = "export.json"
EXAMPLE = "the example"
SHOWN = 4  # calls of the model that its file is compared on
PACKAGES = ("torch", "onnx", "onnxruntime")


def export_own(
    run: Run,
    out: Path,
    step: int | None = None,
    formats: Sequence[str] = (ONNX.name,),
    name: str | None = None,
) -> dict[str, Any]:
    """Write the model after a step (its place in the history; None: the best) into a new folder:
    `model.onnx`, torch's weights, the plan, and `export.json`, which is given back.

    The file takes what the example is like, with any number of examples where the model lets it. It
    is compared with torch on what `evaluate` shows the model; where that calls it otherwise, on
    what `loss` does with the batches, or on the example alone. ExportError where it differs, where
    `out` holds something, and for forms that need a task and images. `name` is the training that
    the user names now.
    """
    others = [each for each in formats if each != ONNX.name]
    if others:
        raise ExportError(
            f"{', '.join(others)}: of a training of your own there is {ONNX.name} alone",
            where=option("format"),
            remedy="leave it out, and convert model.onnx by that runtime's own tool",
        )
    refuse_full(out)
    own = training_of(run, name)
    run = replace(run, template=own.model)
    index = run.best().index if step is None else step
    model = run.load(index)
    example = brought_to(own.trainer.example(), model)
    with written_folder(behind_links(out), "export") as folder:
        refuse_full(out)  # another process may have been faster
        write_any(model, example, folder / ONNX.file)
        file = OnnxFile(folder / ONNX.file)
        calls, source = _calls(own, model, file, example)
        compared = compare_with_torch(file, model, calls)
        save_model(model, folder / WEIGHTS)
        (folder / PLAN).write_text(run.plan(index).to_json(), encoding="utf-8")
        record = {
            **_about(run, index),
            "inputs": [asdict(each) for each in file.inputs],
            "outputs": list(file.outputs),
            "compared": {"on": source, **asdict(compared)},
            "versions": versions_of(PACKAGES),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        folder.chmod(0o755)
        for each in folder.iterdir():
            each.chmod(0o644)
    return record


def _about(run: Run, index: int) -> dict[str, Any]:
    """Which model it is."""
    step = run.steps()[index]
    metric = watched_metric(run.config)
    return {
        "model": run.config.model.name,
        "run_step": step.number,
        "is_polish": step.is_polish,
        "macs": step.macs,
        "params": step.params,
        "validation": {metric.name: step.metric_after},
    }


def _calls(
    own: OwnTraining, model: nn.Module, file: OnnxFile, example: Any
) -> tuple[list[Any], str]:
    """What the model is called with by the user's own functions, as far as the file takes it, and
    which of them showed that.
    """
    functions = own.trainer.functions
    for source, show in (("evaluate", own.trainer.figures), ("batches", _loss_of(own))):
        if getattr(functions, source) is None or (source == "batches" and functions.loss is None):
            continue
        seen = _seen(model, show)
        fitting = [given for given in seen if file.takes(given, example)]
        if fitting:
            return fitting, source
    return [example], EXAMPLE


def _loss_of(own: OwnTraining) -> Callable[[nn.Module], object]:
    """The loss of the first batches."""

    def show(model: nn.Module) -> None:
        functions = own.trainer.functions
        assert functions.loss is not None
        with evaluating(model), torch.no_grad():
            for number, batch in enumerate(functions.all_batches()):
                if number == SHOWN:
                    return
                functions.loss(model, batch)

    return show


def _seen(model: nn.Module, show: Callable[[nn.Module], object]) -> list[Any]:
    """The arguments of the first calls of a model, in evaluation mode."""
    watched = copied(model).eval()
    seen: list[Any] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(seen) < SHOWN and not module.training:
            given = kwargs if kwargs and not args else args
            given = given[0] if isinstance(given, tuple) and len(given) == 1 else given
            # What mixes both ways is no form that an example has.
            if not (args and kwargs):
                seen.append(tree_map(_kept, given))

    hook = watched.register_forward_pre_hook(note, with_kwargs=True)
    try:
        show(watched)
    finally:
        hook.remove()
    return seen


def _kept(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, torch.Tensor) else leaf
