"""One number or several for one image, in their own units: a width, a share, a degree of wear.

A model answers by how many standard deviations of the training images a number lies above their
mean, which it learns best from; the bundle keeps both, so that predictions are in the user's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

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
from prunedge.errors import BundleError, DataError
from prunedge.utils.wording import figure

NAME = "regression"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("mae", higher_is_better=False, unit=""),
        Metric("rmse", higher_is_better=False, unit=""),
        Metric("r2"),
    )
}
VALUE = "value"  # what a number is called that has no column of its own
BINS = 4  # equal shares of the images, by the first number: what splits balance
SAME = 0.1  # deviations, by which two answers may differ and still be called the same
NEAR = by_class.NEAR  # deviations, between an image alone and among others

LAYOUT = (
    "give each image a number (3.2) in the column label or value, or several numbers in a column "
    "each"
)

Target = tuple[float, ...]


@dataclass(frozen=True)
class NumberTargets:
    """Targets are the numbers of an image, in the order of `classes`, which names them.

    Strata are ranges of the first number with about as many images each; `edges` are the highest
    numbers of all but the last.
    """

    classes: tuple[str, ...]
    edges: tuple[float, ...] = ()
    scales: tuple[Scale, ...] = ()

    @property
    def task(self) -> str:
        """`regression`."""
        return NAME

    @property
    def outputs(self) -> int:
        """One for each number."""
        return len(self.classes)

    @property
    def heading(self) -> str:
        """`range`."""
        return "range"

    @property
    def strata_names(self) -> tuple[str, ...]:
        """The ranges of the first number."""
        name = self.classes[0]
        if not self.edges:
            return (name,)
        edges = _apart(self.edges)
        between = [f"{low} < {name} <= {high}" for low, high in pairwise(edges)]
        return (f"{name} <= {edges[0]}", *between, f"{name} > {edges[-1]}")

    def target(self, image: ListedImage) -> Target:
        """The image's numbers."""
        numbers = numbers_in(image.label)
        assert numbers is not None  # `targets_of` has refused what is none
        return numbers

    def matched(self, labels: Labels) -> list[Target | Unmatched]:
        """The numbers of each image, by the names of their columns where these have names.
        DataError where a column is missing.
        """
        places = self._places(labels.columns, labels.where)
        matched: list[Target | Unmatched] = []
        for image in labels.images:
            parts = image.label.split(SEPARATOR)
            if places is None and len(parts) != len(self.classes):
                matched.append(Unmatched(f"{len(parts)} numbers"))
                continue
            chosen = parts if places is None else [parts[place] for place in places]
            numbers = numbers_in(SEPARATOR.join(chosen))
            wrong = next((part for part in chosen if numbers_in(part) is None), "")
            unmatched = Unmatched(f"'{wrong[:100]}', which is no finite number,")
            matched.append(unmatched if numbers is None else numbers)
        return matched

    def _places(self, columns: Sequence[str], where: str) -> list[int] | None:
        """Which of the columns each number stands in; None where one side has no names."""
        is_named = bool(columns) and tuple(columns) != (VALUE,) and self.classes != (VALUE,)
        if not is_named:
            return None
        missing = [name for name in self.classes if name not in columns]
        if missing:
            raise DataError(
                f"no column {missing[0]}, but {', '.join(columns)}",
                where=where,
                remedy=f"name the columns of numbers as the model does: {', '.join(self.classes)}",
            )
        return [list(columns).index(name) for name in self.classes]

    def collate(self, targets: Sequence[Target]) -> np.ndarray:
        """(n, numbers) float32, in their own units."""
        return np.array(targets, np.float32).reshape(len(targets), len(self.classes))

    def strata(self, targets: Sequence[Target]) -> np.ndarray:
        """One-hot (n, ranges) int64."""
        firsts = np.array([target[0] for target in targets], np.float64)
        ranges = np.searchsorted(np.array(self.edges), firsts, side="left")
        return np.eye(len(self.edges) + 1, dtype=np.int64)[ranges]

    def missing(self, targets: Sequence[Target]) -> tuple[str, ...]:
        """None where there is an image: a model also answers between the numbers that it has
        seen.
        """
        return () if targets else self.strata_names

    def scales_of(self, targets: Sequence[Target]) -> tuple[Scale, ...]:
        """Those of each number. DataError where one is the same in all of these images."""
        scales = []
        columns = np.array(targets, np.float64).reshape(len(targets), len(self.classes)).T
        for name, column in zip(self.classes, columns, strict=True):
            if column.min() == column.max():
                raise DataError(
                    f"the {name} of all training images is {column[0]:g}",
                    remedy="give training images whose numbers differ",
                )
            scale = Scale(
                mean=float(column.mean()),
                deviation=float(column.std()),
                median=float(np.median(column)),
                lowest=float(column.min()),
                highest=float(column.max()),
            )
            scales.append(scale)
        return tuple(scales)

    def scaled(self, scales: Sequence[Scale]) -> NumberTargets:
        """The same with the scales of these training images."""
        return replace(self, scales=tuple(scales))

    def baseline(self, targets: Sequence[Target]) -> str:
        """By how much the median of the training images is off."""
        medians = np.array([scale.median for scale in self.scales])
        off = np.abs(np.array(targets, np.float64) - medians).mean(0)
        pairs = zip(self.classes, medians, strict=True)
        answers = ", ".join(f"{name} {figure(median, 4)}" for name, median in pairs)
        mean_off = ", ".join(figure(each) for each in off)
        return (
            f"always answering the median of the training images ({answers}) is off by {mean_off} "
            "in the mean"
        )

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Nothing: numbers are numbers."""
        return None


def _apart(numbers: Sequence[float]) -> list[str]:
    """Different numbers with as few digits as tell them apart, four at least."""
    for digits in range(4, 17):
        # No commas within: several ranges are told with commas between them.
        texts = [figure(number, digits).replace(",", "") for number in numbers]
        if len(set(texts)) == len(texts):
            return texts
    return [repr(number) for number in numbers]


def numbers_in(label: str) -> Target | None:
    """The numbers that a label holds; None where one is none, or not finite."""
    numbers = []
    for part in label.split(SEPARATOR):
        number = label_kinds.number_in(part.strip())
        if number is None:
            return None
        numbers.append(number)
    return tuple(numbers)


def targets_of(labels: Labels) -> NumberTargets:
    """Targets of the numbers that labels hold.

    DataError where a label is no number, where images have another number of them, or where all
    have the same.
    """
    counts = set()
    different = set()
    firsts = []
    for image in labels.images:
        numbers = numbers_in(image.label)
        if numbers is None:
            raise _no_number(image, labels)
        counts.add(len(numbers))
        different.add(numbers)
        firsts.append(numbers[0])
        if len(counts) > 1:
            raise DataError(
                f"{image.name} has {len(numbers)} numbers, and others have another number of them",
                where=labels.where,
                remedy=f"give all images as many; {LAYOUT}",
            )
    if len(different) < 2:
        raise DataError(
            f"all images have the same number, '{labels.images[0].label[:100]}'",
            where=labels.where,
            remedy=f"give images that differ; {LAYOUT}",
        )
    return NumberTargets(_names(labels, counts.pop()), _edges(firsts))


def _no_number(image: ListedImage, labels: Labels) -> DataError:
    """Which part of an image's label is no number."""
    parts = [part.strip() for part in image.label.split(SEPARATOR)]
    place = next(i for i, part in enumerate(parts) if numbers_in(part) is None)
    held = f"column {labels.columns[place]}" if labels.columns else labels.held
    return DataError(
        f"'{parts[place][:100]}' of {image.name} is no finite number ({held})",
        where=labels.where,
        remedy=f"mend it, or leave the image out; {LAYOUT}",
    )


def _names(labels: Labels, count: int) -> tuple[str, ...]:
    """What the numbers are called: by their columns, where these say so."""
    if labels.columns:
        return labels.columns
    return (VALUE,) if count == 1 else tuple(f"{VALUE} {i + 1}" for i in range(count))


def _edges(numbers: Sequence[float]) -> tuple[float, ...]:
    """The highest number of each of at most `BINS` ranges but the last; images that are equal are
    in one.
    """
    ordered = np.sort(np.array(numbers, np.float64))
    last = [ordered[len(ordered) * part // BINS - 1] for part in range(1, BINS)]
    return tuple(sorted({float(edge) for edge in last if edge < ordered[-1]}))


def decoder_of(spec: TaskSpec) -> Regression:
    """The decoder of a bundle. BundleError where it has not the scale of each number."""
    if len(spec.scales) != len(spec.classes):
        raise BundleError(
            f"the manifest has {len(spec.scales)} scales for {len(spec.classes)} numbers",
            remedy="export the bundle again",
        )
    return Regression(spec)


@dataclass(frozen=True)
class Regression:
    """Outputs are deviations from the mean (n, numbers), predictions numbers in their own units
    (n, numbers), both float32.
    """

    spec: TaskSpec

    @property
    def allows_none(self) -> bool:
        """Yes: an image may be damaged in none of the numbers."""
        return True

    @property
    def damage(self) -> tuple[str, ...]:
        """The first number."""
        return self.spec.classes[:1]

    @property
    def noun(self) -> str:
        """`numbers`."""
        return "numbers"

    def threshold(self, given: float | None, damage: Sequence[str]) -> float:
        """A number in its own unit: the middle of those of the training images, unless given.
        DataError where several numbers are asked for, or it lies beyond all of them.
        """
        if len(damage) > 1:
            raise DataError(
                f"{', '.join(damage)} have no threshold in common",
                where="--damage",
                remedy="inspect by one number at a time",
            )
        scale = self._scale(damage[0])
        if given is None:
            return (scale.lowest + scale.highest) / 2
        if not scale.lowest < given <= scale.highest:
            lowest = figure(scale.lowest, 4)
            highest = figure(scale.highest, 4)
            raise DataError(
                f"{figure(given, 4)} lies outside of what the model learned of {damage[0]}",
                where="--threshold",
                remedy=f"give a number above {lowest} and at most {highest}",
            )
        return given

    def choice(self, damage: Sequence[str], threshold: float) -> str:
        """From which number on there is damage."""
        return f"damage: {damage[0]} of {figure(threshold, 4)} or more"

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The numbers in their own units."""
        return (outputs * self._deviations + self._means).astype(np.float32)

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The numbers, as labels list them."""
        return [SEPARATOR.join(f"{number:.6g}" for number in row) for row in predictions.tolist()]

    def values(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray:
        """The predictions."""
        return predictions

    def mask(self, prediction: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """None: answers are of whole images."""
        return None

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Whether there is an output for each number of each image."""
        if outputs.shape == (count, len(self.spec.classes)):
            return None
        return f"the model gives {outputs.shape}, the manifest has {len(self.spec.classes)} numbers"

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Whether they are finite numbers, as many as wanted."""
        wanted = (count, len(self.spec.classes))
        if predictions.shape != wanted:
            return f"answers of shape {predictions.shape}, wanted {wanted}"
        return None if np.isfinite(predictions).all() else "answers that are no numbers"

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether no number differs by more than `NEAR` deviations."""
        return not (np.abs(predictions - others) / self._deviations).max() > NEAR

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """All numbers within `SAME` deviations."""
        return (np.abs(outputs - wanted) <= max(SAME, tolerance)).all(1)

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """In the numbers' unit."""
        apart = np.abs(self.decode(outputs).astype(np.float64) - self.decode(wanted))
        return {"largest_difference": float(apart.max()), "mean_difference": float(apart.mean())}

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """Nothing: any number may be right."""
        return None

    def joined(self, batches: Iterable[np.ndarray], tiles: Tiles) -> np.ndarray:
        """The predictions of all tiles."""
        return np.concatenate(list(batches))

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """A tile is as damaged as its number is far from the lowest to the highest of the training
        images.
        """
        number = self.spec.classes.index(damage[0])
        scale = self.spec.scales[number]
        span = (scale.lowest, scale.highest)
        values = place_in(span, predictions[:, number]).clip(0, 1).astype(np.float32)
        # What is rounded shall not take the threshold's own number away.
        least = float(np.float32(place_in(span, np.array(threshold))))
        found = by_class.findings_of(values, values[:, None], tiles, damage[:1], least)
        means = predictions.mean(0, dtype=np.float64)
        numbers = dict(zip(self.spec.classes, means.tolist(), strict=True))
        return replace(found, span=span, numbers=numbers)

    def _scale(self, name: str) -> Scale:
        return self.spec.scales[self.spec.classes.index(name)]

    @property
    def _means(self) -> np.ndarray:
        return np.array([scale.mean for scale in self.spec.scales])

    @property
    def _deviations(self) -> np.ndarray:
        return np.array([scale.deviation for scale in self.spec.scales])


def place_in(span: tuple[float, float], numbers: np.ndarray) -> np.ndarray:
    """Where numbers lie in a span: 0 at its lowest, 1 at its highest."""
    lowest, highest = span
    return (numbers - lowest) / (highest - lowest)


DEFINITION = DeviceDefinition(
    NAME,
    METRICS,
    decoder_of,
    targets_of,
    reads_columns=True,
    in_words="a model that estimates numbers from {shown}",
    without_detection="inspect takes the number from which on there is damage as its threshold",
)
