"""Teach a network the user's classes: the first training, before anything is pruned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from prunedge.data.transforms import Augment
from prunedge.models import has_normalisation
from prunedge.train.collapse import only_answer
from prunedge.train.engine import Engine
from prunedge.train.fit import Collector, FitResult, Keeper, Penalty, Progress, fit
from prunedge.train.learning_rate import Rate, find_rate
from prunedge.train.schedule import LR_FINE_TUNE, LR_SCRATCH, LR_SCRATCH_PLAIN, FitRecipe
from prunedge.utils.advice import option

if TYPE_CHECKING:
    from prunedge.data import Dataset

log = logging.getLogger(__name__)

FEWEST = 16  # training pictures that a learning rate can be found with


def transfer(
    net: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    lr: float | None = None,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
    pretrained: bool,
    batch_size: int = 32,
    metric: str = "accuracy",
    augment: Augment = "full",
    collector: Collector | None = None,
    penalty: Penalty | None = None,
    keeper: Keeper | None = None,
    rate: Rate | None = None,
    lowered: Callable[[Rate], None] | None = None,
) -> FitResult:
    """Train all of `net` on `data.train` in place and keep the epoch that is best on `data.val`.

    `pretrained` says that the weights come from other pictures; `lr` overrides the peak learning rate that follows from it
    (`transfer_rate`), `rate` is one that was found before. A `keeper` lets a training that is cut off go on.

    Where the training at a rate that was found ends in a network with one answer, which a few steps don't show, it begins anew at the next
    lower rate, twice at the most; `lowered` hears of each before that. Raises what `fit` raises.
    """
    recipe = transfer_recipe(net, pretrained=pretrained, lr=lr, batch_size=batch_size, metric=metric, augment=augment)
    if lr is None and rate is None and epochs:
        rate = transfer_rate(net, data, recipe, pretrained=pretrained, engine=engine, seed=seed, progress=progress)
    # What a new beginning needs; a rate that was not found by a test is never lowered.
    before = {name: one.clone() for name, one in net.state_dict().items()} if rate is not None and rate.lowered() is not None else {}
    while True:
        if rate is not None:
            recipe = replace(recipe, lr=rate.lr)
        fitted = fit(
            net, data.train, epochs=epochs, recipe=recipe, engine=engine, seed=seed, val=data.val, collector=collector, progress=progress,
            penalty=penalty, keeper=keeper,
        )  # fmt: skip
        lower = rate.lowered() if rate is not None and epochs else None
        if lower is None or fitted.val is None or only_answer(fitted.val) is None:
            return fitted
        rate = lower
        log.info("%s", rate.sentence())
        if lowered is not None:
            lowered(rate)
        net.load_state_dict(before)


def transfer_rate(
    net: nn.Module, data: Dataset, recipe: FitRecipe, *, pretrained: bool, engine: Engine, seed: int, progress: Progress | None = None
) -> Rate:
    """Find the peak learning rate for the first training of `net`: by a short test where it is `pretrained` (`find_rate`).

    From random weights it is the recipe's own; so it is where there are too few pictures for a test.
    """
    if not pretrained:
        return Rate(recipe.lr, "the usual one from random weights")
    if len(data.train) < FEWEST:
        return Rate(recipe.lr, f"the usual one, since {len(data.train)} training pictures are too few to find one with")
    rate = find_rate(net, data.train, recipe, engine=engine, seed=seed, progress=progress)
    log.info("%s; %s overrides it", rate.sentence(), option("lr"))
    return rate


def transfer_recipe(
    net: nn.Module,
    *,
    pretrained: bool,
    lr: float | None = None,
    batch_size: int = 32,
    metric: str = "accuracy",
    augment: Augment = "full",
) -> FitRecipe:
    """Choose how to train `net` for the first time: gently when `pretrained`, boldly from random weights.

    Without `lr` a pretrained network gets a rate that suits many; `transfer_rate` finds its own.
    A network without normalisation layers gets a smaller rate and a longer warm-up from random weights.
    """
    if pretrained:
        return FitRecipe(lr=LR_FINE_TUNE if lr is None else lr, batch_size=batch_size, metric=metric, augment=augment)
    plain = not has_normalisation(net)
    usual, warmup = (LR_SCRATCH_PLAIN, 0.2) if plain else (LR_SCRATCH, 0.1)
    return FitRecipe(lr=usual if lr is None else lr, batch_size=batch_size, metric=metric, augment=augment, warmup=warmup)
