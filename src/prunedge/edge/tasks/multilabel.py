"""Several labels for one image, or none: whether each class is there; probabilities by a sigmoid,
each decided by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from prunedge.edge.probabilities import TOLERANCE, is_share, is_sigmoid, squash_warning
from prunedge.edge.tasks import by_class, label_kinds
from prunedge.edge.tasks.base import (
    SEPARATOR,
    DeviceDefinition,
    Findings,
    Labels,
    ListedImage,
    Scale,
    TaskSpec,
    Tiles,
    Unmatched,
)
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.named_classes import NamedClasses
from prunedge.errors import DataError

NAME = "multilabel"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("map", is_macro=True),
        Metric("f1", is_macro=True),
        Metric("exact", has_interval=True),
    )
}
THRESHOLD = 0.5  # from which probability on a class is there, unless a decision says another

LAYOUT = (
    f"list several labels of an image with {SEPARATOR} between them (crack{SEPARATOR}rust), or in "
    "a column of 0 and 1 for each class; an empty label is an image without any"
)

Target = tuple[int, ...]


@dataclass(frozen=True)
class LabelTargets(NamedClasses):
    """Targets are the indices into `classes` of those that an image shows, in ascending order;
    each class is a stratum.
    """

    @property
    def task(self) -> str:
        """`multilabel`."""
        return NAME

    def target(self, image: ListedImage) -> Target:
        """The indices of the image's classes."""
        return tuple(sorted(self._indices[name] for name in labels_in(image.label)))

    def matched(self, labels: Labels) -> list[Target | Unmatched]:
        """The indices of the classes of each image that shows no other class."""
        matched: list[Target | Unmatched] = []
        for image in labels.images:
            others = sorted(labels_in(image.label) - self._indices.keys())
            if others:
                matched.append(Unmatched(f"class '{others[0][:100]}'"))
            else:
                matched.append(self.target(image))
        return matched

    def collate(self, targets: Sequence[Target]) -> np.ndarray:
        """(n, classes) float32 of 0 and 1."""
        batch = np.zeros((len(targets), len(self.classes)), np.float32)
        for row, target in zip(batch, targets, strict=True):
            row[list(target)] = 1
        return batch

    def strata(self, targets: Sequence[Target]) -> np.ndarray:
        """The same as (n, classes) int64."""
        return self.collate(targets).astype(np.int64)

    def missing(self, targets: Sequence[Target]) -> tuple[str, ...]:
        """The classes that no image shows."""
        present = {index for target in targets for index in target}
        return tuple(name for index, name in enumerate(self.classes) if index not in present)

    def scales_of(self, targets: Sequence[Target]) -> tuple[Scale, ...]:
        """None: nothing is a number."""
        return ()

    def scaled(self, scales: Sequence[Scale]) -> LabelTargets:
        """Itself."""
        return self

    def baseline(self, targets: Sequence[Target]) -> str:
        """How many images the most frequent answer is right for."""
        return by_class.most_frequent(targets)

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Whether the classes look like lists with another separator, or like numbers."""
        doubt = label_kinds.doubt(counts)
        return None if doubt is None else f"{doubt}; {LAYOUT}"

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}


def labels_in(text: str) -> frozenset[str]:
    """The labels of an image, from the text that lists them."""
    parts = (part.strip() for part in text.split(SEPARATOR))
    return frozenset(part for part in parts if part)


def classes_of(labels: Labels) -> tuple[str, ...]:
    """The classes that labels name, sorted.

    DataError where all images are labelled alike, or where the labels look like lists with another
    separator or like numbers to estimate.
    """
    times = Counter(labels_in(image.label) for image in labels.images)
    counts: Counter[str] = Counter()
    for names, count in times.items():
        counts.update(dict.fromkeys(names, count))

    if len(times) < 2:
        named = f"labelled '{SEPARATOR.join(sorted(counts))[:100]}'" if counts else "without label"
        raise DataError(
            f"all images are {named}",
            where=labels.where,
            remedy=f"give images that differ: {LAYOUT}",
        )
    refusal = label_kinds.refusal(counts, labels.held)
    if refusal is not None:
        raise DataError(refusal, where=labels.where, remedy=LAYOUT)
    return label_kinds.ordered(counts)


def targets_of(labels: Labels) -> LabelTargets:
    """Targets of the classes that labels name (`classes_of`)."""
    return LabelTargets(classes_of(labels))


def thresholds_of(spec: TaskSpec) -> np.ndarray:
    """(classes,) float64: from which probability on each class is there."""
    thresholds = np.full(len(spec.classes), THRESHOLD)
    decision = spec.decision
    if decision is not None and decision.threshold is not None:
        thresholds[by_class.indices_of(spec.classes, decision.damage)] = decision.threshold
    return thresholds


@dataclass(frozen=True)
class Multilabel:
    """Outputs are logits (n, classes), predictions probabilities (n, classes), each of its own."""

    spec: TaskSpec

    @property
    def allows_none(self) -> bool:
        """Yes: an image may show none of the classes."""
        return True

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
        """A sigmoid for each class."""
        # By the tangent, which is finite for the largest outputs, too.
        return 0.5 + 0.5 * np.tanh(0.5 * by_class.cooled(self.spec, outputs))

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The classes that are there, as labels list them; empty where none is."""
        names = np.array(self.spec.classes)
        is_there = predictions >= thresholds_of(self.spec)
        return [SEPARATOR.join(names[row]) for row in is_there]

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
        """Whether they are a probability for each class of each image."""
        wanted = (count, len(self.spec.classes))
        if predictions.shape != wanted:
            return f"answers of shape {predictions.shape}, wanted {wanted}"
        if not np.isfinite(predictions).all():
            return "answers that are no numbers"
        if predictions.min() < -TOLERANCE or predictions.max() > 1 + TOLERANCE:
            return "answers that are no probabilities"
        return None

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no probability differs by more than `by_class.NEAR`."""
        return by_class.is_near(predictions, others)

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """The same labels, but for classes whose wanted logit is within `tolerance` of the
        threshold.
        """
        temperature = 1.0 if self.spec.decision is None else self.spec.decision.temperature
        cuts = temperature * np.array([by_class.log_odds(p) for p in thresholds_of(self.spec)])
        is_same = (outputs >= cuts) == (wanted >= cuts)
        return (is_same | (np.abs(wanted - cuts) <= tolerance)).all(1)

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """None: classes have no distance."""
        return {}

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """Whether the outputs are probabilities already: a second sigmoid would squeeze them."""
        if is_share(outputs) and is_sigmoid(outputs, loud()):
            return squash_warning("sigmoid")
        return None

    def joined(self, batches: Iterable[np.ndarray], tiles: Tiles) -> np.ndarray:
        """The predictions of all tiles."""
        return np.concatenate(list(batches))

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """A tile is as damaged as its most probable damage class is probable."""
        chosen = [self.spec.classes.index(label) for label in damage]
        values = predictions[:, chosen]  # (tiles, damage classes)
        highest = values.max(1).astype(np.float32)
        return by_class.findings_of(highest, values, tiles, damage, threshold)


@dataclass(frozen=True)
class EachByItself:
    """Detection of each of the `damage` classes in each image; what is decided are all these,
    image by image. Targets are (n, classes) of 0 and 1.
    """

    spec: TaskSpec
    damage: tuple[str, ...]
    unit: Literal["label"] = "label"

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """The probability of each class."""
        return self._of_damage(predictions).astype(np.float64)

    def is_damaged(self, targets: np.ndarray) -> np.ndarray:
        """Whether each class is there."""
        return self._of_damage(targets) > 0

    def likelihoods(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The probability that each class is there, or that it is not."""
        there = predictions.astype(np.float64)
        return np.where(targets > 0, there, 1 - there).ravel()

    def confusion(self, predictions: np.ndarray, targets: np.ndarray) -> None:
        """None: no class excludes another."""

    def _of_damage(self, values: np.ndarray) -> np.ndarray:
        return values[:, by_class.indices_of(self.spec.classes, self.damage)].ravel()


def detection_of(spec: TaskSpec, damage: Sequence[str]) -> EachByItself:
    """Damage by the probability of each of its classes."""
    return EachByItself(spec, tuple(damage))


# An image that shows several classes can't be drawn for one of them alone: the loss it is.
DEFINITION = DeviceDefinition(
    NAME,
    METRICS,
    Multilabel,
    targets_of,
    has_several=True,
    detection=detection_of,
    balances=("loss",),
    has_focal=True,
    in_words="a classifier with several labels of {shown}",
)
