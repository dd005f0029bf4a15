"""What masks and answers have in common: counts of each image's pixels and centrelines, which
metrics are made from. Pure.
"""

from __future__ import annotations

import numpy as np
import torch

from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.tasks import centrelines
from prunedge.tasks import figures as of

OF_LINES = ("cliou", "cldice")


def pixel_counts(masks: torch.Tensor, answer: torch.Tensor, classes: int) -> torch.Tensor:
    """(n, classes, 3) int64: the pixels of each class that are there, answered, and both."""
    n = len(masks)
    counting = masks != IGNORE
    images = torch.arange(n, device=masks.device)[:, None, None].expand_as(masks)
    cells = (images * classes + masks) * classes + answer
    counted = torch.bincount(cells[counting], minlength=n * classes * classes)
    confusion = counted.reshape(n, classes, classes)  # (n, true, answered)
    both = confusion.diagonal(dim1=1, dim2=2)
    return torch.stack((confusion.sum(2), confusion.sum(1), both), dim=2)


def line_counts(truth: torch.Tensor, answer: torch.Tensor, counting: torch.Tensor) -> torch.Tensor:
    """What the centrelines of masks (n, height, width) bool have in common, among the pixels that
    count: (n, 6) int64, by `centrelines.COUNTS`.
    """
    wanted = truth.cpu().numpy()
    found = (answer & counting).cpu().numpy()
    counts = [centrelines.counts_of(*pair) for pair in zip(wanted, found, strict=True)]
    return torch.from_numpy(np.stack(counts))


def class_values(
    weights: np.ndarray, there: np.ndarray, answered: np.ndarray, both: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics (rows,) of a class by its pixels of each image (n,): NaN where none is there, and
    precision 0 where none was answered.
    """
    shown = weights @ there.astype(np.float64)
    told = weights @ answered.astype(np.float64)
    found = weights @ both.astype(np.float64)
    is_there = shown > 0
    values = {
        "iou": of.ratio(found, shown + told - found),
        "dice": of.ratio(2 * found, shown + told),
        "precision": np.nan_to_num(of.ratio(found, told)),
        "recall": of.ratio(found, shown),
    }
    return {name: np.where(is_there, value, np.nan) for name, value in values.items()}


def line_values(weights: np.ndarray, lines: np.ndarray) -> dict[str, np.ndarray]:
    """clIoU and clDice (rows,) of what centrelines have in common; NaN where there is none, or
    nothing draws them.
    """
    if not lines.shape[1]:
        return dict.fromkeys(OF_LINES, np.full(len(weights), np.nan))
    sums = dict(zip(centrelines.COUNTS, (weights @ lines.astype(np.float64)).T, strict=True))
    precision = np.nan_to_num(of.ratio(sums["answered_inside"], sums["answered"]))
    recall = of.ratio(sums["true_inside"], sums["true"])
    dice = np.nan_to_num(of.ratio(2 * precision * recall, precision + recall))
    return {
        "cliou": np.where(
            sums["true"] > 0, of.ratio(sums["found"], sums["true"] + sums["false"]), np.nan
        ),
        "cldice": np.where(sums["true"] > 0, dice, np.nan),
    }


def values_by_image(
    there: np.ndarray, answered: np.ndarray, both: np.ndarray
) -> dict[str, np.ndarray]:
    """IoU and Dice (n,) of a class by its pixels of each image (n,): 1 where it is not there and
    was not answered.
    """
    total = there + answered
    return {
        "iou": np.nan_to_num(of.ratio(both, total - both), nan=1.0),
        "dice": np.nan_to_num(of.ratio(2 * both, total), nan=1.0),
    }


def lines_by_image(lines: np.ndarray) -> dict[str, np.ndarray]:
    """clIoU and clDice (n,) of what the centrelines of each image have in common: 1 where there is
    none of either.
    """
    counts = dict(zip(centrelines.COUNTS, lines.T.astype(np.float64), strict=True))
    precision = np.nan_to_num(of.ratio(counts["answered_inside"], counts["answered"]))
    recall = np.nan_to_num(of.ratio(counts["true_inside"], counts["true"]))
    dice = np.nan_to_num(of.ratio(2 * precision * recall, precision + recall))
    is_empty = (counts["true"] == 0) & (counts["answered"] == 0)
    return {
        "cliou": np.nan_to_num(
            of.ratio(counts["found"], counts["true"] + counts["false"]), nan=1.0
        ),
        "cldice": np.where(is_empty, 1.0, dice),
    }
