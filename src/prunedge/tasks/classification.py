"""Classification: one label for a whole image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt, model_validator

from prunedge.edge.tasks import metric_called
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.classification import COST, FAMILIES, METRICS, NAME, ClassTargets
from prunedge.edge.tasks.damage import damage_among
from prunedge.edge.tasks.decision import NOTHING_SAID, DamageSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import figures as of
from prunedge.tasks.base import (
    Categories,
    ConstantAnswer,
    Example,
    Metrics,
    Table,
    TaskDefinition,
    Titles,
)
from prunedge.tasks.damage_metrics import NAMES as DAMAGE_METRICS
from prunedge.tasks.damage_metrics import damage_figures, damage_metrics
from prunedge.tasks.logits import class_logits, cross_entropy
from prunedge.tasks.packed import packed
from prunedge.tasks.weighting import LossWeighting, class_weights, weighted_cross_entropy
from prunedge.utils.arguments import is_number
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced

MOST = 0.8  # share of the images of one class, of which the others are rare
TELLING = 0.7  # AUROC, which a dozen images hardly reach by chance
OUTPUTS_REMEDY = "build it with one output for each class"


class MetricsRecord(Record):
    """`Metrics.to_json` of this task."""

    loss: Loss
    accuracy: float
    f1: float
    auroc: float | None
    balanced_accuracy: float | None = None
    confusion: list[list[NonNegativeInt]]
    n: PositiveInt
    correct: str = ""

    @model_validator(mode="after")
    def _metrics_of_damage_are_numbers(self) -> Self:
        # Their names (`recall@alarms=0.05`) are none that an attribute could have.
        for name, value in (self.__pydantic_extra__ or {}).items():
            is_known = name in DAMAGE_METRICS or any(
                family.level_of(name) is not None for family in FAMILIES
            )
            if is_known and value is not None and not (is_number(value) and math.isfinite(value)):
                raise ValueError(f"{name} is no number")
        return self


@dataclass(frozen=True)
class Classification:
    """One of `spec.classes` for each image; without a `spec`, of as many as the model has outputs.

    Outputs are logits (n, classes), targets the class of each image (n,) int64.
    """

    spec: TaskSpec | None = None

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """`accuracy`; `f1`, `auroc` and `balanced_accuracy`, each the mean over the classes; those
        of damage (`prunedge.tasks.damage_metrics`), and of these the ones at levels that the user
        asks for.
        """
        asked = () if self.spec is None else self.spec.damage.metrics
        return METRICS | {name: metric_called(NAME, name) for name in asked}

    @property
    def targets(self) -> ClassTargets:
        """Indices of the classes."""
        assert self.spec is not None
        return ClassTargets(self.spec.classes)

    @property
    def outputs(self) -> int:
        """One for each class."""
        assert self.spec is not None
        return len(self.spec.classes)

    @property
    def needs_negative(self) -> bool:
        """No: only which output is the highest counts."""
        return False

    def require(self, metric: str) -> None:
        """Nothing: all metrics are computed with what every training has."""

    def undefined(self, metric: str, targets: Sequence[int]) -> str | None:
        """AUROC and balanced accuracy need an image of each class, what is asked of damage one of
        damage and one that is sound.
        """
        if self.spec is None:
            return None
        missing = self.targets.missing(targets)
        if metric in ("auroc", "balanced_accuracy"):
            return next(iter(missing), None)
        if not self.metrics[metric].of_damage:
            return None
        damage = damage_among(self.spec.classes, self.spec.damage.classes)
        sound = [name for name in self.spec.classes if name not in damage]
        for side in (damage, sound):
            if side and set(side) <= set(missing):
                return side[0]
        return None

    def outputs_of(self, output: Any) -> torch.Tensor:
        """The logits (n, classes)."""
        return class_logits(output)

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError where there is not one output for each class."""
        outputs = class_logits(output).shape[1]
        if self.spec is not None and outputs != self.outputs:
            what = f"the model has {outputs} outputs for {self.outputs} classes"
            raise ModelError(what, where=name, remedy=OUTPUTS_REMEDY)

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """The mean cross-entropy."""
        return cross_entropy(output, targets, label_smoothing=label_smoothing, double=double)

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Cross-entropy, weighted by class, in its focal form where one is asked for."""
        logits = class_logits(output)
        cross_entropy(logits, targets)  # says what is wrong with them, if anything
        return weighted_cross_entropy(
            logits.float(), targets.long(), weighting, label_smoothing=label_smoothing
        )

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """The weight of each class (classes,)."""
        return class_weights(np.bincount(targets, minlength=self.outputs))

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """KL divergence from the teacher's softened answers, times temperature^2 (Hinton et al.
        2015).
        """
        student = F.log_softmax(class_logits(output).float() / temperature, 1)
        teacher = F.log_softmax(class_logits(teacher_output).float() / temperature, 1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return divergence * temperature**2

    def categories(self, targets: Any, output: Any) -> Categories:
        """The classes of the images."""
        logits = class_logits(output)
        cross_entropy(logits, targets)  # says what is wrong with them, if anything
        return Categories(targets.long()[:, None], logits.shape[1])

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """The most probable classes."""
        logits = class_logits(output)
        return Categories(logits.argmax(1, keepdim=True), logits.shape[1])

    def meter(self, *, is_quick: bool = False) -> ClassificationMeter:
        """Keeps the logits, a few numbers an image, since AUROC ranks all images."""
        if self.spec is None:
            return ClassificationMeter()
        return meter_of(self.spec.classes, self.spec.damage)

    def kept(self, meter: ClassificationMeter) -> tuple[np.ndarray, np.ndarray]:
        """The logits and labels."""
        return meter.logits().numpy(), meter.labels().numpy()

    def figures(self, meter: ClassificationMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; recall, precision and F1 of each class."""
        logits = meter.logits()
        scores = logits.softmax(1).numpy()
        classes = logits.shape[1]
        is_there = of.one_hot(meter.labels().numpy(), classes)
        is_answered = of.one_hot(logits.argmax(1).numpy(), classes)
        names = [self.answer_name(index) for index in range(classes)]
        parts = of.parts_of(names, is_there, is_answered, weights)

        areas = []
        for index in range(classes):
            areas.append(of.auroc(weights, scores[:, index], is_there[:, index]))
        rarest = of.rarest(is_there)
        # As the meter has it: F1 leaves classes out that are nowhere, AUROC is defined of all.
        recalls = [part.figures[0].values for part in parts]
        f1 = of.mean_of([part.figures[2].values for part in parts])
        return of.Figures(
            metrics=(
                of.share(METRICS["accuracy"], weights, (is_there & is_answered).any(1)),
                of.Figure(METRICS["f1"], f1, rarest),
                of.Figure(METRICS["auroc"], np.mean(areas, axis=0), rarest),
                of.Figure(METRICS["balanced_accuracy"], np.mean(recalls, axis=0), rarest),
                *damage_figures(
                    logits, meter.labels(), meter.damage, weights, meter.costs, meter.others
                ),
            ),
            parts=parts,
        )

    def only_answer(self, metrics: Metrics) -> int | None:
        """The class that every image was given, though there are images of at least two.

        None as well where that class has most of the images and the scores order them all the same
        (AUROC): a rare class is told apart long before it is the most probable one.
        """
        confusion = metrics.details["confusion"]
        present = sum(any(row) for row in confusion)
        columns = zip(*confusion, strict=True)
        answered = [number for number, column in enumerate(columns) if any(column)]
        if present < 2 or len(answered) > 1:
            return None
        share = sum(confusion[answered[0]]) / metrics.n
        auroc = metrics.values.get("auroc")
        tells_rare = share > MOST and auroc is not None and auroc >= TELLING
        return None if tells_rare else answered[0]

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The class with the most images, and what always answering it scores."""
        counts = [sum(row) for row in metrics.details["confusion"]]
        largest = counts.index(max(counts))
        share = max(counts) / sum(counts)
        if metric == "accuracy":
            return ConstantAnswer(largest, share)
        if metric == "auroc":
            return ConstantAnswer(largest, 0.5)
        present = sum(count > 0 for count in counts)
        if metric == "balanced_accuracy":
            return ConstantAnswer(largest, 1 / present)
        if metric == COST:
            return self._constant_of_cost(counts)
        if metric in self.metrics and self.metrics[metric].of_damage:
            return ConstantAnswer(largest, self._constant_of_damage(metric, counts, largest))
        if metric != "f1":
            raise ValueError(f"what a constant answer scores by {metric} is not known")
        # F1 of that class, and 0 for the other classes that have images; torchmetrics leaves out
        # those that have none.
        return ConstantAnswer(largest, 2 * share / (1 + share) / present)

    def _constant_of_cost(self, counts: Sequence[int]) -> ConstantAnswer:
        """What costs least: to miss all damage, or to call all that is sound damaged."""
        assert self.spec is not None
        assert self.spec.damage.costs is not None
        miss, alarm = self.spec.damage.costs
        damage = _damage_indices(self.spec.classes, self.spec.damage)
        sound = [index for index in range(len(counts)) if index not in damage]
        damaged = sum(counts[index] for index in damage)
        missed = ConstantAnswer(max(sound, key=counts.__getitem__), miss * damaged / sum(counts))
        alarms = alarm * (sum(counts) - damaged) / sum(counts)
        called = ConstantAnswer(max(damage, key=counts.__getitem__), alarms)
        return min(missed, called, key=lambda answer: answer.score)

    def _constant_of_damage(self, metric: str, counts: Sequence[int], answer: int) -> float:
        """What always giving one answer scores by a metric of damage: equal scores for all images
        find none without calling all damaged.
        """
        assert self.spec is not None
        damage = _damage_indices(self.spec.classes, self.spec.damage)
        share = sum(counts[index] for index in damage) / sum(counts)
        if metric == "average_precision":
            return share
        if metric == "damage_f1":
            return 2 * share / (1 + share) if answer in damage else 0.0
        return 0.0 if self.metrics[metric].higher_is_better else 1.0

    @property
    def answers(self) -> int:
        """One for each class."""
        return self.outputs

    def answer_name(self, answer: int) -> str:
        """The class's name."""
        return self.spec.classes[answer] if self.spec else str(answer)

    def uninformed_loss(self, metrics: Metrics) -> float:
        """That of equal scores for all classes."""
        return math.log(len(metrics.details["confusion"]))

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether all images get equal scores, as after a step so large that all ReLUs died."""
        auroc = metrics.values["auroc"]
        return auroc is not None and abs(auroc - 0.5) < 1e-6

    @property
    def titles(self) -> Titles:
        """Of answers that are right or wrong."""
        return Titles()

    def purpose(self) -> str:
        """Telling its classes apart."""
        assert self.spec is not None
        return f"telling {' from '.join(self.spec.classes)}"

    def table(self, metrics: Metrics) -> Table:
        """The confusion matrix."""
        confusion = metrics.details["confusion"]
        names = tuple(self.answer_name(index) for index in range(len(confusion)))
        rows = []
        for name, counts in zip(names, confusion, strict=True):
            rows.append((name, *(f"{count:,}" for count in counts)))
        return Table("truth \\ answer", names, tuple(rows), is_confusion=True)

    def examples(self, before: ClassificationMeter, after: ClassificationMeter) -> list[Example]:
        """Images that `after` classifies wrongly and `before` did not, in their order."""
        labels = after.labels()
        probabilities_before = before.logits().softmax(1)
        probabilities_after = after.logits().softmax(1)
        was_right = probabilities_before.argmax(1) == labels
        is_wrong = probabilities_after.argmax(1) != labels

        examples = []
        for index in (was_right & is_wrong).nonzero().flatten().tolist():
            row_before = probabilities_before[index]
            row_after = probabilities_after[index]
            example = Example(
                index=index,
                truth=self.answer_name(int(labels[index])),
                before=self.answer_name(int(row_before.argmax())),
                after=self.answer_name(int(row_after.argmax())),
                confidence_before=float(row_before.max()),
                confidence_after=float(row_after.max()),
            )
            examples.append(example)
        return examples


class ClassificationMeter:
    """The loss, the metrics and the confusion matrix of a classifier.

    `classes` is how many there are; None where the model's outputs tell. `damage` are those of them
    that are damage; () where nobody knows. `costs` are those of a miss and of a false alarm,
    `others` metrics of damage at levels of the user's own.
    """

    def __init__(
        self,
        classes: int | None = None,
        damage: Sequence[int] = (),
        costs: tuple[float, float] | None = None,
        others: Sequence[str] = (),
    ) -> None:
        self._classes = classes
        self._damage = damage
        self._costs = costs
        self._others = others
        self._logits: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []
        self._counts: Any = None

    @property
    def damage(self) -> Sequence[int]:
        """The classes that are damage; none where nobody knows."""
        return self._damage

    @property
    def costs(self) -> tuple[float, float] | None:
        """What a miss and a false alarm cost; None where nobody says it."""
        return self._costs

    @property
    def others(self) -> Sequence[str]:
        """Metrics of damage at levels of the user's own, by name."""
        return self._others

    def observe(self, outputs: Any, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The logits (n, classes) float32 and the labels (n,)."""
        return {"logits": class_logits(outputs).float(), "labels": targets}

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Count a batch. TrainError when a label is out of range, or there are outputs of other
        classes.
        """
        logits = observation["logits"]
        labels = observation["labels"]
        self._require_labels(labels, *logits.shape)
        if self._counts is None:
            self._counts = _counts(logits.shape[1])
        self._counts.update(logits.argmax(1), labels)
        self._logits.append(logits)
        self._labels.append(labels)

    def _require_labels(self, labels: torch.Tensor, images: int, outputs: int) -> None:
        if self._classes is not None and outputs != self._classes:
            what = f"the model has {outputs} outputs for {self._classes} classes"
            raise TrainError(what, remedy=OUTPUTS_REMEDY)
        if labels.is_floating_point() or labels.shape != (images,):
            what = (
                f"labels of {tuple(labels.shape)} {labels.dtype}, "
                f"and not one integer for each of {images} images"
            )
            raise TrainError(what, remedy="give the number of each image's class, as int64")
        low = int(labels.min())
        high = int(labels.max())
        if low < 0 or high >= outputs:
            what = f"labels from {low} to {high} for {outputs} classes"
            raise TrainError(what, remedy="count them from 0")

    def logits(self) -> torch.Tensor:
        """(n, classes) float32, in the images' order."""
        return torch.cat(self._logits)

    def labels(self) -> torch.Tensor:
        """(n,) int64."""
        return torch.cat(self._labels)

    @traced("metrics")
    def compute(self) -> Metrics:
        """The metrics; None where they are not defined: `auroc` and `balanced_accuracy` where a
        class has no image, those of damage where there is none, or nothing else.
        """
        logits = self.logits()
        labels = self.labels()
        if not bool(logits.isfinite().all()):
            raise TrainError(
                "the model's outputs aren't finite", remedy="train it at a lower learning rate"
            )
        counts = self._counts.compute()
        confusion = counts["confusion"].long().tolist()
        is_correct = logits.argmax(1) == labels
        return Metrics(
            loss=float(cross_entropy(logits, labels, double=True)),
            values={
                # An exact fraction, not a float32 mean.
                "accuracy": int(is_correct.sum()) / len(labels),
                "f1": float(counts["f1"]),
                "auroc": _auroc(logits, labels),
                "balanced_accuracy": _balanced_accuracy(confusion),
                **damage_metrics(logits, labels, self._damage, self._costs, self._others),
            },
            n=len(labels),
            correct=packed(is_correct.numpy()),
            details={"confusion": confusion},
        )


def _counts(classes: int) -> Any:
    """The metrics that running counts suffice for."""
    # Seconds to import.
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

    # Every process counts all images: they have been exchanged before (`prunedge.train.evaluate`).
    return MetricCollection(
        {
            "f1": MulticlassF1Score(classes, average="macro", sync_on_compute=False),
            "confusion": MulticlassConfusionMatrix(classes, sync_on_compute=False),
        }
    )


def _auroc(logits: torch.Tensor, labels: torch.Tensor) -> float | None:
    """The mean over the classes of the area under the ROC curve of each against the rest."""
    from torchmetrics.functional.classification import multiclass_auroc

    count = logits.shape[1]
    if not bool((torch.bincount(labels, minlength=count) > 0).all()):
        return None
    area = multiclass_auroc(logits.softmax(1), labels, num_classes=count, average="macro")
    return float(area)


def _balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float | None:
    """The mean over the classes of the share of their images that are answered right, from
    `confusion[true][predicted]`; None where a class has no image.
    """
    if not all(map(any, confusion)):
        return None
    shares = [row[index] / sum(row) for index, row in enumerate(confusion)]
    return sum(shares) / len(shares)


def meter_of(classes: Sequence[str], damage: DamageSpec = NOTHING_SAID) -> ClassificationMeter:
    """A meter for these classes; which are damage, the user says, or their names, if any do."""
    indices = _damage_indices(classes, damage)
    return ClassificationMeter(len(classes), indices, damage.costs, damage.metrics)


def _damage_indices(classes: Sequence[str], damage: DamageSpec) -> list[int]:
    """The classes that are damage: those that the user names, or whose names say it."""
    return [classes.index(name) for name in damage_among(classes, damage.classes)]


def measure(
    logits: torch.Tensor,
    labels: torch.Tensor,
    classes: Sequence[str] | None = None,
    damage: DamageSpec = NOTHING_SAID,
) -> Metrics:
    """The metrics of outputs (n, classes) against labels (n,); `damage` is what the user says of
    it.
    """
    meter = ClassificationMeter() if classes is None else meter_of(classes, damage)
    meter.update(meter.observe(logits, labels))
    return meter.compute()


DEFINITION = TaskDefinition(NAME, Classification, METRICS, MetricsRecord)
