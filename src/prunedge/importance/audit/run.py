"""Run an audit: measure the oracle and every criterion, compare, and write the tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.config import plain_size
from prunedge.data import Dataset, Split
from prunedge.errors import PrunedgeError, RunError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import (
    CRITERIA,
    Scores,
    agreement,
    criterion_named,
    oracle,
    rank,
    refuse_unjudged,
    sample,
)
from prunedge.importance.audit.records import PARTIAL, read_partial, write_partial
from prunedge.importance.audit.result import Audit, AuditRequest
from prunedge.importance.audit.tables import channels_table, correlations_table
from prunedge.importance.criteria import Reads
from prunedge.importance.oracle import Progress
from prunedge.importance.rank import gather_by
from prunedge.importance.replay import Replay
from prunedge.tasks import Task, make_task, refuse_ending
from prunedge.utils import checksums
from prunedge.utils.advice import command
from prunedge.utils.files import held, is_ours, make_folder, refuse_url, write_text
from prunedge.utils.formats import FORMAT, KEY
from prunedge.utils.machine import unwritable

_MEMORY = 1.5e9  # bytes of activations that a batch of the oracle may hold
_LARGEST = 64
_FILES = ("audit.json", "audit.csv", "channels.csv", PARTIAL, f"{PARTIAL}.new")


def audit(
    model: nn.Module,
    data: Dataset,
    out: Path,
    asked: AuditRequest,
    *,
    model_name: str,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Audit:
    """Measure the oracle on validation images and every criterion on training images, compare,
    and write audit.json and two CSV files.

    What is measured is kept in `out` as it goes: the same call again goes on from there. Raises
    RunError when `out` holds another audit.
    """
    asked = replace(asked, criteria=asked.criteria or tuple(sorted(CRITERIA)))
    for name in asked.criteria:
        criterion_named(name)
    model = model.to(device).eval()
    refuse_ending(model, data.example(4), make_task(data.spec), model_name)
    graph = trace(model, data.example().to(device))
    if not graph.groups:
        raise PrunedgeError(
            "this model has no channels that could be pruned",
            where=model_name,
            remedy=command("groups", "--model", model_name),
        )
    fingerprint = _fingerprint(model, data, asked)
    folder = _folder(out)
    with held(folder, "audit"):
        return _measure(
            model,
            graph,
            data,
            folder,
            asked,
            fingerprint,
            model_name=model_name,
            progress=progress,
            device=device,
        )


def _measure(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    folder: Path,
    asked: AuditRequest,
    fingerprint: str,
    *,
    model_name: str,
    progress: Progress | None,
    device: str,
) -> Audit:
    """Measure, compare and write, in a folder that is held."""
    val = data.val.take(asked.images, asked.seed)
    train = data.train.take(asked.images, asked.seed)
    truth = oracle(
        model,
        graph,
        _batches(model, val, device),
        sample(graph, asked.channels, asked.seed),
        task=make_task(data.spec),
        partial=read_partial(folder, fingerprint),
        keep=lambda partial: write_partial(folder, fingerprint, partial),
        progress=progress,
    )

    task = make_task(data.spec)
    scores, unjudged = _scores(model, graph, _OnDevice(train, device), asked, task)
    absolute = [agreement(truth, score, absolute=True, seed=asked.seed) for score in scores]
    signed = [agreement(truth, score, absolute=False, seed=asked.seed) for score in scores]
    about = {
        "images_criteria": len(train),
        "device": device,
        "threads": torch.get_num_threads(),
        "size": plain_size(data.size),
    }
    result = Audit(model_name, asked, truth, tuple(absolute), tuple(signed), unjudged, about)

    write_text(folder / "channels.csv", channels_table(truth, scores))
    write_text(folder / "audit.csv", correlations_table(result))
    record = checksums.sealed({KEY: FORMAT, **result.to_json()}, "audit.json")
    write_text(folder / "audit.json", json.dumps(record, indent=1))
    return result


class _OnDevice:
    """A split's batches on a device."""

    def __init__(self, split: Split, device: str) -> None:
        self._split = split
        self._device = device

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, targets in self._split.batches(32):
            yield images.to(self._device), targets.to(self._device)


def _batches(
    model: nn.Module, split: Split, device: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as large as the activations of all layers allow."""
    images, _ = next(iter(split.batches(1)))
    with torch.no_grad(), Replay(model).attached() as replay:
        replay.record(lambda: model(images.to(device)))
        size = max(1, min(_LARGEST, int(_MEMORY / max(1, replay.bytes))))
    return [(images.to(device), targets.to(device)) for images, targets in split.batches(size)]


def _scores(
    model: nn.Module, graph: ChannelGraph, batches: _OnDevice, asked: AuditRequest, task: Task
) -> tuple[list[Scores], dict[str, str]]:
    """The scores of each criterion, and why a criterion can't judge this model.

    One pass serves all criteria that read activations, another all that read gradients.
    """
    scores: dict[str, Scores] = {}
    unjudged: dict[str, str] = {}
    collectors: dict[Reads, dict[str, Any]] = {"activations": {}, "gradients": {}, "features": {}}
    for name in asked.criteria:
        criterion = criterion_named(name)
        try:
            refuse_unjudged(model, graph, name)
            if criterion.collect is None:
                scores[name] = rank(model, graph, [], name, seed=asked.seed)
            else:
                collectors[criterion.reads][name] = criterion.collect(graph)
        except PrunedgeError as error:
            unjudged[name] = str(error)

    for reads, by_name in collectors.items():
        if by_name:
            gather_by(reads, model, batches, list(by_name.values()), task=task)
        for name, collector in by_name.items():
            try:
                scores[name] = collector.result()
            except PrunedgeError as error:
                unjudged[name] = str(error)
    return [scores[name] for name in asked.criteria if name in scores], unjudged


def _fingerprint(model: nn.Module, data: Dataset, asked: AuditRequest) -> str:
    """Stands for the model's weights, the images and the settings."""
    about = f"{data.fingerprint} {asked.channels} {asked.images} {asked.seed}"
    digest = hashlib.sha256(about.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _folder(out: Path) -> Path:
    """The audit's folder, made where it is not there; RunError where it holds other files."""
    refuse_url(out)
    try:
        make_folder(out)
        names = [path.name for path in out.iterdir()]
    except OSError as error:
        raise unwritable(error, out) from None

    others = [name for name in names if name not in _FILES and not is_ours(name)]
    if others:
        raise RunError(
            f"the folder holds other things ({others[0]})",
            where=out,
            remedy="choose another --out",
        )
    return out
