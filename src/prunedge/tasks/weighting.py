"""What counts more in a training's loss: rare classes, and images that are hard.

Class weights are in inverse proportion to the images of a class, as in scikit-learn's `balanced`.
The focal loss is that of Lin et al. 2017 (arXiv:1708.02002, eq. 4, and with class weights eq. 5).
torchvision's `sigmoid_focal_loss` is the same for independent labels, but its gradient is NaN where
an answer is certain and gamma below 1, and it has no form for classes that exclude each other.

Both are factors of each image's loss, whose plain mean over the images is then taken: several
processes add up their parts of a batch, which a division by the weights' sum would not allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

# One rare image in a batch would otherwise decide the step alone, and the gradient's norm is cut.
MOST = 20.0


@dataclass(frozen=True)
class LossWeighting:
    """What a loss counts more: `weights` (classes,) or (2, classes) float32, as the task's
    `loss_weights` gives them, None for equal ones; `focal` is gamma, 0 for none. `loss` is the form
    that is asked for of a task that has several (`DeviceDefinition.losses`), None for its usual
    one; `along` says how far the training is, from 0 to 1.
    """

    weights: torch.Tensor | None = None
    focal: float = 0.0
    loss: str | None = None
    along: float = 1.0


def class_weights(counts: np.ndarray) -> torch.Tensor:
    """The weight of an image of each class (classes,) float32, where `counts` (classes,) are the
    training images of each: n / (classes * counts).

    None is over `MOST` times the commonest class's, for which a rarer class counts as if it had
    more images. The mean over the training images is 1, so that the learning rate keeps its
    meaning.
    """
    images = counts.astype(np.float64)
    if not images.sum():
        return torch.ones(len(counts))
    weights = 1 / np.maximum(images, images.max() / MOST)
    return torch.from_numpy(weights * images.sum() / (weights @ images)).float()


def label_weights(counts: np.ndarray, images: int) -> torch.Tensor:
    """The weights (2, classes) float32 of images without each label and of those with it, where
    `counts` (classes,) of so many images have it: for each label those of `class_weights`.
    """
    pairs = [class_weights(np.array([images - count, count])) for count in counts]
    return torch.stack(pairs, 1)


def focal_factor(losses: torch.Tensor, gamma: float) -> torch.Tensor:
    """(1 - p) ** gamma, where `losses` are -log p of the right answers."""
    missing = -torch.expm1(-losses)  # 1 - p, exact for p near 1
    # The derivative of a power below 1 is infinite at 0.
    return missing.clamp_min(torch.finfo(missing.dtype).tiny ** 0.5) ** gamma


def weighted_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weighting: LossWeighting,
    *,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """The mean over the images of cross-entropy times the weight of the image's class times the
    focal factor. `logits` (n, classes) floats, `labels` (n,) int64.
    """
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    if weighting.focal:
        plain = F.cross_entropy(logits, labels, reduction="none")
        losses = losses * focal_factor(plain, weighting.focal)
    if weighting.weights is not None:
        losses = losses * weighting.weights.to(losses)[labels]
    return losses.mean()


def weighted_binary_cross_entropy(
    logits: torch.Tensor, wanted: torch.Tensor, weighting: LossWeighting
) -> torch.Tensor:
    """The mean over images and labels of binary cross-entropy times the weight of having or lacking
    the label (`pos_weight`, with a weight for both) times the focal factor. `logits` and `wanted`
    (n, classes) floats, the latter from 0 to 1.
    """
    weights = None
    pos_weight = None
    if weighting.weights is not None:
        without, having = weighting.weights.to(logits)
        weights = without
        pos_weight = having / without
    losses = F.binary_cross_entropy_with_logits(
        logits, wanted, weight=weights, pos_weight=pos_weight, reduction="none"
    )
    if weighting.focal:
        answers = torch.where(wanted > 0.5, logits, -logits)
        losses = losses * focal_factor(F.softplus(-answers), weighting.focal)
    return losses.mean()
