"""What a `RunConfig` asks for, as what the loop works with: the stop rule, the context, the
training.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from prunedge.config import RunConfig
from prunedge.config.sections import Currency
from prunedge.data import Dataset
from prunedge.edge.tasks.metric import Drop, Metric
from prunedge.errors import ConfigError
from prunedge.pruning.context import PruneContext, RecoveryConfig
from prunedge.pruning.costs import Device
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.task_trainer import TaskTrainer
from prunedge.pruning.trainer import Trainer
from prunedge.tasks import metric_named, task_named
from prunedge.train import Engine, Progress, TrainConfig, TransferSettings
from prunedge.train.batches import usual_batch_size
from prunedge.utils.advice import option

CONFIDENCE = 0.95
OWN_UNIT = ""  # of a metric of the user's own, which nobody else knows

# What a step takes a share of, for a reader.
SAVED: dict[Currency, str] = {
    "latency": "milliseconds",
    "macs": "MACs",
    "params": "parameters",
    "memory": "memory",
    "channels": "channels",
}


def policy_of(config: RunConfig) -> StopPolicy:
    """The rule that a config asks for: its fields are the settings of the section on stopping."""
    stop = config.stop.model_dump()
    stop["confidence"] = confidence_of(config)
    stop["max_drop"] = max_drop_of(config)
    return StopPolicy(
        metric=watched_metric(config),
        step_ratio=config.prune.step_ratio,
        saved=saved(config),
        polish=config.recover.polish,
        **stop,
    )


def watched_metric(config: RunConfig) -> Metric:
    """The metric that the rule watches: the task's, or that of a training of the user's own."""
    own = config.trainer
    if own.metric is None:
        return metric_named(config.task.metric, config.task.name)
    return Metric(own.metric, higher_is_better=own.higher_is_better is not False, unit=OWN_UNIT)


def saved(config: RunConfig) -> str:
    """What a step takes a share of, for a reader."""
    words = SAVED[currency_of(config)]
    return f"estimated {words}" if _is_estimated(config) else words


def what_a_step_saves(config: RunConfig) -> str:
    """The share that a step is to save, and of what, in a sentence."""
    sentence = f"a step saves {config.prune.step_ratio:.0%} of the {saved(config)}"
    if _is_estimated(config):
        sentence += " of an image (a roofline model of one processor core)"
    return f"{sentence}: {option('cost', currency_of(config))}"


def _is_estimated(config: RunConfig) -> bool:
    """Whether what is saved is time that nothing measures."""
    return currency_of(config) == "latency" and config.device.address is None


def confidence_of(config: RunConfig) -> float | None:
    """With which confidence a step has to break the rule before it is taken back; None where its
    figure alone decides.
    """
    if config.stop.confidence is not None:
        return config.stop.confidence
    return CONFIDENCE if watched_metric(config).has_interval else None


def max_drop_of(config: RunConfig) -> Drop:
    """What the rule lets the metric lose: what the config says, or else what is usual of it."""
    if config.stop.max_drop is not None:
        return config.stop.max_drop
    return watched_metric(config).usual_drop


def constraints_of(config: RunConfig) -> PlanConstraints:
    """What a plan may do to a group."""
    return PlanConstraints(
        ignore=tuple(config.prune.ignore),
        min_channels=config.prune.min_channels,
        round_to=config.prune.round_to,
        max_ratio=config.prune.max_ratio,
    )


def trainer_of(
    config: RunConfig,
    data: Dataset,
    engine: Engine,
    model: nn.Module,
    *,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
    finetune: TrainConfig | None = None,
) -> TaskTrainer:
    """Who fine-tunes and judges. `model` is any of this architecture; with a `teacher` the
    fine-tunings imitate it. `finetune` stands in for the config's.
    """
    finetune = finetune or finetuning(config, data, model, distills=teacher is not None)
    return TaskTrainer(data, engine, finetune, teacher, progress)


def context_of(config: RunConfig, trainer: Trainer, device: Device | None = None) -> PruneContext:
    """What every step works with; a `device` steers."""
    return PruneContext(
        trainer=trainer,
        criterion=config.prune.criterion,
        epochs=config.recover.epochs,
        growing_epochs=config.recover.growing_epochs,
        seed=config.data.seed,
        constraints=constraints_of(config),
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
        ),
        device=device,
        currency=currency_of(config),
    )


def currency_of(config: RunConfig) -> Currency:
    """What a run saves: what it was asked for, or else milliseconds.

    Channels, where scores are to be weighed or compared in another way: what a channel costs in
    milliseconds would take the place of that.
    """
    prune = config.prune
    if prune.cost is not None:
        return prune.cost
    is_weighed = prune.per_mac or prune.macs_penalty or prune.per_layer
    return "channels" if is_weighed else "latency"


def transfer_settings(config: RunConfig, data: Dataset) -> TransferSettings:
    """How the first training goes; fine-tunings and baselines differ in one thing each."""
    return TransferSettings(
        pretrained=config.model.weights != "none",
        epochs=config.train.epochs,
        batch_size=config.train.batch_size or usual_batch_size(len(data.train)),
        metric=config.task.metric,
        augment=config.train.augment,
        optimizer=config.train.optimizer,
        patience=config.train.patience,
        freeze=config.train.freeze,
        layer_decay=config.train.layer_decay,
        ema=config.train.ema,
        balance=config.train.balance,
        focal=config.train.focal,
        area_loss=config.train.area_loss,
    )


def refuse_wrong_metric(config: RunConfig) -> None:
    """ConfigError where the task has no metric of that name, or not one that the rule's
    confidence can be had of.
    """
    name = config.task.metric
    metric = metric_named(name, config.task.name, where=option("metric", name))
    if config.stop.confidence is None or metric.has_interval:
        return
    known = task_named(config.task.name).metrics.values()
    suited = [other.name for other in known if other.has_interval]
    raise ConfigError(
        f"confidence is that of {' or '.join(suited)}, and metric is {name}",
        where=option("confidence", config.stop.confidence),
        remedy=f"leave it out, or use {option('metric', suited[0])}" if suited else "leave it out",
    )


def finetuning(
    config: RunConfig, data: Dataset, model: nn.Module, *, distills: bool = False
) -> TrainConfig:
    """How `model` is fine-tuned after a cut."""
    # Short, with a whole schedule each, and of all layers: what was cut has to recover anywhere.
    settings = replace(
        transfer_settings(config, data),
        lr=config.recover.lr,
        temporary_norms=config.recover.temporary_norms,
        patience=None,
        freeze=0,
    )
    finetune = replace(
        settings.config(model),
        called="finetune_lr",
        distill=config.recover.distill if distills else 0.0,
    )
    schedule = config.train.schedule_epochs or config.train.epochs
    if config.recover.rewind and schedule > config.recover.epochs:
        finetune = replace(finetune, start=1 - config.recover.epochs / schedule)
    return finetune
