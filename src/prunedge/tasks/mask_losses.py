"""What a model of pixels learns by: cross-entropy plus one of several losses of whole areas, each
of one image by itself. Pure.

All are 0 where an answer is perfect, and leave pixels that are `IGNORE` out. Libraries have some of
them over a whole batch; the mean over images is what ranking scales by, and what several processes
can add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.tasks.soft_skeleton import soft_skeleton
from prunedge.tasks.weighting import LossWeighting, focal_factor

SMOOTH = 1.0  # pixels that losses of areas add, so that an image without the class has one as well
# Of false alarms and of misses: the best of those that Salehi et al. 2017 tried.
TVERSKY = (0.3, 0.7)
# Of the boundary loss, from a training's first step to its last: Kervadec et al. 2019 begin with a
# hundredth, and let it grow by as much in each of a hundred epochs.
BOUNDARY = (0.01, 1.0)
CENTRELINE = 0.5  # of clDice, the rest being Dice: the share up to which Shit et al. 2021 go

PLAIN = LossWeighting()


@dataclass(frozen=True)
class Areas:
    """What losses of areas read, for all classes but the first: the probabilities and the truth (n,
    classes - 1, height, width), both 0 where nothing counts, and which pixels count (n, height,
    width) bool.
    """

    probable: torch.Tensor
    truth: torch.Tensor
    counts: torch.Tensor


def losses(
    logits: torch.Tensor,
    masks: torch.Tensor,
    label_smoothing: float,
    weighting: LossWeighting = PLAIN,
) -> torch.Tensor:
    """The loss of each image (n,), of logits (n, classes, height, width) and masks (n, height,
    width) int64: cross-entropy plus the loss of areas that `weighting.loss` names, Dice unless it
    names one.

    Cross-entropy is the mean over the pixels that count, each times (1 - p) ** `weighting.focal`,
    where p is the probability of its class.
    """
    counts = masks != IGNORE  # (n, height, width)
    entropy = F.cross_entropy(
        logits, masks, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="none"
    )
    if weighting.focal:
        plain = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none")
        entropy = entropy * focal_factor(plain, weighting.focal)
    entropy = entropy.sum((1, 2)) / counts.sum((1, 2)).clamp_min(1)

    truth = F.one_hot(torch.where(counts, masks, 0), logits.shape[1]).movedim(-1, 1)
    areas = Areas(
        probable=(logits.softmax(1) * counts[:, None])[:, 1:],
        truth=(truth * counts[:, None])[:, 1:].to(logits.dtype),
        counts=counts,
    )
    return entropy + OF_AREAS[weighting.loss or "dice"](areas, weighting.along)


def dice(areas: Areas, along: float = 1.0) -> torch.Tensor:
    """1 - (2 |p t| + s) / (|p| + |t| + s) of the probabilities p and the truth t, the mean over the
    classes but the first (n,), with s = `SMOOTH` (Milletari et al. 2016).
    """
    return _tversky(areas, 0.5, 0.5)


def tversky(areas: Areas, along: float = 1.0) -> torch.Tensor:
    """1 - |p t| / (|p t| + alpha |p (1 - t)| + beta |(1 - p) t|), where misses count more than
    false alarms by `TVERSKY` = (alpha, beta), the mean over the classes but the first (n,) (Salehi
    et al. 2017, arXiv:1706.05721). With a half for both it is `dice`.
    """
    return _tversky(areas, *TVERSKY)


def boundary(areas: Areas, along: float = 1.0) -> torch.Tensor:
    """Dice plus a growing weight (`BOUNDARY`) times the boundary loss, the mean over the pixels
    that count of phi (p - t), where phi is a pixel's distance in pixels from the edge of the truth,
    negative inside; the mean over the classes but the first (n,) (Kervadec et al. 2019,
    arXiv:1812.07032).

    The paper leaves phi t out, which no weight changes; with it a perfect answer has 0. A class
    that an image doesn't show has no edge: Dice alone speaks there.
    """
    first, last = BOUNDARY
    weight = first + (last - first) * along
    distances = _distances(areas.truth, areas.counts)
    off = (distances * (areas.probable - areas.truth)).sum((2, 3))  # (n, classes - 1)
    pixels = areas.counts.sum((1, 2)).clamp_min(1)
    return dice(areas) + weight * off.mean(1) / pixels


def cldice(areas: Areas, along: float = 1.0) -> torch.Tensor:
    """Dice and clDice, half of each (`CENTRELINE`), where clDice is 1 - 2 a b / (a + b) of the
    share a of the answer's centreline that lies in the truth, and the share b of the truth's that
    lies in the answer; the mean over the classes but the first (n,) (Shit et al. 2021,
    arXiv:2003.07311). Centrelines are those of `soft_skeleton`.
    """
    answered = soft_skeleton(areas.probable)
    true = soft_skeleton(areas.truth)
    inside = ((answered * areas.truth).sum((2, 3)) + SMOOTH) / (answered.sum((2, 3)) + SMOOTH)
    found = ((true * areas.probable).sum((2, 3)) + SMOOTH) / (true.sum((2, 3)) + SMOOTH)
    of_lines = 1 - 2 * inside * found / (inside + found)
    return (1 - CENTRELINE) * dice(areas) + CENTRELINE * of_lines.mean(1)


# By their names as a setting; `prunedge.edge.tasks.segmentation` lists the same.
OF_AREAS: dict[str, Callable[[Areas, float], torch.Tensor]] = {
    "dice": dice,
    "tversky": tversky,
    "boundary": boundary,
    "cldice": cldice,
}


def uninformed_loss(pixels: np.ndarray) -> float:
    """Cross-entropy plus Dice of equal scores everywhere, by the pixels of each class of each image
    (n, classes).
    """
    classes = pixels.shape[1]
    total = pixels.sum(1, keepdims=True) / classes
    there = pixels[:, 1:]
    score = (2 * there / classes + SMOOTH) / (total + there + SMOOTH)
    entropy = np.where(pixels.sum(1) > 0, math.log(classes), 0.0)
    return float((entropy + (1 - score).mean(1)).mean())


def _tversky(areas: Areas, alpha: float, beta: float) -> torch.Tensor:
    """The Tversky loss of each image (n,), with half of `SMOOTH` so that a half of both is Dice."""
    both = (areas.probable * areas.truth).sum((2, 3))  # (n, classes - 1)
    alarms = areas.probable.sum((2, 3)) - both
    misses = areas.truth.sum((2, 3)) - both
    smooth = SMOOTH / 2
    score = (both + smooth) / (both + alpha * alarms + beta * misses + smooth)
    return (1 - score).mean(1)


def _distances(truth: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The signed distance in pixels of each pixel from the edge of each class, in `truth`'s shape
    and type, negative inside.

    The edge lies between two pixels, so that those beside it are half a pixel off: thin damage is
    all edge, and would count nothing. Where nothing counts, and for a class that fills or misses an
    image, it is 0.
    """
    from scipy.ndimage import distance_transform_edt

    is_there = truth.detach().cpu().numpy() > 0
    is_known = counts.cpu().numpy()
    maps = np.zeros(truth.shape, np.float32)
    for image, number in np.argwhere(is_there.any((2, 3))):
        inside = is_there[image, number]
        outside = is_known[image] & ~inside
        if outside.any():
            away = distance_transform_edt(~inside) - 0.5
            deep = distance_transform_edt(~outside) - 0.5
            maps[image, number] = np.where(outside, away, 0.0) - np.where(inside, deep, 0.0)
    return torch.from_numpy(maps).to(truth)
