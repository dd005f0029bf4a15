"""One label for one image, the index of its class; probabilities over the classes, by a
softmax.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunedge.edge.probabilities import is_share, is_sigmoid, squash_of, squash_warning
from prunedge.edge.tasks import by_class, label_kinds
from prunedge.edge.tasks.base import (
    DeviceDefinition,
    Findings,
    Labels,
    ListedImage,
    Scale,
    TaskSpec,
    Tiles,
    Unmatched,
)
from prunedge.edge.tasks.metric import Metric, MetricFamily
from prunedge.edge.tasks.named_classes import NamedClasses
from prunedge.errors import DataError
from prunedge.utils.wording import counted

NAME = "classification"
ACCURACY = Metric("accuracy", has_interval=True)
# Operating points: how much damage is found where so many sound images may be called damaged, and
# the other way round.
AT_ALARMS = MetricFamily("recall@alarms", (0.01, 0.02, 0.05, 0.1), example=0.05)
AT_RECALL = MetricFamily(
    "alarms@recall", (0.8, 0.9, 0.95, 0.99), example=0.9, higher_is_better=False
)
FAMILIES = (AT_ALARMS, AT_RECALL)
COST = "cost"  # of what is missed and of false alarms, an image, at the threshold where it is least
BALANCED_ACCURACY = Metric("balanced_accuracy", is_macro=True)
METRICS = {
    metric.name: metric
    for metric in (
        ACCURACY,
        Metric("f1", is_macro=True),
        Metric("auroc", is_macro=True),
        BALANCED_ACCURACY,
        Metric("damage_f1", of_damage=True),
        Metric("average_precision", of_damage=True),
        *(AT_ALARMS.at(level) for level in AT_ALARMS.usual),
        *(AT_RECALL.at(level) for level in AT_RECALL.usual),
        Metric(COST, of_damage=True, higher_is_better=False, unit="", is_at_best=True),
    )
}
TOLERANCE = 1e-3  # of a sum of probabilities


@dataclass(frozen=True)
class ClassTargets(NamedClasses):
    """Targets are indices into `classes`, and so are the strata."""

    @property
    def task(self) -> str:
        """`classification`."""
        return NAME

    def target(self, image: ListedImage) -> int:
        """The index of the image's class."""
        return self._indices[image.label]

    def matched(self, labels: Labels) -> list[int | Unmatched]:
        """The index of each image's class."""
        return by_class.matched_names(labels, self._indices, "class")

    def collate(self, targets: Sequence[int]) -> np.ndarray:
        """(n,) int64."""
        return by_class.collated(targets)

    def strata(self, targets: Sequence[int]) -> np.ndarray:
        """One-hot (n, classes) int64."""
        return by_class.one_hot(targets, self.classes)

    def missing(self, targets: Sequence[int]) -> tuple[str, ...]:
        """The classes without an image."""
        return by_class.absent(targets, self.classes)

    def scales_of(self, targets: Sequence[int]) -> tuple[Scale, ...]:
        """None: nothing is a number."""
        return ()

    def scaled(self, scales: Sequence[Scale]) -> ClassTargets:
        """Itself."""
        return self

    def baseline(self, targets: Sequence[int]) -> str:
        """How many images the most frequent answer is right for."""
        return by_class.most_frequent(targets)

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Whether the classes look like lists of labels, or like numbers to estimate."""
        doubt = label_kinds.doubt(counts)
        return None if doubt is None else f"{doubt}; {label_kinds.REMEDY}"

    @cached_property
    def _indices(self) -> dict[str, int]:
        return by_class.index_of_each(self.classes)


def classes_of(labels: Labels) -> tuple[str, ...]:
    """The classes that labels name, sorted.

    DataError where there is a single one, where an image has none, or where they look like lists of
    labels or like numbers to estimate.
    """
    without = [image.name for image in labels.images if not image.label]
    counts = Counter(image.label for image in labels.images if image.label)
    classes = label_kinds.ordered(counts)
    if len(classes) < 2 and not without:
        raise DataError(
            f"only one class, '{classes[0][:100]}'",
            where=labels.where,
            remedy=f"at least two are needed; {labels.layout}",
        )
    refusal = label_kinds.refusal(counts, labels.held)
    if refusal is not None:
        raise DataError(refusal, where=labels.where, remedy=label_kinds.REMEDY)
    if without:
        more = f", {without[0]} first" if len(without) > 1 else f": {without[0]}"
        raise DataError(
            f"{counted(len(without), 'image')} without label{more}",
            where=labels.where,
            remedy="give each image one label, or leave it out",
        )
    return classes


def doubt_of(labels: Labels) -> str | None:
    """Why labels that can be taken for classes may be something else, with the remedy."""
    doubt = label_kinds.doubt(Counter(image.label for image in labels.images), labels.held)
    return None if doubt is None else f"{doubt}; {label_kinds.REMEDY}"


def targets_of(labels: Labels) -> ClassTargets:
    """Targets of the classes that labels name (`classes_of`)."""
    return ClassTargets(classes_of(labels))


@dataclass(frozen=True)
class Classification:
    """Outputs are logits (n, classes), predictions probabilities (n, classes)."""

    spec: TaskSpec

    @property
    def allows_none(self) -> bool:
        """No: every image shows one of the classes."""
        return False

    @property
    def damage(self) -> tuple[str, ...]:
        """Those whose names tell."""
        return ()

    @property
    def noun(self) -> str:
        """`labels`."""
        return "labels"

    def threshold(self, given: float | None, damage: Sequence[str]) -> float:
        """A probability."""
        return by_class.threshold_of(self.spec, given, damage)

    def choice(self, damage: Sequence[str], threshold: float) -> str:
        """Which classes are damage, and which are not."""
        return by_class.choice_of(self.spec, damage, threshold)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Softmax over the classes."""
        logits = by_class.cooled(self.spec, outputs)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The most probable class, of those that are damage alone from the threshold on."""
        return [self.spec.classes[index] for index in self.decided(predictions)]

    def decided(self, predictions: np.ndarray) -> np.ndarray:
        """The index of each answer (n,) int64."""
        return by_class.decided(self.spec, predictions, predictions.argmax(1))

    def values(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray:
        """The predictions."""
        return predictions

    def mask(self, prediction: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """None: answers are of whole images."""
        return None

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Whether there is one logit for each class of each image."""
        return by_class.check_logits(outputs, count, len(self.spec.classes))

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Whether they are one row of probabilities for each image."""
        return by_class.check_distribution(predictions, (count, len(self.spec.classes)), TOLERANCE)

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no probability differs by more than `by_class.NEAR`."""
        return by_class.is_near(predictions, others)

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """The same label, or one whose wanted logit is within `tolerance` of the highest; with a
        threshold of those on the same side of it, where the probability of damage may lie within
        `tolerance` of it, too.
        """
        given = self.decided(self.decode(outputs))
        chosen = np.take_along_axis(wanted, given[:, None], 1)[:, 0]
        is_damage = np.isin(np.arange(wanted.shape[1]), self._damage_indices)  # (classes,)
        is_called = is_damage[given]
        rivals = wanted
        if self._damage_indices:
            rivals = np.where(is_damage[None] == is_called[:, None], wanted, -np.inf)
        is_on_side = by_class.is_on_side(self.spec, wanted, is_called, tolerance)
        return (rivals.max(1) - chosen <= tolerance) & is_on_side

    @property
    def _damage_indices(self) -> list[int]:
        """The classes that the threshold is for; none without one."""
        decision = self.spec.decision
        if decision is None or decision.threshold is None:
            return []
        return by_class.indices_of(self.spec.classes, decision.damage)

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """None: classes have no distance."""
        return {}

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """Whether the outputs are probabilities already: a second softmax would squeeze them."""
        squash = squash_of(outputs)
        if squash is None and is_share(outputs):
            squash = "sigmoid" if is_sigmoid(outputs, loud()) else None
        return None if squash is None else squash_warning(squash)

    def joined(self, batches: Iterable[np.ndarray], tiles: Tiles) -> np.ndarray:
        """The predictions of all tiles."""
        return np.concatenate(list(batches))

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """A tile is as damaged as its damage classes are probable together."""
        chosen = [self.spec.classes.index(label) for label in damage]
        values = predictions[:, chosen]  # (tiles, damage classes)
        sums = values.sum(1, dtype=np.float64).clip(0, 1).astype(np.float32)
        return by_class.findings_of(sums, values, tiles, damage, threshold)


def detection_of(spec: TaskSpec, damage: Sequence[str]) -> by_class.OneOfSeveral:
    """Damage by the probability of its classes together."""
    return by_class.OneOfSeveral(spec, tuple(damage), Classification(spec).decided)


DEFINITION = DeviceDefinition(
    NAME,
    METRICS,
    Classification,
    targets_of,
    doubt_of,
    detection=detection_of,
    balances=("sampler", "loss"),
    has_focal=True,
    rare_metrics=(BALANCED_ACCURACY.name, AT_ALARMS.at(0.05).name),
    families=FAMILIES,
    in_metadata="classify",
)
