"""Which learning rate suits a pretrained model.

A few steps with each of a few rates, judged on images kept apart.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from prunedge.config.sections import Optimizer
from prunedge.errors import TrainError
from prunedge.tasks import OF_BATCHES, Metrics, Task
from prunedge.train.config import TrainConfig
from prunedge.train.engine import Engine
from prunedge.train.extras import Progress, TrainExtras, silent
from prunedge.train.fit import fit
from prunedge.utils.advice import option
from prunedge.utils.tracing import traced
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.data.dataset import Split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateRange:
    """The rates that may suit an optimizer, ascending; the `first` two are tried first, and `usual`
    suits most pretrained models.

    Rates above `highest` are tried for what they tell of those below: VGG16 learns in 8 steps of
    SGD at 0.03, and diverges in others.
    """

    rates: tuple[float, ...]
    first: tuple[float, float]
    usual: float
    highest: float

    def below(self, lr: float) -> float | None:
        """The next lower rate; None where there is none."""
        lower = [rate for rate in self.rates if rate < lr]
        return lower[-1] if lower else None


RANGES: dict[Optimizer, RateRange] = {
    "sgd": RateRange((0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03), (0.01, 0.003), 0.003, 0.01),
    "adamw": RateRange((1e-5, 3e-5, 0.0001, 0.0003, 0.001, 0.003), (0.001, 0.0003), 0.0003, 0.001),
}
SGD = RANGES["sgd"]
# A model that has norms for as long as it is trained bears more. VGG16 at a sixty-fourth of its
# time: validation 94 % after twelve epochs at 0.001, 96 at 0.003, 66 at 0.0003.
ADAMW_WITH_NORMS = RateRange(
    (1e-5, 3e-5, 0.0001, 0.0003, 0.001, 0.003, 0.01), (0.003, 0.001), 0.001, 0.003
)
# Few steps tell large differences alone: of the rates with this share of the best gain, the nearest
# to the usual one is taken.
ENOUGH = 0.9
# what silences a model in a few steps does so a little later at a third of it (SqueezeNet: 0.03 at
# once, 0.01 in two epochs)
BELOW = 10
MOST_FALLS = 2  # whole trainings that are begun anew at a lower rate
LEAST_STEPS = 8  # with each rate
MOST_STEPS = 24
SHARE = 6  # a rate's steps are an epoch's batches divided by this: three rates cost half an epoch
HELD = 128  # training images that judge, at the most; a quarter of a small set


@dataclass(frozen=True)
class Rate:
    """A peak learning rate, and why it is this one.

    `curve` holds each rate that was tried with the loss that it led to on the images kept apart;
    None for one that made the model fall silent or the loss infinite. `start` is that loss before
    any step, `steps` the steps with each rate; 0 when none was tried. `silenced` are the rates at
    which the whole training then ended in a model with one answer, or hardly better than that: a
    few steps don't show it.
    `optimizer` is whose rate it is.
    """

    lr: float
    why: str
    curve: tuple[tuple[float, float | None], ...] = ()
    start: float | None = None
    steps: int = 0
    silenced: tuple[float, ...] = ()
    optimizer: Optimizer = "sgd"

    def lowered(self) -> Rate | None:
        """The next lower rate, where the training at this one ended in a model that is hardly
        better than one answer.

        Only where this one was found by the test. None where the rate was given or is the usual
        one, where there is no lower one, or after `MOST_FALLS` of them.
        """
        below = RANGES[self.optimizer].below(self.lr)
        if not self.curve or below is None or len(self.silenced) >= MOST_FALLS:
            return None
        return replace(self, lr=below, silenced=(*self.silenced, self.lr))

    def sentence(self) -> str:
        """One line that says it."""
        if not self.curve:
            return f"learning rate {self.lr:g}: {self.why}"
        if self.silenced:
            before = " and then ".join(f"{rate:g}" for rate in self.silenced)
            return (
                f"learning rate {self.lr:g}: after the training at {before} the model was hardly "
                "better than one that gives every validation image the same answer"
            )
        tried = ", ".join(f"{rate:g} {_shown(loss)}" for rate, loss in self.curve)
        return (
            f"learning rate {self.lr:g}: {self.why} "
            f"(loss from {self.start:.3f} after {counted(self.steps, 'step')}: {tried})"
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        record: dict[str, Any] = {
            "lr": self.lr,
            "why": self.why,
            "curve": [list(point) for point in self.curve],
            "start": self.start,
            "steps": self.steps,
        }
        if self.silenced:
            record["silenced"] = list(self.silenced)
        if self.optimizer != "sgd":
            record["optimizer"] = self.optimizer
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Rate:
        """The inverse of `to_json`."""
        curve = [
            (float(rate), None if loss is None else float(loss)) for rate, loss in record["curve"]
        ]
        return Rate(
            lr=float(record["lr"]),
            why=record["why"],
            curve=tuple(curve),
            start=record["start"],
            steps=int(record["steps"]),
            silenced=tuple(float(rate) for rate in record.get("silenced", ())),
            optimizer=record.get("optimizer", "sgd"),
        )


def _shown(loss: float | None) -> str:
    return "broke" if loss is None else f"{loss:.3f}"


@traced("rate")
def find_rate(
    model: nn.Module,
    train: Split,
    config: TrainConfig,
    *,
    task: Task = OF_BATCHES,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> Rate:
    """Find the peak learning rate for training `model` on `train`; `model` stays as it was.

    A learning-rate range test (Smith 2017, arXiv:1506.01186) in short trainings: each rate trains a
    copy of the model for the same few steps, warm-up and cosine included, and the loss on training
    images that took no part (128 at the most) judges. Beginning with 0.01 and 0.003 (AdamW: 0.001
    and 0.0003; `range_of`), the next higher or lower rate is tried as long as the one to take is
    the highest or lowest so far. Of those with nine tenths of the best gain the nearest to the
    usual one is taken. Rates above the highest (0.01) are tried, and not taken. A rate that makes
    the model answer every image alike silences it, and rates are taken from a tenth of that one
    downward.

    It sees training images alone, about half an epoch of them (at least 8 steps a rate, at most
    24), and depends on `seed` alone. Several processes divide the batches, and find the same.
    Raises TrainError when there are too few images to keep any apart.
    """
    judges, learners, rounds = _divided(train, config.batch_size, seed)
    report = progress or silent
    # Any metric: the loss judges. One that is not defined on few images would end the search.
    # A moving average has not come far in a few steps.
    config = replace(config, metric=None, patience=None, ema=None)

    def metrics_after(epochs: int, config: TrainConfig) -> Metrics:
        def watch(done: int, total: int, what: str) -> None:
            report(done, total, f"trying learning rate {config.lr:g}")

        trained = fit(
            copy.deepcopy(model),
            learners,
            epochs=epochs,
            config=config,
            engine=engine,
            seed=seed,
            val=judges,
            task=task,
            extras=TrainExtras(progress=watch, is_trial=True),
        )
        metrics = trained.history[-1].val if trained.history else trained.val
        assert metrics is not None
        return metrics

    def loss_after(rate: float) -> float | None:
        try:
            return _loss(task, metrics_after(rounds, replace(config, lr=rate)))
        except TrainError as error:  # the loss became infinite
            log.debug("learning rate %g: %s", rate, error)
            return math.inf

    untrained = metrics_after(0, config)
    steps = rounds * math.ceil(len(learners) / config.batch_size)
    rate = search(untrained.loss, task.uninformed_loss(untrained), loss_after, range_of(config))
    return replace(rate, steps=steps, optimizer=config.optimizer)


def range_of(config: TrainConfig) -> RateRange:
    """The rates that may suit a training."""
    if config.optimizer == "adamw" and config.temporary_norms:
        return ADAMW_WITH_NORMS
    return RANGES[config.optimizer]


def lower_rate(config: TrainConfig) -> float:
    """The next lower rate that the test for one knows; a third of a rate below all of them."""
    below = range_of(config).below(config.lr)
    return config.lr / 3 if below is None else below


def search(
    start: float,
    alike: float,
    loss_after: Callable[[float], float | None],
    among: RateRange = SGD,
) -> Rate:
    """Try rates until the one to take is known.

    `start` is the loss before any step, `alike` that of equal scores for all classes.
    `loss_after(rate)` gives the loss that short training leads to, infinity where it diverged, None
    where the model fell silent.
    """
    losses = {rate: loss_after(rate) for rate in among.first}
    while True:
        chosen, why = choose_rate(start, alike, losses, among)
        below = [rate for rate in among.rates if rate < min(losses)]
        above = [rate for rate in among.rates if rate > max(losses)]
        if above and chosen >= max(losses):
            losses[above[0]] = loss_after(above[0])
        elif below and chosen <= min(losses):
            losses[below[-1]] = loss_after(below[-1])
        else:
            curve = tuple((rate, _finite(loss)) for rate, loss in sorted(losses.items()))
            return Rate(chosen, why, curve, start)


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def choose_rate(
    start: float,
    alike: float,
    losses: Mapping[float, float | None],
    among: RateRange = SGD,
) -> tuple[float, str]:
    """The rate to take after these losses, and why. Pure; `search` says what the arguments are."""
    lowest_silent = _lowest_silent(alike, losses)
    ceiling = lowest_silent / BELOW * 1.01
    gains = _gains(start, alike, losses)
    allowed = {rate: gain for rate, gain in gains.items() if rate <= among.highest}
    safe = {rate: gain for rate, gain in allowed.items() if rate <= ceiling}
    silenced = f"{lowest_silent:g}, which silenced the model in a few steps"

    if not safe:
        if min(losses) in gains:
            return min(losses), f"the lowest that was tried, the farthest below {silenced}"
        return min(losses), "every rate broke the model in a few steps, so the lowest"
    good = _good(safe)
    if not good:
        lower = [rate for rate in safe if rate <= among.usual] or [min(safe)]
        if _good(allowed):
            return max(lower), f"the highest that is far enough below {silenced}"
        return max(lower), "no rate taught it anything in a few steps, so a usual one"

    nearest = _nearest(good, among)
    # What is said is what decided: the gains, a rate that silenced the model, or both.
    if nearest == _nearest(_good(allowed), among):
        with_gain = "of those with nine tenths of the best gain in a few steps"
        return nearest, f"{with_gain} the nearest to {among.usual:g}"
    if nearest == _nearest(safe, among):
        return nearest, f"the nearest to {among.usual:g} that is far enough below {silenced}"
    far = f"of those far enough below {silenced}, and with nine tenths of the best gain,"
    return nearest, f"{far} the nearest to {among.usual:g}"


def _nearest(rates: Iterable[float], among: RateRange) -> float:
    """The rate that differs least from the usual one, by its logarithm."""
    return min(rates, key=lambda rate: abs(math.log(rate / among.usual)))


def _gains(start: float, alike: float, losses: Mapping[float, float | None]) -> dict[float, float]:
    """By how much each rate lowered the loss, where it neither diverged nor silenced the model."""
    gains = {}
    for rate, loss in losses.items():
        if loss is None or not math.isfinite(loss) or _has_constant_outputs(rate, alike, losses):
            continue
        gains[rate] = start - loss
    return gains


def _good(gains: Mapping[float, float]) -> list[float]:
    """The rates with nine tenths of the best gain, ascending; none where there is no gain."""
    best = max(gains.values(), default=0.0)
    if best <= 0:
        return []
    return sorted(rate for rate, gain in gains.items() if gain >= ENOUGH * best)


def _lowest_silent(alike: float, losses: Mapping[float, float | None]) -> float:
    """The lowest rate that silenced the model; infinity where none did."""
    silent_rates = [rate for rate in losses if _has_constant_outputs(rate, alike, losses)]
    return min(silent_rates, default=math.inf)


def _has_constant_outputs(rate: float, alike: float, losses: Mapping[float, float | None]) -> bool:
    """Whether a rate brought the loss to that of equal scores while a lower one teaches."""
    loss = losses[rate]
    if loss is None:
        return True
    if not 0.97 * alike <= loss <= 1.05 * alike:
        return False
    lower = [other for other_rate, other in losses.items() if other_rate < rate]
    return any(other is not None and other < 0.97 * alike for other in lower)


def _loss(task: Task, metrics: Metrics) -> float | None:
    """The loss that a rate led to: infinity where it diverged, None where the model fell silent."""
    if not math.isfinite(metrics.loss):
        return math.inf
    # Units that fell silent don't learn any more.
    return None if task.has_constant_outputs(metrics) else metrics.loss


def _divided(train: Split, batch_size: int, seed: int) -> tuple[Split, Split, int]:
    """Images that judge, images that teach, and how many rounds of these are steps enough."""
    count = len(train)
    held = min(HELD, count // 4)
    if held < 1:
        raise TrainError(
            f"{counted(count, 'training image is', 'training images are')} too few to find a "
            "learning rate with",
            remedy=f"give one with {option('lr')}",
        )
    steps = max(LEAST_STEPS, min(MOST_STEPS, math.ceil(count / batch_size) // SHARE))
    order = np.random.default_rng(seed).permutation(count)
    judges = order[:held]
    learners = order[held : held + steps * batch_size]
    rounds = math.ceil(steps / math.ceil(len(learners) / batch_size))
    return train.at(np.sort(judges)), train.at(np.sort(learners)), rounds
