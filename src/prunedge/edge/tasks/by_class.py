"""What tasks with a logit and a probability for each class have in common; numpy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunedge.edge.tasks.base import Findings, Labels, TaskSpec, Tiles, Unmatched
from prunedge.errors import DataError
from prunedge.utils.wording import probability

USUAL_THRESHOLD = 0.5  # from which probability on there is damage
NEAR = 0.05  # between an image alone and among others: quantised models may round by the batch


def check_logits(outputs: np.ndarray, count: int, classes: int) -> str | None:
    """Why these are not one logit for each class of each image, in words; None where they are."""
    if outputs.shape == (count, classes):
        return None
    return f"the model gives {outputs.shape}, the manifest has {classes} classes"


def check_distribution(
    predictions: np.ndarray, wanted: tuple[int, int], tolerance: float
) -> str | None:
    """Why these are not a row of probabilities for each image, of the shape that is `wanted`, in
    words; None where they are. Sums may differ from 1 by `tolerance`.
    """
    if predictions.shape != wanted:
        return f"answers of shape {predictions.shape}, wanted {wanted}"
    if not np.isfinite(predictions).all():
        return "answers that are no numbers"
    sums = predictions.sum(1)
    if predictions.min() < -tolerance or np.abs(sums - 1).max() > tolerance:
        return "answers that are no probabilities"
    return None


def is_near(predictions: np.ndarray, others: np.ndarray) -> bool:
    """Whether no probability differs by more than `NEAR`."""
    return not np.abs(predictions - others).max() > NEAR


def threshold_of(spec: TaskSpec, given: float | None, damage: Sequence[str]) -> float:
    """The probability from which on there is damage: the one that was chosen for just these classes
    where none is `given`, else the usual one. DataError where it is none.
    """
    if given is None:
        decision = spec.decision
        is_chosen = decision is not None and set(decision.damage) == set(damage)
        if decision is not None and decision.threshold is not None and is_chosen:
            return decision.threshold
        return USUAL_THRESHOLD
    if not 0 < given <= 1:
        raise DataError(
            f"a probability of {given:g}",
            where="--threshold",
            remedy="give one above 0 and at most 1",
        )
    return given


def cooled(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """Outputs divided by the temperature of the spec's decision."""
    if spec.decision is None or spec.decision.temperature == 1:
        return outputs
    return outputs / np.asarray(spec.decision.temperature, outputs.dtype)


def indices_of(classes: Sequence[str], named: Sequence[str]) -> list[int]:
    """The places of these classes among all."""
    return [classes.index(name) for name in named]


def sums_of(predictions: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """How probable the `chosen` classes are together, (n,) float64 from 0 to 1."""
    return predictions[:, chosen].sum(1, dtype=np.float64).clip(0, 1)


def decided(spec: TaskSpec, predictions: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The index of each image's answer (n,) int64: `usual` (n,), or with a threshold the answer on
    that side of it on which the image lies. That is the usual one where it lies there, else the
    most probable class of that side.
    """
    decision = spec.decision
    if decision is None or decision.threshold is None:
        return usual
    chosen = indices_of(spec.classes, decision.damage)
    is_damage = np.isin(np.arange(len(spec.classes)), chosen)  # (classes,)
    is_called = sums_of(predictions, chosen) >= decision.threshold
    is_there = is_damage[None] == is_called[:, None]  # (n, classes) those of the image's side
    surest = np.where(is_there, predictions, -1.0).argmax(1)
    return np.where(is_damage[usual] == is_called, usual, surest)


def is_on_side(
    spec: TaskSpec, outputs: np.ndarray, is_called: np.ndarray, tolerance: float
) -> np.ndarray:
    """Whether images with these logits (n, classes) lie on the side of the decision's threshold
    that `is_called` (n,) says, or within `tolerance` of it; (n,) bool. True without a threshold.
    """
    decision = spec.decision
    if decision is None or decision.threshold is None:
        return np.ones(len(outputs), bool)
    chosen = indices_of(spec.classes, decision.damage)
    others = np.setdiff1d(np.arange(len(spec.classes)), chosen)
    logits = outputs.astype(np.float64) / decision.temperature
    odds = np.logaddexp.reduce(logits[:, chosen], 1) - np.logaddexp.reduce(logits[:, others], 1)
    distance = odds - log_odds(decision.threshold)
    is_near_cut = np.abs(distance) <= tolerance / decision.temperature
    return ((distance >= 0) == is_called) | is_near_cut


def log_odds(probability: float) -> float:
    """The logit of a probability from 0 to 1."""
    with np.errstate(divide="ignore"):
        return float(np.log(probability) - np.log1p(-probability))


@dataclass(frozen=True)
class OneOfSeveral:
    """Detection where an image has one of several classes: there is damage where those that are
    damage are probable together. Targets are indices (n,). `answer` gives the index of each answer
    (n,) of predictions.
    """

    spec: TaskSpec
    damage: tuple[str, ...]
    answer: Callable[[np.ndarray], np.ndarray]
    unit: Literal["image"] = "image"

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """Of each image."""
        return sums_of(predictions, indices_of(self.spec.classes, self.damage))

    def is_damaged(self, targets: np.ndarray) -> np.ndarray:
        """Of each image."""
        return np.isin(targets, indices_of(self.spec.classes, self.damage))

    def likelihoods(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The probability of each image's class."""
        return predictions[np.arange(len(targets)), targets].astype(np.float64)

    def confusion(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """By the answers."""
        counts = np.zeros((len(self.spec.classes),) * 2, np.int64)
        np.add.at(counts, (targets, self.answer(predictions)), 1)
        return counts


def choice_of(spec: TaskSpec, damage: Sequence[str], threshold: float) -> str:
    """Which classes are damage, from which probability on and why, and which are not, in words."""
    sound = [name for name in spec.classes if name not in damage]
    text = f"damage: {', '.join(damage)}; sound: {', '.join(sound) or 'none of these'}"
    decision = spec.decision
    is_set = decision is not None and decision.threshold is not None
    if is_set and decision is not None and set(decision.damage) != set(damage):
        return (
            f"{text}; damage from a probability of {probability(threshold)} on: the bundle's "
            f"threshold is for {', '.join(decision.damage)}"
        )
    if threshold == USUAL_THRESHOLD:
        return text
    is_chosen = decision is not None and decision.threshold == threshold
    reason = f" ({decision.rule} on validation data)" if decision is not None and is_chosen else ""
    return f"{text}; damage from a probability of {probability(threshold)} on{reason}"


def index_of_each(classes: Sequence[str]) -> dict[str, int]:
    """The index of each class by its name."""
    return {name: index for index, name in enumerate(classes)}


def collated(targets: Sequence[int]) -> np.ndarray:
    """Indices of classes as (n,) int64."""
    return np.array(targets, np.int64)


def one_hot(targets: Sequence[int], classes: Sequence[str]) -> np.ndarray:
    """Indices of classes as (n, classes) int64."""
    return np.eye(len(classes), dtype=np.int64)[collated(targets)]


def absent(targets: Sequence[int], classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that none of these indices is of."""
    present = set(targets)
    return tuple(name for index, name in enumerate(classes) if index not in present)


def matched_names(labels: Labels, indices: Mapping[str, int], noun: str) -> list[int | Unmatched]:
    """The index of each image's one label by its name, which is a `noun` (class)."""
    matched: list[int | Unmatched] = []
    for image in labels.images:
        place = indices.get(image.label)
        if place is None:
            what = f"{noun} '{image.label[:100]}'" if image.label else f"no {noun}"
            matched.append(Unmatched(what))
        else:
            matched.append(place)
    return matched


def most_frequent(targets: Sequence[Hashable]) -> str:
    """How many of these images are right by always giving the label that most have, in words."""
    largest = max(Counter(targets).values())
    return f"always giving the most frequent answer is right for {largest / len(targets):.1%}"


def findings_of(
    scores: np.ndarray,
    values: np.ndarray,
    tiles: Tiles,
    damage: Sequence[str],
    threshold: float,
) -> Findings:
    """What tiles tell of damage, each with the probability in `scores` (tiles,) float32; its label
    is the surest of the `damage` classes, by their probabilities `values` (tiles, damage classes).
    """
    labels = values.argmax(1)
    by_tile = scores.reshape(tiles.shape)
    mean, surest = tiles.maps(by_tile, threshold)
    return Findings(
        mean=mean,
        peak=scores[surest],
        labels=labels[surest],
        names=tuple(damage),
        is_damaged=tiles.damaged(by_tile, mean, threshold),
        surest=float(scores.max()),
        tiles=int((scores >= threshold).sum()),
    )
