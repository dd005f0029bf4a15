"""The settings of one training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from prunedge.config.sections import Balance, LossName, Optimizer
from prunedge.data.transforms import Augment
from prunedge.edge.tasks import DEFINITIONS, metric_called
from prunedge.edge.tasks.metric import forms_of
from prunedge.errors import TrainError
from prunedge.utils.arguments import is_number

# Each learned solar cells (elpv-dataset, 32 to 64 px, 2 to 5 epochs, one seed); too little was
# tried to call them best.
LR_FINE_TUNE = 0.01  # where no rate could be found (`learning_rate`): it silences SqueezeNet
LR_SCRATCH = 0.02
LR_SCRATCH_PLAIN = 0.01  # models without normalisation layers diverge sooner
# The least for AdamW after a cut, in a model with norms for as long as it is trained: pretrained
# weights bear a tenth of that, and a VGG16 at a sixty-fourth of its time comes back to 66 % with
# 0.0003 where it does to 94 with 0.001, and to 96 with 0.003.
LR_RECOVERY = 0.001
# Adam divides each gradient by its own size, so that a step is as long as the rate says: a tenth
# of SGD's rates is the usual rule.
ADAMW_SHARE = 0.1

# torch's own default for AdamW, whose decay is multiplied by the rate.
WEIGHT_DECAY: dict[Optimizer, float] = {"sgd": 5e-4, "adamw": 1e-2}


@dataclass(frozen=True)
class TrainConfig:
    """How to train: SGD with Nesterov momentum or AdamW, linear warm-up and a cosine to almost
    nothing.

    `lr` is the peak learning rate (AdamW wants about a tenth of SGD's); `warmup` the fraction of
    all batches that lead up to it; `final` the fraction of `lr` that the cosine ends at; `clip` the
    largest norm of the whole gradient; `weight_decay` (None: the optimizer's usual one) spares
    biases and normalisation. `augment` says how training images are changed
    (`prunedge.data.transforms.Augment`). `metric`, one of the task's
    (None: its first), chooses the best epoch.

    `start` is the share of the schedule that lies behind: a model that was pruned goes through the
    rest of it again (learning-rate rewinding, Renda et al. 2020). `distill` is the weight of the
    teacher's answers in the loss, at the softmax's `temperature` (Hinton et al. 2015):
    (1 - distill) * cross-entropy + distill * temperature^2 * KL(teacher || student).

    `patience` ends the training when so many epochs have been no better on validation data.
    `freeze` leaves the first so many blocks as they are; `layer_decay` multiplies the rate once for
    each block behind a layer (`prunedge.train.blocks`). With `ema` it is the weights' exponential
    moving average that is evaluated and kept (`prunedge.train.average`).

    `balance` gives rare classes more weight in the loss, or more images in an epoch (`auto` where
    the task does so by itself: `prunedge.train.weighting.settled`); `focal` is the
    gamma of the focal loss, 0 without (`prunedge.tasks.weighting`); `area_loss` the loss of areas
    where the task has several (`prunedge.tasks.mask_losses`), None for its usual one.

    `temporary_norms` gives a model that has no normalisation batch norms for as long as it is
    trained (`prunedge.train.temporary_norms`).

    `called` is the setting that the user gives `lr` by: an error's remedy names it.

    Raises TrainError for settings out of their range, all of them at once.
    """

    lr: float = LR_FINE_TUNE
    batch_size: int = 32
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    weight_decay: float | None = None
    warmup: float = 0.1
    final: float = 0.01
    clip: float = 5.0
    label_smoothing: float = 0.0
    augment: Augment = "full"
    metric: str | None = None
    start: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    patience: int | None = None
    freeze: int = 0
    layer_decay: float | None = None
    ema: float | None = None
    balance: Balance = "auto"
    focal: float = 0.0
    area_loss: LossName | None = None
    temporary_norms: bool = False
    called: str = "lr"

    def __post_init__(self) -> None:
        """Refuse settings out of their range, all at once."""
        augments = get_args(Augment)
        optimizers = get_args(Optimizer)
        balances = get_args(Balance)
        losses = get_args(LossName)
        numbers: dict[str, tuple[Callable[[float], bool], str]] = {
            "lr": (lambda value: 0 < value < math.inf, "above 0"),
            "momentum": (lambda value: 0 < value < 1, "between 0 and 1"),
            "weight_decay": (lambda value: 0 <= value < math.inf, "0 or more"),
            "warmup": (lambda value: 0 <= value < 1, "from 0 to below 1"),
            "final": (lambda value: 0 <= value <= 1, "from 0 to 1"),
            "clip": (lambda value: value > 0, "above 0"),
            "label_smoothing": (lambda value: 0 <= value < 1, "from 0 to below 1"),
            "start": (lambda value: 0 <= value < 1, "from 0 to below 1"),
            "distill": (lambda value: 0 <= value <= 1, "from 0 to 1"),
            "temperature": (lambda value: 0 < value < math.inf, "above 0"),
            "layer_decay": (lambda value: 0 < value < 1, "between 0 and 1"),
            "ema": (lambda value: 0 < value < 1, "between 0 and 1"),
            "focal": (lambda value: 0 <= value <= 10, "from 0 to 10"),
        }
        whole = {"batch_size": 2, "patience": 1, "freeze": 0}
        may_be_none = ("weight_decay", "layer_decay", "ema", "patience")
        broken = {}
        for name, (is_fine, rule) in numbers.items():
            value = getattr(self, name)
            if value is None and name in may_be_none:
                continue
            if not (is_number(value) and is_fine(value)):
                broken[name] = f"a number {rule}"
        for name, least in whole.items():
            value = getattr(self, name)
            if value is None and name in may_be_none:
                continue
            if not (is_number(value, whole=True) and value >= least):
                broken[name] = f"a whole number, at least {least}"
        if self.optimizer not in optimizers:
            broken["optimizer"] = f"one of {', '.join(optimizers)}"
        if self.balance not in balances:
            broken["balance"] = f"one of {', '.join(balances)}"
        if self.area_loss not in (None, *losses):
            broken["area_loss"] = f"one of {', '.join(losses)}"
        if self.augment not in augments:
            broken["augment"] = f"one of {', '.join(augments)}"
        if self.metric is not None and not _is_metric(self.metric):
            broken["metric"] = f"one of {', '.join(_metrics())}"
        wrong = [f"{name} = {getattr(self, name)!r} ({rule})" for name, rule in broken.items()]
        if wrong:
            raise TrainError(
                f"the training's settings can't be followed: {'; '.join(wrong)}",
                remedy="mend these values",
            )

    @property
    def decay(self) -> float:
        """The weight decay: the optimizer's usual one where none was given."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay

    @property
    def recovery_lr(self) -> float:
        """The peak learning rate of such a fine-tuning after a cut, where the model was trained at
        the rate `lr`.
        """
        if self.temporary_norms and self.optimizer == "adamw":
            return max(self.lr, LR_RECOVERY)
        return self.lr

    @property
    def trains_what_is_kept(self) -> bool:
        """Whether the model that is kept is the one that every batch went through with gradients
        for all of it: only then what is gathered on the way is of that model.
        """
        return self.ema is None and not self.freeze


def _is_metric(name: str) -> bool:
    """Whether any task has a metric of that name: which one is taught is known when the training
    begins.
    """
    for task in DEFINITIONS:
        try:
            metric_called(task, name)
        except TrainError:
            continue
        return True
    return False


def _metrics() -> list[str]:
    """The metrics of all tasks, as a user writes them."""
    forms: dict[str, None] = {}
    for definition in DEFINITIONS.values():
        forms |= dict.fromkeys(forms_of(definition.metrics, definition.families))
    return list(forms)
