"""The model of a user's own training: what a run notes of it, and whether it is still the same."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from prunedge.edge.bench.hardware import processor
from prunedge.errors import ModelError, RunError
from prunedge.importance import weights_digest
from prunedge.pruning.prune_with import OwnTraining
from prunedge.runs.run import Run

log = logging.getLogger(__name__)

NO_PRECISION = "given"  # what fit computes in is its own affair


def engine_record(own: OwnTraining) -> dict[str, Any]:
    """What computes the run, and what its model and example are like (`EngineRecord`)."""
    return {
        "precision": NO_PRECISION,
        "threads": torch.get_num_threads(),
        "processes": 1,
        "processor": processor(),
        "accelerator": accelerator_of(own.model),
        "fingerprint": _fingerprint(own),
        "classes": [],
    }


def accelerator_of(model: nn.Module) -> str | None:
    """The GPU that the model lies on; None on the processor."""
    devices = {parameter.device.type for parameter in model.parameters()}
    return torch.cuda.get_device_name() if "cuda" in devices else None


def _fingerprint(own: OwnTraining) -> str:
    """What the model and its example are like: names, shapes and kinds, without values."""
    leaves, form = tree_flatten(own.trainer.example())
    tensors = own.model.state_dict().items()
    about = {
        "model": [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors],
        "example": [_kind_of(leaf) for leaf in leaves],
        "form": str(form),
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def _kind_of(leaf: Any) -> str:
    """What an argument of the model is like."""
    if isinstance(leaf, torch.Tensor):
        return f"{leaf.dtype} {list(leaf.shape)}"
    is_plain = isinstance(leaf, bool | int | float | str | None)
    return repr(leaf) if is_plain else type(leaf).__name__


def refuse_another(run: Run, own: OwnTraining) -> None:
    """RunError where the model or its example is of another kind than those that the run began
    with; a line where it has other weights, since the run goes on with its own.
    """
    refuse_other_state(own.model)
    began = run.engine()
    if began is not None and began["fingerprint"] != _fingerprint(own):
        raise RunError(
            "the model or its example is another than the one that this run began with",
            where=run.path,
            remedy="give the unpruned model and an example as before, or name another folder",
        )
    if not run.steps():
        return
    kept = replace(run, template=own.model).load(0)
    if weights_digest(kept) != weights_digest(own.model):
        log.warning(
            "the model has other weights than those that %s began with: the run goes on with its "
            "own",
            run.path,
        )


def refuse_other_state(model: nn.Module) -> None:
    """ModelError where a model keeps something that a checkpoint can't hold."""
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"its state_dict holds {type(value).__name__}, which no checkpoint can",
                where=name,
                remedy="keep it out of the state_dict, or leave out= away",
            )
