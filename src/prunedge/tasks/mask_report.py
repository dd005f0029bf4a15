"""What a report shows of masks: how well each class is found, and where a mask fits worse. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunedge.tasks.base import Example, Table
from prunedge.tasks.mask_figures import OF_PARTS

LESS = 0.05  # of its IoU that an image has to lose to be shown
COLUMNS = ("IoU", "Dice", "precision", "recall", "share of the pixels")


def table_of(classes: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Table:
    """Each class, by its record: how well its pixels are found, and how many of all there are."""
    rows = []
    total = max(1, sum(record["pixels"] for record in records))
    for name, record in zip(classes, records, strict=True):
        cells = [_percent(record[metric]) for metric in OF_PARTS]
        rows.append((name, *cells, _percent(record["pixels"] / total)))
    return Table("class", COLUMNS, tuple(rows))


def examples_of(
    classes: Sequence[str], damage: Sequence[int], before: np.ndarray, after: np.ndarray
) -> list[Example]:
    """Images whose damage the second model finds with less IoU than the first, by more than `LESS`,
    the worst first; by both models' counts (n, classes, 3).
    """
    was = _iou_by_image(before, damage)
    now = _iou_by_image(after, damage)
    lost = was - now

    examples = []
    for index in np.argsort(-lost, kind="stable").tolist():
        if lost[index] <= LESS:
            break
        example = Example(
            index=index,
            truth=_shares(classes, damage, after[index, :, 0]),
            before=f"IoU {was[index]:.0%}",
            after=f"IoU {now[index]:.0%}",
        )
        examples.append(example)
    return examples


def _iou_by_image(counts: np.ndarray, damage: Sequence[int]) -> np.ndarray:
    """The IoU of all damage of each image (n,); 1 where there is none and none was answered."""
    there, answered, both = counts[:, list(damage)].sum(1).T
    union = there + answered - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _shares(classes: Sequence[str], damage: Sequence[int], pixels: np.ndarray) -> str:
    """Which damage is on what share of an image's pixels."""
    total = max(1, int(pixels.sum()))
    there = [number for number in damage if pixels[number]]
    shares = [f"{classes[number]} {pixels[number] / total:.1%}" for number in there]
    return ", ".join(shares) or "no damage"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
