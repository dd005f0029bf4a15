"""How good a model is on a split: predictions in float32, metrics from torchmetrics."""

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
from prunedge.utils.tracing import traced

METRICS = ("accuracy", "f1", "auroc")

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Metrics:
    """What a model does on `n` images.

    `loss` is the mean cross-entropy; `accuracy`, `f1` (mean over the classes) and `auroc` (mean
    over the classes, each against the rest) lie in 0..1; `auroc` is None when a class has no image.
    `confusion[true][predicted]` counts images. `correct` says which images were answered right, in
    their order (`bootstrap.packed`): two models are compared image by image.
    """

    loss: float
    accuracy: float
    f1: float
    auroc: float | None
    confusion: tuple[tuple[int, ...], ...]
    n: int
    correct: str = ""

    def value(self, metric: str) -> float:
        """The metric called `accuracy`, `f1` or `auroc`.

        TrainError when there is no such metric or no value.
        """
        if metric not in METRICS:
            raise TrainError(
                f"no metric is called {metric!r}", remedy=f"choose {', '.join(METRICS)}"
            )
        value = getattr(self, metric)
        if value is None:
            raise TrainError(
                f"{metric} isn't defined: a class has no image in this split",
                remedy=f"use {option('metric', 'accuracy')}",
            )
        return float(value)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "confusion": [list(row) for row in self.confusion]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_json`."""
        auroc = record["auroc"]
        return Metrics(
            loss=float(record["loss"]),
            accuracy=float(record["accuracy"]),
            f1=float(record["f1"]),
            auroc=None if auroc is None else float(auroc),
            confusion=_in_integers(record["confusion"]),
            n=int(record["n"]),
            correct=record.get("correct", ""),
        )


def _in_integers(table: Iterable[Iterable[Any]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, row)) for row in table)


@traced("evaluate")
def evaluate(
    model: nn.Module, batches: Batches, engine: Engine, classes: Sequence[str] | int
) -> Metrics:
    """Measure `model` on every batch ((N, 3, S, S) float32, (N,) int64) of a split.

    In evaluation mode and float32, whatever the engine trains in, since that is what the bundle
    runs. The model stays as it was. Several processes take whole batches in turn, and all get the
    same metrics. Raises TrainError when there is no image or the outputs aren't finite, ModelError
    when the model is no classifier of whole images with two classes or more.
    """
    count = classes if isinstance(classes, int) else len(classes)
    with engine.holding(model):
        logits, labels = outputs(model, batches, engine)
    if logits.shape[1] != count:
        what = f"the model has {logits.shape[1]} outputs for {count} classes"
        raise TrainError(what, remedy="build it with one output for each class")
    return distributed.broadcast_object(measure(logits, labels))


@traced("evaluate")
def predict(
    model: nn.Module, batches: Batches, engine: Engine
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the probabilities (n, classes) and true labels (n,) of every image, in order.

    float32 and int64, on the CPU. Same mode, precision and errors as `evaluate`.
    """
    with engine.holding(model):
        logits, labels = outputs(model, batches, engine)
    return logits.softmax(dim=1), labels


@traced("metrics")
def measure(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Turn outputs (n, classes) and true labels (n,) into metrics.

    TrainError when a label is out of range.
    """
    from torchmetrics.functional import classification

    count = class_logits(logits).shape[1]
    if labels.is_floating_point() or labels.shape != (len(logits),):
        what = (
            f"labels of {tuple(labels.shape)} {labels.dtype}, "
            f"and not one integer for each of {len(logits)} images"
        )
        raise TrainError(what, remedy="give the number of each image's class, as int64")
    if int(labels.max()) >= count or int(labels.min()) < 0:
        what = f"labels from {int(labels.min())} to {int(labels.max())} for {count} classes"
        raise TrainError(what, remedy="count them from 0")

    guesses = logits.argmax(dim=1)
    is_correct = guesses == labels
    f1 = classification.multiclass_f1_score(guesses, labels, num_classes=count, average="macro")
    confusion = classification.multiclass_confusion_matrix(guesses, labels, num_classes=count)
    auroc = None
    if count > 1 and bool((torch.bincount(labels, minlength=count) > 0).all()):
        probabilities = logits.softmax(1)
        area = classification.multiclass_auroc(
            probabilities, labels, num_classes=count, average="macro"
        )
        auroc = float(area)
    return Metrics(
        loss=float(cross_entropy(logits, labels, double=True)),
        # An exact fraction, not a float32 mean.
        accuracy=int(is_correct.sum()) / len(labels),
        f1=float(f1),
        auroc=auroc,
        confusion=_in_integers(confusion),
        n=len(labels),
        correct=packed(is_correct.cpu().numpy()),
    )


def outputs(
    model: nn.Module, batches: Batches, engine: Engine
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the logits (n, classes) float32 and labels (n,) int64 of every image, on the CPU.

    `engine` holds `model`.
    """
    logits: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    with evaluating(model), torch.no_grad(), full_float32():
        for images, truth in distributed.shard_batches(batches):
            with engine.span("forward"):
                logits.append(class_logits(model(engine.to_device(images))).float())
            labels.append(truth.cpu())
    # In the end, since a GPU that is asked for an answer can't work ahead meanwhile.
    logits = distributed.gather_batches([part.cpu() for part in logits])
    labels = distributed.gather_batches(labels)
    if not labels:
        raise TrainError("there is no image to evaluate on", remedy="give this split some images")
    everything = torch.cat(logits)
    if not bool(everything.isfinite().all()):
        raise TrainError(
            "the model's outputs aren't finite", remedy="train it at a lower learning rate"
        )
    return everything, torch.cat(labels)
