"""A run's settings as what the loop works with."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.pruning.context import Device, PruneContext, RecoveryConfig
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.runs.training import transfer_settings
from prunedge.train import Engine, Progress, TrainConfig


def context_of(
    config: RunConfig,
    data: Dataset,
    engine: Engine,
    model: nn.Module,
    *,
    teacher: nn.Module | None = None,
    device: Device | None = None,
    progress: Progress | None = None,
) -> PruneContext:
    """What every step works with. `model` is any of this architecture; with a `teacher` the
    fine-tunings imitate it; a `device` steers.
    """
    return PruneContext(
        data=data,
        engine=engine,
        finetune=_finetuning(config, model, distills=teacher is not None),
        criterion=config.prune.criterion,
        epochs=config.recover.epochs,
        seed=config.data.seed,
        progress=progress,
        constraints=PlanConstraints(
            tuple(config.prune.ignore),
            config.prune.min_channels,
            config.prune.round_to,
            config.prune.max_ratio,
        ),
        extra_rounds=config.recover.extra_rounds,
        scaling=ScoreScaling(
            config.prune.normalise,
            config.prune.per_layer,
            config.prune.macs_penalty,
            config.prune.per_mac,
        ),
        recovery=RecoveryConfig(
            config.recover.compensate,
            sparsity=config.train.sparsity,
            sparsity_strength=config.train.sparsity_strength,
            teacher=teacher,
        ),
        device=device,
    )


def _finetuning(config: RunConfig, model: nn.Module, *, distills: bool) -> TrainConfig:
    settings = replace(transfer_settings(config), lr=config.recover.lr)
    finetune = replace(
        settings.config(model),
        called="finetune_lr",
        distill=config.recover.distill if distills else 0.0,
    )
    schedule = config.train.schedule_epochs or config.train.epochs
    if config.recover.rewind and schedule > config.recover.epochs:
        finetune = replace(finetune, start=1 - config.recover.epochs / schedule)
    return finetune
