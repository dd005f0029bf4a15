"""The knobs of one training, and the schedule that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from prunedge.data.transforms import Augment
from prunedge.errors import TrainError
from prunedge.train.evaluate import METRICS

# Each learned solar cells (elpv-dataset, 32 to 64 px, 2 to 5 epochs, one seed); too little was tried to call them best.
LR_FINE_TUNE = 0.01  # where no rate could be found (`prunedge.train.learning_rate`): it silences SqueezeNet
LR_SCRATCH = 0.02
LR_SCRATCH_PLAIN = 0.01  # networks without normalisation layers diverge sooner


@dataclass(frozen=True)
class FitRecipe:
    """How to train: stochastic gradient descent with Nesterov momentum, linear warm-up and a cosine to almost nothing.

    `lr` is the peak learning rate; `warmup` the fraction of all batches that lead up to it; `final` the fraction of
    `lr` that the cosine ends at; `clip` the largest norm of the whole gradient; `weight_decay` spares biases and
    normalisation. `augment` says how training pictures are changed (`prunedge.data.dataset.Augment`). `metric` (`accuracy`, `f1`,
    `auroc`) chooses the best epoch.

    `start` is the share of the schedule that lies behind: a network that was pruned goes through the rest of it again (learning-rate
    rewinding, Renda et al. 2020). `distill` is the weight of the teacher's answers in the loss, at the softmax's `temperature`
    (Hinton et al. 2015): (1 - distill) * cross-entropy + distill * temperature^2 * KL(teacher || student).

    `called` is the setting that the user gives `lr` by: an error's remedy names it.

    Raises TrainError for knobs out of their range, all of them at once.
    """

    lr: float = LR_FINE_TUNE
    batch_size: int = 32
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    final: float = 0.01
    clip: float = 5.0
    label_smoothing: float = 0.0
    augment: Augment = "full"
    metric: str = "accuracy"
    start: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    called: str = "lr"

    def __post_init__(self) -> None:
        """Refuse knobs out of their range, all at once."""
        wrong = [
            f"{name} = {getattr(self, name)} ({rule})"
            for name, is_fine, rule in (
                ("lr", 0 < self.lr < math.inf, "above 0"),
                ("batch_size", self.batch_size >= 2, "at least 2"),
                ("momentum", 0 < self.momentum < 1, "between 0 and 1"),
                ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
                ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
                ("final", 0 <= self.final <= 1, "from 0 to 1"),
                ("clip", self.clip > 0, "above 0"),
                ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
                ("start", 0 <= self.start < 1, "from 0 to below 1"),
                ("distill", 0 <= self.distill <= 1, "from 0 to 1"),
                ("temperature", 0 < self.temperature < math.inf, "above 0"),
                ("augment", self.augment in get_args(Augment), f"one of {', '.join(get_args(Augment))}"),
                ("metric", self.metric in METRICS, f"one of {', '.join(METRICS)}"),
            )
            if not is_fine
        ]
        if wrong:
            raise TrainError(f"the training recipe can't be followed: {'; '.join(wrong)}", remedy="mend these values")


def learning_rate(batch: int, total: int, recipe: FitRecipe) -> float:
    """The rate of the 0-based `batch` out of `total`: linear up to `lr`, then a cosine to `final * lr`; from `start` on."""
    whole = round(total / (1 - recipe.start))
    batch, total = batch + whole - total, whole
    warm = int(recipe.warmup * total)
    if batch < warm:
        return recipe.lr * (batch + 1) / (warm + 1)
    along = (batch - warm) / max(1, total - warm - 1)
    return recipe.lr * (recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * along)) / 2)
