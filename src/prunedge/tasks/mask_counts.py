"""What masks and answers have in common: the loss of each image, and counts of its pixels, which
metrics are made from. Pure.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from prunedge.edge.tasks.segmentation import IGNORE
from prunedge.tasks import centrelines
from prunedge.tasks import figures as of
from prunedge.tasks.weighting import focal_factor

SMOOTH = 1.0  # pixels that the Dice loss adds, so that an image without the class has one as well
OF_LINES = ("cliou", "cldice")


def losses(
    logits: torch.Tensor, masks: torch.Tensor, label_smoothing: float, focal: float = 0.0
) -> torch.Tensor:
    """Cross-entropy plus Dice of each image (n,), of logits (n, classes, height, width) and masks
    (n, height, width) int64.

    Cross-entropy is the mean over the pixels that count, each times (1 - p) ** `focal`, where p is
    the probability of its class. Dice is 1 - (2 |p t| + s) / (|p| + |t| +
    s) of the probabilities p and the truth t, the mean over the classes but the first (Milletari et
    al. 2016), with s = `SMOOTH`.
    """
    counts = masks != IGNORE  # (n, height, width)
    entropy = F.cross_entropy(
        logits, masks, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="none"
    )
    if focal:
        plain = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
        entropy = entropy * focal_factor(plain, focal)
    entropy = entropy.sum((1, 2)) / counts.sum((1, 2)).clamp_min(1)

    truth = F.one_hot(torch.where(counts, masks, 0), logits.shape[1]).movedim(-1, 1)
    truth = (truth * counts[:, None])[:, 1:].to(logits.dtype)
    probable = (logits.softmax(1) * counts[:, None])[:, 1:]
    both = (probable * truth).sum((2, 3))  # (n, classes - 1)
    sizes = probable.sum((2, 3)) + truth.sum((2, 3))
    dice = (2 * both + SMOOTH) / (sizes + SMOOTH)
    return entropy + (1 - dice).mean(1)


def uninformed_loss(pixels: np.ndarray) -> float:
    """The loss of equal scores everywhere, by the pixels of each class of each image (n,
    classes).
    """
    classes = pixels.shape[1]
    total = pixels.sum(1, keepdims=True) / classes
    there = pixels[:, 1:]
    dice = (2 * there / classes + SMOOTH) / (total + there + SMOOTH)
    entropy = np.where(pixels.sum(1) > 0, math.log(classes), 0.0)
    return float((entropy + (1 - dice).mean(1)).mean())


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
    count.
    """
    if not centrelines.can_draw():
        return torch.zeros(len(truth), 0, dtype=torch.int64)
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
