"""Teach a model the user's classes: the first training, before anything is pruned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from prunedge.config.sections import Balance, LossName, Optimizer
from prunedge.data.transforms import Augment
from prunedge.models import has_normalisation
from prunedge.tasks import Metric, Metrics, Task, make_task, metric_among
from prunedge.train.config import (
    ADAMW_SHARE,
    LR_FINE_TUNE,
    LR_SCRATCH,
    LR_SCRATCH_PLAIN,
    TrainConfig,
)
from prunedge.train.engine import Engine
from prunedge.train.extras import NO_EXTRAS, Progress, TrainExtras
from prunedge.train.fit import FitResult, fit
from prunedge.train.learning_rate import Rate, find_rate
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.data import Dataset

log = logging.getLogger(__name__)

# Of the way from the best constant answer to a perfect one, below which a model has learned next to
# nothing: VGG16 ended at 66 % once where always answering cracks is right for 64, and at 87 and
# 89 % with other seeds.
LITTLE = 0.1
FEWEST = 16  # training images that a learning rate can be found with


@dataclass(frozen=True)
class TransferSettings:
    """What a user may set of the first training.

    `pretrained` says that the weights come from other images. `lr` overrides the peak learning rate
    that follows from that (`transfer_rate`). `optimizer` is SGD unless it is named, or a model
    without normalisation layers has `temporary_norms`.
    """

    pretrained: bool
    epochs: int = 10
    lr: float | None = None
    batch_size: int = 32
    metric: str | None = None
    augment: Augment = "full"
    optimizer: Optimizer | None = None
    temporary_norms: bool = False
    patience: int | None = None
    freeze: int = 0
    layer_decay: float | None = None
    ema: float | None = None
    balance: Balance = "auto"
    focal: float = 0.0
    area_loss: LossName | None = None

    def config(self, model: nn.Module) -> TrainConfig:
        """How to train `model`: gently when it is pretrained, boldly from random weights.

        Without `lr` a pretrained model gets a rate that suits many; `transfer_rate` finds its own.
        A model without normalisation layers gets a smaller rate and a longer warm-up from random
        weights; with `temporary_norms` it has some while it is trained, and AdamW. AdamW gets a
        tenth of SGD's rate.
        """
        is_plain = not has_normalisation(model)
        has_norms = is_plain and self.temporary_norms
        optimizer = self.optimizer or ("adamw" if has_norms else "sgd")
        usual = LR_FINE_TUNE
        warmup = 0.1
        if not self.pretrained:
            usual = LR_SCRATCH
            if is_plain and not has_norms:
                usual = LR_SCRATCH_PLAIN
                warmup = 0.2
        if optimizer == "adamw":
            usual *= ADAMW_SHARE
        return TrainConfig(
            lr=usual if self.lr is None else self.lr,
            batch_size=self.batch_size,
            metric=self.metric,
            augment=self.augment,
            warmup=warmup,
            optimizer=optimizer,
            temporary_norms=has_norms,
            patience=self.patience,
            freeze=self.freeze,
            layer_decay=self.layer_decay,
            ema=self.ema,
            balance=self.balance,
            focal=self.focal,
            area_loss=self.area_loss,
        )


def transfer(
    model: nn.Module,
    data: Dataset,
    settings: TransferSettings,
    *,
    engine: Engine,
    seed: int,
    rate: Rate | None = None,
    lowered: Callable[[Rate], None] | None = None,
    extras: TrainExtras = NO_EXTRAS,
) -> FitResult:
    """Train all of `model` on `data.train` in place and keep the epoch that is best on `data.val`.

    `rate` is one that was found before; without it, and without `settings.lr`, one is found now.

    Where the training at a rate that was found ends in a model that is hardly better than always
    the same answer (`knows_little`), which a few steps don't show, it begins anew at the next lower
    rate, twice at the most; `lowered` hears of each before that. Raises what `fit` raises.
    """
    task = make_task(data.spec)
    config = settings.config(model)
    if settings.lr is None and rate is None and settings.epochs:
        rate = transfer_rate(
            model,
            data,
            config,
            pretrained=settings.pretrained,
            engine=engine,
            seed=seed,
            progress=extras.progress,
        )

    # What a new beginning needs; a rate that was not found by a test is never lowered.
    before = {}
    if rate is not None and rate.lowered() is not None:
        before = {name: x.clone() for name, x in model.state_dict().items()}
    while True:
        if rate is not None:
            config = replace(config, lr=rate.lr)
        fitted = fit(
            model,
            data.train,
            epochs=settings.epochs,
            config=config,
            engine=engine,
            seed=seed,
            val=data.val,
            task=task,
            extras=extras,
        )
        lower = rate.lowered() if rate is not None and settings.epochs else None
        if lower is None or fitted.val is None:
            return fitted
        if not knows_little(task, fitted.val, metric_among(task.metrics, config.metric)):
            return fitted
        rate = lower
        log.info("%s", rate.sentence())
        if lowered is not None:
            lowered(rate)
        model.load_state_dict(before)


def knows_little(task: Task, metrics: Metrics, metric: Metric) -> bool:
    """Whether a model gives every image the same answer, or is right about hardly more images than
    the best constant answer: less than `LITTLE` of the way from that to all of them, and not by
    more than two standard errors, since some images can hardly be told apart.

    Of metrics that are no share of images answered right the first alone counts: an IoU of 5 % is a
    beginning.
    """
    if task.only_answer(metrics) is not None:
        return True
    value = metrics.values.get(metric.name)
    if not metric.has_interval or value is None:
        return False
    constant = task.constant(metrics, metric.name).score
    gained = value - constant
    error = (constant * (1 - constant) / max(1, metrics.n)) ** 0.5
    return gained < LITTLE * (1 - constant) and gained <= 2 * error


def transfer_rate(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    *,
    pretrained: bool,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> Rate:
    """Find the peak learning rate for the first training of `model`.

    By a short test where it is `pretrained` (`find_rate`). From random weights it is the config's
    own; so it is where there are too few images for a test.
    """
    if not pretrained:
        why = "the usual one from random weights"
        return Rate(config.lr, why, optimizer=config.optimizer)
    count = len(data.train)
    if count < FEWEST:
        few = counted(count, "training image is", "training images are")
        why = f"the usual one, since {few} too few to find one with"
        return Rate(config.lr, why, optimizer=config.optimizer)
    task = make_task(data.spec)
    rate = find_rate(
        model, data.train, config, task=task, engine=engine, seed=seed, progress=progress
    )
    log.info("%s; %s overrides it", rate.sentence(), option("lr"))
    return rate
