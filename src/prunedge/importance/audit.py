"""The audit: every criterion beside the oracle on one model and its images, in a folder of its
own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import field_validator
from safetensors import SafetensorError, safe_open
from torch import nn

from prunedge.config import plain_size
from prunedge.data import Dataset, Split
from prunedge.errors import PrunedgeError, RunError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import (
    CRITERIA,
    Agreement,
    Partial,
    Scores,
    Truth,
    agreement,
    find,
    gather,
    oracle,
    rank,
    recommendation,
    refuse_unjudged,
    sample,
)
from prunedge.importance.fingerprint import tensors_digest
from prunedge.importance.oracle import Progress
from prunedge.importance.replay import Replay
from prunedge.models.final_activation import refuse_probabilities
from prunedge.utils import checksums
from prunedge.utils.advice import command
from prunedge.utils.files import (
    held,
    is_ours,
    make_folder,
    read_bytes,
    refuse_url,
    require_regular,
    write_text,
    written,
)
from prunedge.utils.formats import FORMAT, KEY, refuse_newer, refuse_other
from prunedge.utils.machine import pass_on_reading, unwritable
from prunedge.utils.records import Record, require
from prunedge.utils.tensor_files import save_tensors, texts_of

_MEMORY = 1.5e9  # bytes of activations that a batch of the oracle may hold
_LARGEST = 64
AGAIN = "make it again in a new folder"


@dataclass(frozen=True)
class Asked:
    """What an audit compares: criteria by name, channels of each group (all when None), images of
    each split, the seed of both draws.
    """

    criteria: tuple[str, ...] = ()
    channels: int | None = 64
    images: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Audit:
    """What an audit found: the oracle, and each criterion's agreement with its absolute and its
    signed changes.

    `unjudged` names the criteria that can't judge this model, with the reason.
    """

    model: str
    asked: Asked
    truth: Truth
    absolute: tuple[Agreement, ...]
    signed: tuple[Agreement, ...]
    unjudged: dict[str, str]
    about: dict[str, Any]

    @property
    def recommendation(self) -> str:
        """Which criterion to use, in words."""
        return recommendation(list(self.absolute), self.model)

    def to_json(self) -> dict[str, Any]:
        """A plain dict of all but the channels' own numbers."""
        truth = self.truth
        return {
            "model": self.model,
            "recommendation": self.recommendation,
            "criteria": list(self.asked.criteria),
            "seed": self.asked.seed,
            "channels": truth.channels,
            "images": truth.examples,
            "loss": truth.loss,
            "seconds": truth.seconds,
            "seconds_whole": truth.seconds_whole,
            "fraction_of_evaluation": truth.fraction,
            "absolute": [one.to_json() for one in self.absolute],
            "signed": [one.to_json() for one in self.signed],
            "unjudged": self.unjudged,
            **self.about,
        }


def audit(
    model: nn.Module,
    data: Dataset,
    out: Path,
    asked: Asked,
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
    asked = Asked(
        asked.criteria or tuple(sorted(CRITERIA)), asked.channels, asked.images, asked.seed
    )
    for name in asked.criteria:
        find(name)
    model = model.to(device).eval()
    refuse_probabilities(model, data.example(4), model_name)
    graph = trace(model, data.example().to(device))
    if not graph.groups:
        raise PrunedgeError(
            "this model has no channels that could be pruned",
            where=model_name,
            remedy=command("groups", "--model", model_name),
        )
    chosen = sample(graph, asked.channels, asked.seed)
    print_ = _fingerprint(model, data, asked)
    folder = _folder(out)
    with held(folder, "audit"):
        return _measured(
            model,
            graph,
            data,
            folder,
            asked,
            chosen,
            print_,
            model_name=model_name,
            progress=progress,
            device=device,
        )


class CorrelationRecord(Record):
    """Spearman's rho with its interval; None where it can't be told."""

    rho: float | None
    low: float | None
    high: float | None


class AgreementRecord(Record):
    """One criterion against the oracle."""

    criterion: str
    per_layer: CorrelationRecord
    overall: dict[str, CorrelationRecord]
    layers: dict[str, float | None]

    @field_validator("overall")
    @classmethod
    def _has_those_shown(cls, value: dict[str, CorrelationRecord]) -> dict[str, CorrelationRecord]:
        if not {"none", "l2"} <= value.keys():
            raise ValueError(
                "there is no correlation of raw scores, or of those divided by their norm"
            )
        return value


class AuditRecord(Record):
    """audit.json, as far as anything reads it."""

    recommendation: str
    channels: int
    images: int
    absolute: list[AgreementRecord]
    signed: list[AgreementRecord]


class Numbers(Record):
    """The numbers of partial.safetensors (`oracle.Partial`)."""

    batch: int
    next: int
    loss: float
    examples: int
    seconds: float
    seconds_whole: float


def kept_audit(folder: Path) -> dict[str, Any] | None:
    """What an audit has written into its folder, as plain JSON; None where there is none.

    RunError when it is damaged, or of another format.
    """
    file = folder / "audit.json"
    if not file.exists():
        return None
    try:
        record = json.loads(read_bytes(file, RunError))
        version = dict(record).get(KEY)
        refuse_newer(version, "audit", folder)
        if version is None and checksums.KEY not in record:
            refuse_other(None, "audit", folder, AGAIN)
        found = checksums.opened(record, file.name)
        require(AuditRecord, found)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"damaged: {error}",
            where=file,
            remedy="delete it; the same `prunedge audit` writes it again",
        ) from None
    refuse_other(version, "audit", folder, AGAIN)
    return {key: value for key, value in found.items() if key != KEY}


def _measured(
    model: nn.Module,
    graph: ChannelGraph,
    data: Dataset,
    folder: Path,
    asked: Asked,
    chosen: dict[str, Any],
    print_: str,
    *,
    model_name: str,
    progress: Progress | None,
    device: str,
) -> Audit:
    val, train = (
        data.val.take(asked.images, asked.seed),
        data.train.take(asked.images, asked.seed),
    )
    batches = _batches(model, val, device)
    truth = oracle(
        model,
        graph,
        batches,
        chosen,
        partial=_read(folder, print_),
        keep=lambda partial: _write(folder, print_, partial),
        progress=progress,
    )
    scores, unjudged = _scores(model, graph, _Moved(train, device), asked)
    absolute, signed = (
        tuple(agreement(truth, one, absolute=way, seed=asked.seed) for one in scores)
        for way in (True, False)
    )
    found = Audit(
        model_name,
        asked,
        truth,
        absolute,
        signed,
        unjudged,
        {
            "images_criteria": len(train),
            "device": device,
            "threads": torch.get_num_threads(),
            "size": plain_size(data.size),
        },
    )
    write_text(folder / "channels.csv", _channels(truth, scores))
    write_text(folder / "audit.csv", _rows(found))
    write_text(
        folder / "audit.json",
        json.dumps(checksums.sealed({KEY: FORMAT, **found.to_json()}, "audit.json"), indent=1),
    )
    return found


class _Moved:
    """A split's batches on a device."""

    def __init__(self, split: Split, device: str) -> None:
        self._split, self._device = split, device

    def __iter__(self) -> Any:
        return (
            (images.to(self._device), labels.to(self._device))
            for images, labels in self._split.batches(32)
        )


def _batches(
    model: nn.Module, split: Split, device: str
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as large as the activations of all layers allow."""
    images, _ = next(iter(split.batches(1)))
    with torch.no_grad(), Replay(model).attached() as replay:
        replay.record(lambda: model(images.to(device)))
        size = max(1, min(_LARGEST, int(_MEMORY / max(1, replay.bytes))))
    return [(images.to(device), labels.to(device)) for images, labels in split.batches(size)]


def _scores(
    model: nn.Module, graph: ChannelGraph, batches: _Moved, asked: Asked
) -> tuple[list[Scores], dict[str, str]]:
    """The scores of each criterion, in one pass for all that read activations and one for all that
    read gradients.
    """
    found: dict[str, Scores] = {}
    unjudged: dict[str, str] = {}
    collectors: dict[str, dict[str, Any]] = {"activations": {}, "gradients": {}}
    for name in asked.criteria:
        criterion = find(name)
        try:
            refuse_unjudged(model, graph, name)
            if criterion.collect is None:
                found[name] = rank(model, graph, [], name, seed=asked.seed)
            else:
                collectors[criterion.reads][name] = criterion.collect(graph)
        except PrunedgeError as error:
            unjudged[name] = str(error)
    for several in collectors.values():
        if several:
            gather(model, batches, list(several.values()))
        for name, collector in several.items():
            try:
                found[name] = collector.result()
            except PrunedgeError as error:
                unjudged[name] = str(error)
    return [found[name] for name in asked.criteria if name in found], unjudged


def _fingerprint(model: nn.Module, data: Dataset, asked: Asked) -> str:
    digest = hashlib.sha256(
        f"{data.fingerprint} {asked.channels} {asked.images} {asked.seed}".encode()
    )
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _folder(out: Path) -> Path:
    refuse_url(out)
    try:
        make_folder(out)
        strangers = [
            path.name
            for path in out.iterdir()
            if path.name not in ("partial.safetensors", *_RESULTS) and not is_ours(path.name)
        ]
    except OSError as error:
        raise unwritable(error, out) from None
    if strangers:
        raise RunError(
            f"the folder holds other things ({strangers[0]})",
            where=out,
            remedy="choose another --out",
        )
    return out


_RESULTS = ("audit.json", "audit.csv", "channels.csv", "partial.safetensors.new")


def _write(folder: Path, fingerprint: str, partial: Partial) -> None:
    """Keep what is known, whole or not at all."""
    numbers = json.dumps({key: value for key, value in vars(partial).items() if key != "sums"})
    digest = tensors_digest(partial.sums, f"{fingerprint} {numbers}")
    about = {KEY: str(FORMAT), "fingerprint": fingerprint, "numbers": numbers, "sha256": digest}
    with written(folder / "partial.safetensors") as temporary:
        save_tensors(partial.sums, temporary, about)


def _read(folder: Path, fingerprint: str) -> Partial | None:
    file = folder / "partial.safetensors"
    if not file.exists():
        return None
    require_regular(file, RunError)
    try:
        with safe_open(file, "pt") as opened:
            about = texts_of(opened.metadata())
            version = json.loads(about.get(KEY, "null"))
            refuse_newer(version, "audit", folder)
            sums = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
        numbers = json.loads(about["numbers"])
        if version is None and not about.get("sha256"):
            refuse_other(None, "audit", folder, AGAIN)
        if about["sha256"] != tensors_digest(sums, f"{about['fingerprint']} {about['numbers']}"):
            raise ValueError("it differs from its checksum")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        pass_on_reading(error, file)
        raise RunError(
            f"can't read what is measured so far: {error}",
            where=file,
            remedy="delete this file to begin anew",
        ) from None
    refuse_other(version, "audit", folder, AGAIN)
    if about["fingerprint"] != fingerprint:
        remedy = "choose another --out, or delete the folder"
        raise RunError(
            "this is the audit of another model, other images or other settings",
            where=folder,
            remedy=remedy,
        )
    try:
        require(Numbers, numbers)
        return Partial(sums=sums, **numbers)
    except (ValueError, TypeError) as error:
        raise RunError(
            f"can't read what is measured so far: {error}",
            where=file,
            remedy="delete this file to begin anew",
        ) from None


def _channels(truth: Truth, scores: Sequence[Scores]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["group", "channel", "change", *(one.criterion for one in scores)])
    for name, change in truth.changes.items():
        for channel in (~torch.isnan(change)).nonzero().flatten().tolist():
            values = [
                float(one.values[name][channel]) if name in one.values else "" for one in scores
            ]
            table.writerow([name, channel, float(change[channel]), *values])
    return text.getvalue()


def _rows(found: Audit) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["criterion", "oracle", "scope", "normalise", "rho", "low", "high", "channels"])
    for kind, several in (("absolute", found.absolute), ("signed", found.signed)):
        for one in several:
            table.writerow(
                [one.criterion, kind, "per layer", "", *vars(one.per_layer).values(), one.channels]
            )
            for how, value in one.overall.items():
                table.writerow(
                    [one.criterion, kind, "all", how, *vars(value).values(), one.channels]
                )
            for layer, rho in one.layers.items():
                table.writerow([one.criterion, kind, layer, "", rho, "", "", ""])
    return text.getvalue()
