"""Multilabel classification: several labels for a whole image, or none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.multilabel import METRICS, NAME, THRESHOLD, LabelTargets, Target
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
from prunedge.tasks.logits import logits_of
from prunedge.tasks.observed import Observed
from prunedge.tasks.packed import packed
from prunedge.tasks.weighting import LossWeighting, label_weights, weighted_binary_cross_entropy
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced

NOTHING = "no class"  # an image without any, for a reader
OUTPUTS_REMEDY = "build it with one output for each class"
TARGETS_REMEDY = "give 0 or 1 for each class of each image"

Pair = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


class MostFrequent(Record):
    """The labels that most images have: the indices of the classes, and how many images."""

    classes: list[NonNegativeInt]
    images: PositiveInt


class MetricsRecord(Record):
    """`Metrics.to_json` of this task."""

    loss: Loss
    map: float | None
    f1: float
    exact: float
    average_precision: list[float | None]
    presence: list[Annotated[list[Pair], Field(min_length=2, max_length=2)]]
    most_frequent: MostFrequent
    n: PositiveInt
    correct: str = ""


@dataclass(frozen=True)
class Multilabel:
    """Which of `spec.classes` each image shows: any number of them, also none.

    Outputs are logits (n, classes), targets (n, classes) float32 of 0 and 1. Constant answers are
    counted in binary: bit i says whether class i is there.
    """

    spec: TaskSpec

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """`map`, the mean average precision, and `f1`, each the mean over the classes; `exact`, the
        share of images all of whose labels are right.
        """
        return METRICS

    @property
    def targets(self) -> LabelTargets:
        """Indices of the classes that are there."""
        return LabelTargets(self.spec.classes)

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.spec.classes)

    @property
    def needs_negative(self) -> bool:
        """Yes: from 0 on a class is as probable as a half."""
        return True

    def require(self, metric: str) -> None:
        """Nothing: all metrics are computed with what every training has."""

    def undefined(self, metric: str, targets: Sequence[Target]) -> str | None:
        """Average precision is that of the classes that have images; there must be one."""
        missing = self.targets.missing(targets)
        return missing[0] if metric == "map" and len(missing) == self.outputs else None

    def outputs_of(self, output: Any) -> torch.Tensor:
        """The logits (n, classes)."""
        logits = logits_of(output)
        if not logits.is_floating_point() or logits.dim() != 2 or logits.shape[1] != self.outputs:
            shape = f"{tuple(logits.shape)} {str(logits.dtype).removeprefix('torch.')}"
            raise ModelError(
                f"the model gives {shape}, and not a logit for each of {self.outputs} classes",
                remedy=OUTPUTS_REMEDY,
            )
        return logits

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError where there is not one output for each class."""
        try:
            self.outputs_of(output)
        except ModelError as error:
            raise ModelError(error.what, where=name, remedy=error.remedy) from None

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """The binary cross-entropy, the mean over the classes and the images."""
        logits = self.outputs_of(output)
        logits = logits.double() if double else logits.float()
        wanted = self.checked(targets, len(logits)).to(logits)
        softened = wanted * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, softened)

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Binary cross-entropy, weighted for each label by whether it is there, in its focal form
        where one is asked for.
        """
        logits = self.outputs_of(output).float()
        wanted = self.checked(targets, len(logits)).to(logits)
        softened = wanted * (1 - label_smoothing) + label_smoothing / 2
        return weighted_binary_cross_entropy(logits, softened, weighting)

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """The weights of lacking each label and of having it (2, classes)."""
        return label_weights(targets.sum(0), len(targets))

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """KL divergence from the teacher's softened answer to each class, the mean over them, times
        temperature^2 (Hinton et al. 2015).
        """
        student = self.outputs_of(output).float() / temperature
        teacher = self.outputs_of(teacher_output).float() / temperature
        there = teacher.sigmoid()
        divergence = there * (F.logsigmoid(teacher) - F.logsigmoid(student))
        divergence += (1 - there) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        return divergence.mean() * temperature**2

    def categories(self, targets: Any, output: Any) -> Categories:
        """For each class whether it is there."""
        wanted = self.checked(targets, len(self.outputs_of(output)))
        return Categories(wanted.long(), 2)

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """For each class whether the model says that it is there."""
        return Categories(self.decided(self.outputs_of(output)).long(), 2)

    def meter(self, *, is_quick: bool = False) -> MultilabelMeter:
        """Keeps the logits, a few numbers an image, since average precision ranks all images."""
        return MultilabelMeter(self)

    def kept(self, meter: MultilabelMeter) -> tuple[np.ndarray, np.ndarray]:
        """The logits, and which classes are there."""
        return meter.logits().numpy(), meter.targets().numpy()

    def figures(self, meter: MultilabelMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; recall, precision and F1 of each class."""
        logits = meter.logits()
        scores = logits.double().sigmoid().numpy()
        is_there = meter.targets().numpy()
        is_answered = self.decided(logits).numpy()
        parts = of.parts_of(self.spec.classes, is_there, is_answered, weights)

        precisions = []
        for index in range(self.outputs):
            precision = of.average_precision(weights, scores[:, index], is_there[:, index])
            precisions.append(precision)
        rarest = of.rarest(is_there)
        # As the meter has it: average precision leaves classes out that no image shows.
        f1 = of.mean_of([part.figures[2].values for part in parts], undefined=0.0)
        return of.Figures(
            metrics=(
                of.Figure(METRICS["map"], of.mean_of(precisions), rarest),
                of.Figure(METRICS["f1"], f1, rarest),
                of.share(METRICS["exact"], weights, (is_there == is_answered).all(1)),
            ),
            parts=parts,
        )

    def only_answer(self, metrics: Metrics) -> int | None:
        """The labels that every image was given, whatever it shows; None as well where the scores
        order the images, though none may pass a half: rare classes are told apart long before.
        """
        if not self.has_constant_outputs(metrics):
            return None
        answer = 0
        for index, (absent, there) in enumerate(metrics.details["presence"]):
            given = absent[1] + there[1]
            if given not in (0, metrics.n):
                return None
            answer += (given > 0) << index
        return answer

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The labels that most images have, and what always giving them scores; by F1 all classes,
        since that counts no class that is not named.
        """
        most = metrics.details["most_frequent"]
        answer = sum(1 << index for index in most["classes"])
        shares = [sum(row[1]) / metrics.n for row in metrics.details["presence"]]
        if metric == "exact":
            return ConstantAnswer(answer, most["images"] / metrics.n)
        if metric == "map":
            # Equal scores for all images: as precise as a class is frequent.
            present = [share for share in shares if share]
            return ConstantAnswer(answer, sum(present) / max(len(present), 1))
        if metric != "f1":
            raise ValueError(f"what a constant answer scores by {metric} is not known")
        score = sum(2 * share / (1 + share) for share in shares) / len(shares)
        return ConstantAnswer(self.answers - 1, score)

    @property
    def answers(self) -> int:
        """One for each set of classes."""
        return 1 << self.outputs

    def answer_name(self, answer: int) -> str:
        """The classes' names."""
        names = [name for index, name in enumerate(self.spec.classes) if answer >> index & 1]
        return ", ".join(names) or NOTHING

    def uninformed_loss(self, metrics: Metrics) -> float:
        """That of a probability of a half for each class."""
        return math.log(2)

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether all images get equal scores: the average precision of each class is its share."""
        telling = 0
        precisions = metrics.details["average_precision"]
        for row, precision in zip(metrics.details["presence"], precisions, strict=True):
            share = sum(row[1]) / metrics.n
            if 0 < share < 1:
                telling += 1
                if abs(precision - share) > 1e-6:
                    return False
        return telling > 0

    @property
    def titles(self) -> Titles:
        """Of answers that are right or wrong."""
        return Titles()

    def purpose(self) -> str:
        """Finding its classes."""
        return f"finding {', '.join(self.spec.classes)}"

    def table(self, metrics: Metrics) -> Table:
        """Each class: its images, which of them were found, and which others it was seen in."""
        rows = []
        details = zip(
            self.spec.classes,
            metrics.details["presence"],
            metrics.details["average_precision"],
            strict=True,
        )
        for name, (absent, there), precision in details:
            shown = "" if precision is None else f"{100 * precision:.1f} %"
            counts = [sum(there), there[1], there[0], absent[1]]
            rows.append((name, *(f"{count:,}" for count in counts), shown))
        columns = ("images", "found", "missed", "wrongly found", "average precision")
        return Table("class", columns, tuple(rows))

    def examples(self, before: MultilabelMeter, after: MultilabelMeter) -> list[Example]:
        """Images of which `after` gets a label wrong and `before` got all right, in their order."""
        targets = after.targets()
        rights = []
        for meter in (before, after):
            rights.append((self.decided(meter.logits()) == targets).all(1))

        examples = []
        for index in (rights[0] & ~rights[1]).nonzero().flatten().tolist():
            answer_before, sure_before = self._answered(before.logits()[index])
            answer_after, sure_after = self._answered(after.logits()[index])
            example = Example(
                index=index,
                truth=self._named(targets[index]),
                before=answer_before,
                after=answer_after,
                confidence_before=sure_before,
                confidence_after=sure_after,
            )
            examples.append(example)
        return examples

    def _answered(self, logits: torch.Tensor) -> tuple[str, float]:
        """The labels that an image's logits (classes,) stand for, and the probability of just
        these.
        """
        decided = self.decided(logits[None])[0]
        probabilities = logits.sigmoid()
        each = torch.where(decided, probabilities, 1 - probabilities)
        return self._named(decided), float(each.prod())

    def _named(self, is_there: torch.Tensor) -> str:
        answer = sum(1 << index for index in is_there.nonzero().flatten().tolist())
        return self.answer_name(answer)

    def decided(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, classes) bool: which classes logits (n, classes) say are there."""
        return logits.double().sigmoid() >= THRESHOLD

    def checked(self, targets: Any, images: int) -> torch.Tensor:
        """The targets, where they are 0 or 1 for each class of so many images. TrainError."""
        wanted = (images, self.outputs)
        if not isinstance(targets, torch.Tensor) or tuple(targets.shape) != wanted:
            shape = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets)
            raise TrainError(f"targets of {shape}, and not {wanted}", remedy=TARGETS_REMEDY)
        if not bool(((targets == 0) | (targets == 1)).all()):
            raise TrainError("targets that are neither 0 nor 1", remedy=TARGETS_REMEDY)
        return targets


class MultilabelMeter:
    """Binary cross-entropy, average precision, F1, exact matches and what each class was taken
    for.
    """

    def __init__(self, task: Multilabel) -> None:
        self._task = task
        self._observed = Observed()

    def observe(self, outputs: Any, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The logits (n, classes) float32, and which classes are there (n, classes) bool."""
        logits = self._task.outputs_of(outputs).float()
        return Observed.observation(logits, self._task.checked(targets, len(logits)).bool())

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch."""
        self._observed.update(observation)

    def logits(self) -> torch.Tensor:
        """(n, classes) float32, in the images' order."""
        return self._observed.outputs()

    def targets(self) -> torch.Tensor:
        """(n, classes) bool."""
        return self._observed.targets()

    @traced("metrics")
    def compute(self) -> Metrics:
        """The metrics; `map` is None where no class has an image."""
        logits = self._observed.finite_outputs()
        targets = self.targets()
        decided = self._task.decided(logits)
        is_correct = (decided == targets).all(1)
        classes = _classes(logits.double().sigmoid(), decided.int(), targets.int())
        known = [one.precision for one in classes if one.precision is not None]
        return Metrics(
            loss=float(self._task.loss(logits, targets.float(), double=True)),
            values={
                "map": sum(known) / len(known) if known else None,
                "f1": sum(one.f1 for one in classes) / len(classes),
                # An exact fraction, not a float32 mean.
                "exact": int(is_correct.sum()) / len(targets),
            },
            n=len(targets),
            correct=packed(is_correct.numpy()),
            details={
                "average_precision": [one.precision for one in classes],
                "presence": [one.presence for one in classes],
                "most_frequent": _most_frequent(targets),
            },
        )


@dataclass(frozen=True)
class _Class:
    """A class alone: the area under its precision-recall curve (None where no image shows it), F1,
    and `presence[truth][answer]`, which counts images: 0 is absent, 1 is there.
    """

    precision: float | None
    f1: float
    presence: list[list[int]]


def _classes(scores: torch.Tensor, decided: torch.Tensor, targets: torch.Tensor) -> list[_Class]:
    """Each class, by its column of (n, classes)."""
    # Seconds to import. Those of several labels at once take no single class.
    from torchmetrics.functional.classification import (
        binary_average_precision,
        binary_confusion_matrix,
        binary_f1_score,
    )

    classes = []
    for score, answer, target in zip(scores.T, decided.T, targets.T, strict=True):
        precision = float(binary_average_precision(score, target)) if target.any() else None
        f1 = float(binary_f1_score(answer, target))
        presence = binary_confusion_matrix(answer, target).long().tolist()
        classes.append(_Class(precision, f1, presence))
    return classes


def _most_frequent(targets: torch.Tensor) -> dict[str, Any]:
    """The labels that most images have; of several as frequent the first."""
    times = Counter(tuple(row.nonzero().flatten().tolist()) for row in targets)
    classes, images = max(times.items(), key=lambda item: (item[1], [-i for i in item[0]]))
    return {"classes": list(classes), "images": images}


DEFINITION = TaskDefinition(NAME, Multilabel, METRICS, MetricsRecord)
