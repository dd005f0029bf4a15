"""What tasks with a logit and a probability for each class have in common; numpy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from prunedge.edge.tasks.base import Findings, Labels, Tiles, Unmatched
from prunedge.errors import DataError

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


def threshold_of(given: float | None) -> float:
    """The probability from which on there is damage; DataError where it is none."""
    if given is None:
        return USUAL_THRESHOLD
    if not 0 < given <= 1:
        raise DataError(
            f"a probability of {given:g}",
            where="--threshold",
            remedy="give one above 0 and at most 1",
        )
    return given


def choice_of(classes: Sequence[str], damage: Sequence[str]) -> str:
    """Which classes are damage, and which are not, in words."""
    sound = [name for name in classes if name not in damage]
    return f"damage: {', '.join(damage)}; sound: {', '.join(sound) or 'none of these'}"


def indices_of(classes: Sequence[str]) -> dict[str, int]:
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
    labels = np.asarray(damage)[values.argmax(1)]
    by_tile = scores.reshape(tiles.shape)
    mean, surest = tiles.maps(by_tile, threshold)
    return Findings(
        mean=mean,
        peak=scores[surest],
        labels=labels[surest],
        is_damaged=tiles.damaged(by_tile, mean, threshold),
        surest=float(scores.max()),
        tiles=int((scores >= threshold).sum()),
    )
