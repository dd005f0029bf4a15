"""How good a network is on a split: predictions in float32, metrics from torchmetrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from prunedge.errors import TrainError
from prunedge.models.classification import class_logits, cross_entropy
from prunedge.models.cost import evaluating
from prunedge.models.tf32 import full_float32
from prunedge.train.bootstrap import packed
from prunedge.train.engine import Engine
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.tracing import timed

METRICS = ("accuracy", "f1", "auroc")

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Metrics:
    """What a network does on `n` pictures.

    `loss` is the mean cross-entropy; `accuracy`, `f1` (mean over the classes) and `auroc` (mean over the classes, each
    against the rest) lie in 0..1; `auroc` is None when a class has no picture. `confusion[true][predicted]` counts
    pictures. `correct` says which pictures were answered right, in their order (`certainty.packed`): two networks are compared picture
    by picture.
    """

    loss: float
    accuracy: float
    f1: float
    auroc: float | None
    confusion: tuple[tuple[int, ...], ...]
    n: int
    correct: str = ""

    def value(self, metric: str) -> float:
        """The metric called `accuracy`, `f1` or `auroc`; TrainError when there is no such metric or no value."""
        if metric not in METRICS:
            raise TrainError(f"no metric is called {metric!r}", remedy=f"choose {', '.join(METRICS)}")
        value = getattr(self, metric)
        if value is None:
            raise TrainError(f"{metric} isn't defined: a class has no picture in this split", remedy=f"use {option('metric', 'accuracy')}")
        return float(value)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "confusion": [list(row) for row in self.confusion]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_json`."""
        confusion = tuple(tuple(int(count) for count in row) for row in record["confusion"])
        auroc = None if record["auroc"] is None else float(record["auroc"])
        return Metrics(
            float(record["loss"]),
            float(record["accuracy"]),
            float(record["f1"]),
            auroc,
            confusion,
            int(record["n"]),
            record.get("correct", ""),
        )


@timed("evaluate")
def evaluate(net: nn.Module, batches: Batches, engine: Engine, classes: Sequence[str] | int) -> Metrics:
    """Measure `net` on every batch ((N, 3, S, S) float32, (N,) int64) of a split, in evaluation mode and float32.

    Float32 whatever the engine trains in, since that is what the bundle runs. The network stays as it was. Several processes take
    whole batches in turn, and all get the same metrics.
    Raises TrainError when there is no picture or the outputs aren't finite, ModelError when the network is no classifier of whole images
    with two classes or more.
    """
    count = classes if isinstance(classes, int) else len(classes)
    with engine.holding(net):
        logits, labels = outputs(net, batches, engine)
    if logits.shape[1] != count:
        what = f"the network has {logits.shape[1]} outputs for {count} classes"
        raise TrainError(what, remedy="build it with one output for each class")
    return distributed.from_first(measure(logits, labels))


@timed("evaluate")
def predict(net: nn.Module, batches: Batches, engine: Engine) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the probabilities (n, classes) float32 and true labels (n,) int64 of every picture, in order, on the CPU.

    Same mode, precision and errors as `evaluate`.
    """
    with engine.holding(net):
        logits, labels = outputs(net, batches, engine)
    return logits.softmax(dim=1), labels


@timed("metrics")
def measure(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Turn outputs (n, classes) and true labels (n,) into metrics; TrainError when a label is out of range."""
    from torchmetrics.functional import classification

    count = class_logits(logits).shape[1]
    if labels.is_floating_point() or labels.shape != (len(logits),):
        what = f"labels of {tuple(labels.shape)} {labels.dtype}, and not one integer for each of {len(logits)} pictures"
        raise TrainError(what, remedy="give the number of each picture's class, as int64")
    if int(labels.max()) >= count or int(labels.min()) < 0:
        what = f"labels from {int(labels.min())} to {int(labels.max())} for {count} classes"
        raise TrainError(what, remedy="count them from 0")
    guesses = logits.argmax(dim=1)
    f1 = classification.multiclass_f1_score(guesses, labels, num_classes=count, average="macro")
    confusion = classification.multiclass_confusion_matrix(guesses, labels, num_classes=count)
    auroc = None
    if count > 1 and bool((torch.bincount(labels, minlength=count) > 0).all()):
        auroc = float(classification.multiclass_auroc(logits.softmax(1), labels, num_classes=count, average="macro"))
    return Metrics(
        loss=float(cross_entropy(logits, labels, double=True)),
        accuracy=int((guesses == labels).sum()) / len(labels),  # an exact fraction, not a float32 mean
        f1=float(f1),
        auroc=auroc,
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        n=len(labels),
        correct=packed((guesses == labels).cpu().numpy()),
    )


def outputs(net: nn.Module, batches: Batches, engine: Engine) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the logits (n, classes) float32 and labels (n,) int64 of every picture, on the CPU; `engine` holds `net`."""
    logits: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    with evaluating(net), torch.no_grad(), full_float32():
        for pictures, truth in distributed.dealt(batches):
            with engine.span("forward"):
                logits.append(class_logits(net(engine.picture(pictures))).float())
            labels.append(truth.cpu())
    # In the end, since a GPU that is asked for an answer can't work ahead meanwhile.
    logits, labels = distributed.collected([one.cpu() for one in logits]), distributed.collected(labels)
    if not labels:
        raise TrainError("there is no picture to evaluate on", remedy="give this split some pictures")
    everything = torch.cat(logits)
    if not bool(everything.isfinite().all()):
        raise TrainError("the network's outputs aren't finite", remedy="train it at a lower learning rate")
    return everything, torch.cat(labels)
