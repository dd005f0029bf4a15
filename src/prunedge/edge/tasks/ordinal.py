"""One of several degrees for one image, in their order (none < light < severe); probabilities of
the degrees, from the conditional probabilities of going beyond each.

Output k is the logit of P(y > k | y >= k), the probability of going beyond degree k of an image
that reaches it (Shi, Cao and Raschka 2021, arXiv:2111.08851, CORN). P(y > k) is the product of
these up to k, by the chain rule, which can only fall with k: no answer contradicts itself, whatever
the outputs are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from prunedge.edge.probabilities import is_share, is_sigmoid, squash_warning
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
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.named_classes import NamedClasses
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.wording import counted, first_of

NAME = "ordinal"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("kappa"),
        Metric("degrees_off", higher_is_better=False, unit="degrees"),
        Metric("two_off", higher_is_better=False),
        Metric("accuracy", has_interval=True),
    )
}
TOLERANCE = 1e-3  # of a sum of probabilities
HALF = 0.5  # the median degree is the lowest that is exceeded with a smaller probability

LAYOUT = "give each image one degree: a number (0, 1, 2), or a name with the order of the names"


@dataclass(frozen=True)
class DegreeTargets(NamedClasses):
    """Targets are indices into `classes`, the degrees from the lowest up, and so are the strata."""

    @property
    def task(self) -> str:
        """`ordinal`."""
        return NAME

    @property
    def outputs(self) -> int:
        """One between each two degrees."""
        return len(self.classes) - 1

    @property
    def heading(self) -> str:
        """`degree`."""
        return "degree"

    @property
    def strata_names(self) -> tuple[str, ...]:
        """The degrees."""
        return self.classes

    def target(self, image: ListedImage) -> int:
        """The index of the image's degree."""
        return self._indices[image.label]

    def matched(self, labels: Labels) -> list[int | Unmatched]:
        """The index of each image's degree: by its name, or the number that it is."""
        indices = dict(self._indices)
        by_number = {}
        for name, index in indices.items():
            number = label_kinds.number_in(name)
            if number is not None:
                by_number[number] = index
        for label in {image.label for image in labels.images} - indices.keys():
            number = label_kinds.number_in(label)
            if number in by_number:
                indices[label] = by_number[number]
        return by_class.matched_names(labels, indices, "degree")

    def collate(self, targets: Sequence[int]) -> np.ndarray:
        """(n,) int64."""
        return by_class.collated(targets)

    def strata(self, targets: Sequence[int]) -> np.ndarray:
        """One-hot (n, degrees) int64."""
        return by_class.one_hot(targets, self.classes)

    def missing(self, targets: Sequence[int]) -> tuple[str, ...]:
        """The degrees without an image."""
        return by_class.absent(targets, self.classes)

    def scales_of(self, targets: Sequence[int]) -> tuple[Scale, ...]:
        """None: nothing is a number."""
        return ()

    def scaled(self, scales: Sequence[Scale]) -> DegreeTargets:
        """Itself."""
        return self

    def baseline(self, targets: Sequence[int]) -> str:
        """How many images the most frequent answer is right for."""
        return by_class.most_frequent(targets)

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Nothing: an order was given, or the labels are numbers."""
        return None

    @cached_property
    def _indices(self) -> dict[str, int]:
        return by_class.index_of_each(self.classes)


def degrees_of(labels: Labels) -> tuple[str, ...]:
    """The degrees from the lowest up: those of `labels.order`, or labels that are numbers.

    DataError where there is a single one, where an image has none, where the labels have no order
    or another one names them, or where they look like numbers to estimate.
    """
    if len(labels.columns) > 1:
        raise DataError(
            f"several numbers for each image ({labels.held})",
            where=labels.where,
            remedy="name the column of degrees label",
        )
    counts = Counter(image.label for image in labels.images if image.label)
    _refuse_empty(labels)
    if labels.order is not None:
        degrees = _ordered_by(labels.order, labels)
    else:
        degrees = _ordered_as_numbers(counts, labels)
    if len(counts) < 2:
        raise DataError(
            f"only one degree, '{degrees[0][:100]}'",
            where=labels.where,
            remedy=f"at least two are needed; {labels.layout}",
        )
    return degrees


def _refuse_empty(labels: Labels) -> None:
    without = [image.name for image in labels.images if not image.label]
    if not without:
        return
    more = f", {without[0]} first" if len(without) > 1 else f": {without[0]}"
    raise DataError(
        f"{counted(len(without), 'image')} without degree{more}",
        where=labels.where,
        remedy="give each image one degree, or leave it out",
    )


def _ordered_by(order: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """The order that the user gives. DataError where an image has a degree that it lacks."""
    for image in labels.images:
        if image.label not in order:
            raise DataError(
                f"'{image.label[:100]}' of {image.name} is none of the degrees {', '.join(order)}",
                where=labels.where,
                remedy=f"name it in {option('order')}, or mend the label",
            )
    return tuple(order)


def _ordered_as_numbers(counts: Mapping[str, int], labels: Labels) -> tuple[str, ...]:
    """The labels in the order of the numbers that they are; DataError where they are none."""
    numbers = {}
    for label in counts:
        number = label_kinds.number_in(label)
        if number is not None:
            numbers[label] = number
    others = [label for label in counts if label not in numbers]
    if others and numbers:
        first = next(image.name for image in labels.images if image.label == others[0])
        raise DataError(
            f"'{others[0][:100]}' of {first} is no number, as other degrees are",
            where=labels.where,
            remedy=f"mend it, or give the order of all degrees: {option('order', 'LOWEST,...')}",
        )
    if others:
        names = label_kinds.ordered(others)
        given = option("order", ",".join(names[:4]) + (",..." if len(names) > 4 else ""))
        raise DataError(
            f"the degrees {first_of(names)} have no order",
            where=labels.where,
            remedy=f"name them from the lowest up, in their own order: {given}",
        )
    degrees = tuple(sorted(counts, key=lambda label: numbers[label]))
    for lower, higher in pairwise(degrees):
        if numbers[lower] == numbers[higher]:
            raise DataError(
                f"'{lower}' and '{higher}' are the same degree",
                where=labels.where,
                remedy="write it in one way",
            )
    estimated = label_kinds.numbers_to_estimate(counts)
    if estimated:
        shown = label_kinds.listed(estimated, counts)
        raise DataError(
            f"these look like numbers to estimate, not degrees ({labels.held}): {shown}",
            where=labels.where,
            remedy=LAYOUT,
        )
    return degrees


def targets_of(labels: Labels) -> DegreeTargets:
    """Targets of the degrees that labels name (`degrees_of`)."""
    return DegreeTargets(degrees_of(labels))


@dataclass(frozen=True)
class Ordinal:
    """Outputs are logits (n, degrees - 1), predictions probabilities (n, degrees)."""

    spec: TaskSpec

    @property
    def allows_none(self) -> bool:
        """No: every image shows one of the degrees."""
        return False

    @property
    def damage(self) -> tuple[str, ...]:
        """All degrees but the lowest."""
        return self.spec.classes[1:]

    @property
    def noun(self) -> str:
        """`degrees`."""
        return "degrees"

    def threshold(self, given: float | None, damage: Sequence[str]) -> float:
        """A probability."""
        return by_class.threshold_of(self.spec, given, damage)

    def choice(self, damage: Sequence[str], threshold: float) -> str:
        """Which degrees are damage, and which are not."""
        return by_class.choice_of(self.spec, damage, threshold)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The probability of each degree: of reaching it, and of not going beyond."""
        logits = by_class.cooled(self.spec, outputs)
        beyond = _sigmoid(logits)
        reached = np.cumprod(np.pad(beyond, ((0, 0), (1, 0)), constant_values=1), 1)
        stays = np.pad(_sigmoid(-logits), ((0, 0), (0, 1)), constant_values=1)
        return reached * stays

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The median degree, of those that are damage alone from the threshold on."""
        return [self.spec.classes[index] for index in self.decided(predictions)]

    def decided(self, predictions: np.ndarray) -> np.ndarray:
        """The index of each answer (n,) int64."""
        return by_class.decided(self.spec, predictions, degrees_in(predictions))

    def values(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray:
        """The predictions."""
        return predictions

    def mask(self, prediction: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """None: answers are of whole images."""
        return None

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Whether there is one logit between each two degrees of each image."""
        if outputs.shape == (count, len(self.spec.classes) - 1):
            return None
        degrees = counted(len(self.spec.classes), "degree")
        return (
            f"the model gives {outputs.shape}, the manifest has {degrees}, and so one output less"
        )

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Whether they are one row of probabilities for each image."""
        return by_class.check_distribution(predictions, (count, len(self.spec.classes)), TOLERANCE)

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no probability differs by more than `by_class.NEAR`."""
        return by_class.is_near(predictions, others)

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """The same degree, or one that wanted logits give when all of them are moved by no more
        than `tolerance`: degrees rise with each logit.
        """
        given = self.decided(self.decode(outputs))
        lowest = self.decided(self.decode(wanted - tolerance))
        highest = self.decided(self.decode(wanted + tolerance))
        return (lowest <= given) & (given <= highest)

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """None: how many images get the same degree says it."""
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
        """A tile is as damaged as its damaged degrees are probable together; what it is called is
        the degree that it is given, or the most probable of the damaged ones where that is none.
        """
        chosen = [self.spec.classes.index(label) for label in damage]
        values = predictions[:, chosen]  # (tiles, damaged degrees)
        sums = values.sum(1, dtype=np.float64).clip(0, 1).astype(np.float32)
        is_given = self.decided(predictions)[:, None] == np.array(chosen)
        preferred = np.where(is_given, 2.0, values)  # above every probability
        return by_class.findings_of(sums, preferred, tiles, damage, threshold)


def degrees_in(probabilities: np.ndarray) -> np.ndarray:
    """The answer to each image, (n,) int64, from the probabilities of its degrees (n, degrees): the
    median, which is how many degrees are exceeded with a probability of more than a half (CORN's
    rank label).
    """
    exceeded = 1 - np.cumsum(probabilities[:, :-1], 1, dtype=np.float64)
    return (exceeded > HALF).sum(1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    # By the tangent, which is finite for the largest values, too.
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def detection_of(spec: TaskSpec, damage: Sequence[str]) -> by_class.OneOfSeveral:
    """Damage by the probability of its degrees together."""
    return by_class.OneOfSeveral(spec, tuple(damage), Ordinal(spec).decided)


DEFINITION = DeviceDefinition(
    NAME,
    METRICS,
    Ordinal,
    targets_of,
    detection=detection_of,
    has_order=True,
    reads_columns=True,
    balances=("sampler", "loss"),
    in_words="a model of degrees of {shown}",
)
