"""What every step of the loop works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import get_args

from prunedge.config.sections import Currency
from prunedge.pruning.costs import Device
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.steps import Step
from prunedge.pruning.trainer import Trainer
from prunedge.surgery.compensate import How
from prunedge.train.sparsity import Kind

MOST_GROWTH = 8.0  # times the epochs of a step, for a small model


@dataclass(frozen=True)
class RecoveryConfig:
    """What helps a model over a removal, beside fine-tuning.

    `compensate` (with `calibration` training images) hands what the removed channels gave to their
    consumers. `sparsity` draws channels to zero while training, with `sparsity_strength`; `growing`
    spends `epochs` before each removal on the channels that are about to leave.
    """

    compensate: How = "none"
    calibration: int = 256
    sparsity: Kind = "none"
    sparsity_strength: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("compensate", get_args(How)), ("sparsity", get_args(Kind))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        if self.calibration < 1:
            raise ValueError(f"calibration must be 1 or more, not {self.calibration}")
        if self.sparsity_strength is not None and not 0 < self.sparsity_strength < inf:
            raise ValueError(
                f"sparsity_strength must be above 0, and finite, not {self.sparsity_strength}"
            )


@dataclass(frozen=True)
class PruneContext:
    """What every step works with: who trains and judges, the criterion, and what a plan may do.

    A fine-tuning has `epochs`, and of a smaller model more with `growing_epochs` (`epochs_of`). A
    step that breaks the rule is fine-tuned up to `extra_rounds` times more, as long as that
    helps, before it is taken back: the smaller model trains faster than the one before it. `device`
    is the one whose time is what channels cost. `first` is the first, unpruned model as it does on
    the same validation images, where pruning starts from one that was pruned before: the rule, the
    targets and every share refer to it. `currency` is what a step's share is of, and what a
    channel's score is weighed by (`prunedge.pruning.costs`).
    """

    trainer: Trainer
    criterion: str = "taylor"
    epochs: int = 1
    growing_epochs: bool = False
    seed: int = 0
    constraints: PlanConstraints = field(default_factory=PlanConstraints)
    extra_rounds: int = 4
    scaling: ScoreScaling = field(default_factory=ScoreScaling)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    device: Device | None = None
    first: Step | None = None
    currency: Currency = "channels"

    def epochs_of(self, macs: int, first: Step) -> int:
        """Epochs of fine-tuning for a model of so many MACs, where the unpruned one is the `first`:
        with `growing_epochs` times the square root of the factor between them, which takes less
        time the smaller the model is.
        """
        if not self.growing_epochs:
            return self.epochs
        growth = min(MOST_GROWTH, max(1.0, sqrt(first.macs / macs)))
        return round(growth * self.epochs)

    def reference(self, history: Sequence[Step]) -> Step:
        """The first, unpruned model: that of step 0 unless pruning starts from one that was pruned
        before.
        """
        return self.first or history[0]
