"""The first training on disk while it goes on: one file in the run folder, written whole or not at
all, nothing pickled.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt
from safetensors import SafetensorError, safe_open

from prunedge.errors import RunError
from prunedge.importance import Scores
from prunedge.importance.fingerprint import tensors_digest
from prunedge.runs.records import MetricsRecord
from prunedge.tasks import Metrics
from prunedge.train import Epoch, Snapshot, TrainingCheckpoint, flattened, unflattened
from prunedge.utils.distributed import broadcast_object, rank_zero_only
from prunedge.utils.files import require_regular, written
from prunedge.utils.formats import FORMAT, KEY, refuse_newer, refuse_other
from prunedge.utils.records import Loss, Record, require
from prunedge.utils.tensor_files import save_tensors, texts_of
from prunedge.utils.tracing import traced

log = logging.getLogger(__name__)

NAME = "training.safetensors"
# what is lost at the most, beside the epoch under way: writing more often would cost more than it
# saves
EVERY_S = 20.0


class BestRecord(Record):
    """The best epoch so far."""

    epoch: NonNegativeInt
    rank: list[Loss]
    val: MetricsRecord | None
    scores: Annotated[list[Any], Field(min_length=2, max_length=2)] | None


class EpochRecord(Record):
    """One epoch."""

    loss: Loss
    val: MetricsRecord | None
    seconds: float
    seconds_evaluate: float


class TrainingRecord(Record):
    """The texts of training.safetensors."""

    epochs: NonNegativeInt
    gathers: str = ""
    history: list[EpochRecord]
    best: BestRecord


@dataclass
class RunCheckpointer:
    """Keeps the training of the run in `folder`; `gathers` says what scores are gathered on the
    way, `sign` which run it is.
    """

    folder: Path
    gathers: str = ""
    sign: str = ""
    _last: float = field(default_factory=time.monotonic, repr=False)

    def kept(self) -> TrainingCheckpoint | None:
        """What was kept last; None when nothing was, or it can't be read (the training begins anew,
        to the same result).

        RunError when it is of another format.
        """
        file = self.folder / NAME
        if not file.exists():
            return None
        require_regular(file, RunError)
        try:
            with safe_open(file, "pt") as opened:
                texts = texts_of(opened.metadata())
                about = dict(json.loads(texts["about"]))
                refuse_newer(about.get(KEY), "training", file)
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  not a dict
            if texts["sha256"] != tensors_digest(tensors, f"{self.sign} {texts['about']}"):
                raise ValueError("it differs from its checksum")
            require(TrainingRecord, about)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning(
                "%s is damaged, or of another run (%s): the training begins anew", file, error
            )
            return None
        refuse_other(about.get(KEY), "training", file, "delete it and begin anew")
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition("|")
            parts.setdefault(part, {})[name] = tensor
        best = about["best"]
        # Scores that were gathered by another criterion, or otherwise, are not what the end of this
        # training would say they are.
        fits = best["scores"] and about.get("gathers", "") == self.gathers
        scores = Scores(parts.get("scores", {}), *best["scores"]) if fits else None
        snapshot = Snapshot(
            best["epoch"],
            tuple(best["rank"]),
            _metrics(best["val"]),
            scores,
            parts.get("best", {}),
            unflattened(parts.get("best momentum", {})),
        )
        history = tuple(_epoch(epoch) for epoch in about["history"])
        return TrainingCheckpoint(
            epochs=about["epochs"],
            weights=parts["now"],
            optimizer_state=unflattened(parts.get("momentum", {})),
            best=snapshot,
            history=history,
            averaged=parts.get("averaged", {}),
        )

    @traced("keep")
    def keep(self, checkpoint: TrainingCheckpoint) -> None:
        """Keep it, unless the last time is short ago."""
        if broadcast_object(time.monotonic() - self._last) < EVERY_S:
            return
        self._last = time.monotonic()
        _write(self.folder / NAME, checkpoint, self.gathers, self.sign)

    def forget(self) -> None:
        """The training has ended."""
        (self.folder / NAME).unlink(missing_ok=True)


@rank_zero_only
def _write(file: Path, checkpoint: TrainingCheckpoint, gathers: str, sign: str) -> None:
    best, scores = checkpoint.best, checkpoint.best.collected
    parts: dict[str, dict[str, torch.Tensor]] = {
        "now": checkpoint.weights,
        "momentum": flattened(checkpoint.optimizer_state),
        "averaged": dict(checkpoint.averaged),
        "best": best.weights,
        "best momentum": flattened(best.optimizer_state),
        "scores": dict(scores.values) if scores else {},
    }
    # A copy of each: shared weights have one memory, which the format does not allow.
    tensors = {
        f"{part}|{name}": tensor.detach().cpu().clone().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    record = {
        KEY: FORMAT,
        "epochs": checkpoint.epochs,
        "gathers": gathers,
        "history": [
            {**asdict(epoch), "val": epoch.val.to_json() if epoch.val else None}
            for epoch in checkpoint.history
        ],
        "best": {
            "epoch": best.epoch,
            "rank": best.rank,
            "val": best.val.to_json() if best.val else None,
            "scores": [scores.criterion, scores.examples] if scores else None,
        },
    }
    about = json.dumps(record)
    with written(file) as temporary:
        save_tensors(
            tensors,
            temporary,
            {"about": about, "sha256": tensors_digest(tensors, f"{sign} {about}")},
        )


def _epoch(record: dict[str, Any]) -> Epoch:
    return Epoch(
        loss=record["loss"],
        val=_metrics(record["val"]),
        seconds=record["seconds"],
        seconds_evaluate=record["seconds_evaluate"],
    )


def _metrics(record: dict[str, Any] | None) -> Metrics | None:
    return None if record is None else Metrics.from_json(record)
