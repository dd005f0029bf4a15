"""Train a model in place, epoch by epoch, and keep its best one."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from prunedge.errors import TrainError, Undecided
from prunedge.models import has_normalisation
from prunedge.tasks import Metric, Metrics, Task, metric_among, task_of_batches
from prunedge.train.average import averaged_model
from prunedge.train.batches import batches_of, repeatable
from prunedge.train.blocks import Block, blocks_of, frozen_blocks, rate_shares
from prunedge.train.config import LR_SCRATCH, TrainConfig
from prunedge.train.deterministic import same_bits
from prunedge.train.distill import teaching
from prunedge.train.engine import Engine
from prunedge.train.evaluate import observe_held
from prunedge.train.extras import NO_EXTRAS, TrainExtras, TrainingCollector, silent
from prunedge.train.optim import OptimState, make_optimizer, state_of
from prunedge.train.schedule import learning_rate
from prunedge.train.state import Epoch, Snapshot, TrainingCheckpoint, rank_of
from prunedge.train.step import Stepper, make_stepper, train_batch
from prunedge.train.sync import start_alike
from prunedge.train.temporary_norms import norm_names, temporary_norms, with_norms
from prunedge.train.weighting import settled, weighting_of
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.tracing import traced

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """A trained model: `model` (the one passed in), in the state of the epoch `best_epoch`, from 0.

    `optimizer_state` is the optimizer's, by parameter name, `collected` what the collector gathered
    in that epoch (None when it failed), `val` its metrics. `seconds` is training alone,
    `seconds_evaluate` the validation. With no epochs `best_epoch` is -1 and `history` is empty.
    `lr` is the peak learning rate. `finetune_lr` is the one for the fine-tuning after a cut: the
    same, or None for a model without normalisation, which is fine-tuned in another way.
    """

    model: nn.Module = field(repr=False)
    optimizer_state: OptimState = field(repr=False)
    val: Metrics | None
    best_epoch: int
    history: tuple[Epoch, ...] = field(repr=False)
    seconds: float
    seconds_evaluate: float
    collected: Any = field(repr=False)
    lr: float
    finetune_lr: float | None


def fit(
    model: nn.Module,
    train: Any,
    *,
    epochs: int,
    config: TrainConfig,
    engine: Engine,
    seed: int,
    val: Any = None,
    task: Task | None = None,
    extras: TrainExtras = NO_EXTRAS,
) -> FitResult:
    """Train `model` in place and keep its best epoch.

    `train` is a Split or any batches ((N, 3, H, W) float32, the `task`'s targets: for
    classification (N,) int64); without a `task` it is the split's own. After every epoch `val` (a
    Split or batches) is evaluated; at the end the weights, the momentum and the collector's result
    are those of the epoch with the best `config.metric`, the lower loss breaking ties (without
    `val`: of the last one). With `config.patience` the training may end before all `epochs`. With
    `config.temporary_norms` a model without normalisation has some while it trains; they are folded
    into its weights, and no momentum is kept.
    `extras` says what else takes part: a teacher, a collector, a checkpointer.

    Everything random follows from `seed` and the epoch's number, and torch's global random state is
    left as it was: the same call on the same machine with as many threads gives the same weights
    (on a GPU as far as torch has algorithms that do; the log names those that may not). Modules
    whose parameters are all frozen stay in evaluation mode (`train_unfrozen`). Several processes
    divide each batch and do the same mathematics as one (`prunedge.train.sync`).

    Raises TrainError when the loss isn't finite, or the optimizer's state doesn't fit the model;
    ModelError before the first step when the model gives nothing that the task's loss can judge.
    """
    if epochs < 0:
        raise TrainError(f"{epochs} epochs", remedy="give 0 or more")
    if config.distill and extras.teacher is None:
        raise TrainError(
            "distillation needs a teacher", remedy="give the unpruned model as teacher="
        )
    task = task or task_of_batches(train)
    metric = metric_among(task.metrics, config.metric)
    config = settled(config, task, train)
    if not config.trains_what_is_kept:
        extras = replace(extras, collector=None)
    engine = engine.suited(model)
    train = repeatable(train)
    if val is not None:
        val = repeatable(val)
    checkpoint = None
    if extras.checkpointer is not None:
        checkpoint = distributed.broadcast_object(extras.checkpointer.kept())

    with (
        engine.holding(model),
        teaching(extras.teacher, engine),
        _modes_restored(model),
        _reproducible(engine),
    ):
        blocks = _blocks(model, train, config, engine)
        with (
            frozen_blocks(model, blocks, config.freeze),
            _norms(model, train, config, engine, extras),
        ):
            has_norms = bool(norm_names(model))
            stepper = _prepared(model, train, config, engine, extras, task, blocks, checkpoint)
            training = _Training(stepper, train, val, epochs, seed, metric)
            best, history = _train_epochs(training, checkpoint)
            if best.weights:
                model.load_state_dict(best.weights)
            if _is_quick(training, best.epoch) and not extras.is_trial and not has_norms:
                best = replace(best, val=_judged(model, val, engine, task))
        if has_norms:
            best = _without_norms(model, best, val, engine, task)
    return FitResult(
        model=model,
        optimizer_state=_beside(model, best.optimizer_state),
        val=best.val,
        best_epoch=best.epoch,
        history=tuple(history),
        seconds=sum(epoch.seconds for epoch in history),
        seconds_evaluate=sum(epoch.seconds_evaluate for epoch in history),
        collected=best.collected,
        lr=config.lr,
        finetune_lr=config.lr if has_normalisation(model) else None,
    )


def _blocks(model: nn.Module, train: Any, config: TrainConfig, engine: Engine) -> tuple[Block, ...]:
    """The model's blocks, as training images pass them; none where nothing asks for them."""
    if not config.freeze and config.layer_decay is None:
        return ()
    few = train.take(1) if hasattr(train, "take") else train
    images = next((images for images, _ in few), None)
    if images is None:
        raise _no_images()
    return blocks_of(model, engine.to_device(images[:1]))


def _norms(
    model: nn.Module, train: Any, config: TrainConfig, engine: Engine, extras: TrainExtras
) -> contextlib.AbstractContextManager[None]:
    """What gives the model norms for as long as it is trained; nothing where weights are drawn to
    zero, as a norm would make up for it.
    """
    if not config.temporary_norms or extras.penalty is not None:
        return contextlib.nullcontext()
    return temporary_norms(model, train, engine)


def _without_norms(
    model: nn.Module, best: Snapshot, val: Any, engine: Engine, task: Task
) -> Snapshot:
    """The best epoch, with the metrics of the model that the norms have been folded into: another
    rounding may decide another image. The momentum is that of other weights.
    """
    return replace(best, val=_judged(model, val, engine, task), optimizer_state={})


def _judged(
    model: nn.Module, val: Any, engine: Engine, task: Task, *, is_quick: bool = False
) -> Metrics | None:
    """The metrics on validation data; None without any."""
    if val is None:
        return None
    meter = observe_held(model, val, engine, task, is_quick=is_quick)
    return distributed.broadcast_object(meter.compute())


def _prepared(
    model: nn.Module,
    train: Any,
    config: TrainConfig,
    engine: Engine,
    extras: TrainExtras,
    task: Task,
    blocks: tuple[Block, ...],
    checkpoint: TrainingCheckpoint | None,
) -> Stepper:
    """What every step works with, as the training begins or goes on from a checkpoint."""
    # With norms the weights are others, of which no momentum is known.
    optimizer_state = None if norm_names(model) else extras.optimizer_state
    if checkpoint is not None:
        model.load_state_dict(checkpoint.weights)
        optimizer_state = checkpoint.optimizer_state
    shares = None
    if config.layer_decay is not None:
        shares = with_norms(rate_shares(blocks, config.layer_decay), model)
    optimizer = make_optimizer(model, config, optimizer_state, shares)
    start_alike(model, optimizer)

    averaged = None if config.ema is None else averaged_model(model, config.ema)
    if averaged is not None and checkpoint is not None:
        averaged.load_state_dict(checkpoint.averaged)
    weighting = weighting_of(task, train, config, engine.device)
    return make_stepper(model, optimizer, config, engine, extras, task, averaged, weighting)


@dataclass(frozen=True)
class _Training:
    """What stays the same through all epochs of one call."""

    stepper: Stepper
    train: Any
    val: Any
    epochs: int
    seed: int
    metric: Metric


def _train_epochs(
    training: _Training, checkpoint: TrainingCheckpoint | None
) -> tuple[Snapshot, list[Epoch]]:
    """All epochs, or those after the checkpoint; gives the best one and the history."""
    stepper = training.stepper
    metric = training.metric
    best = checkpoint.best if checkpoint else None
    history = list(checkpoint.history) if checkpoint else []
    first = checkpoint.epochs if checkpoint else 0

    if training.epochs == 0:
        best = _snapshot(training, -1, _evaluate(training, -1), None)
    for epoch in range(first, training.epochs):
        if _is_out_of_patience(stepper.config, best, epoch):
            log.info("stopped after %d epochs without a better one", stepper.config.patience)
            break
        start = time.perf_counter()
        loss, collected = _train_epoch(training, epoch)
        trained = time.perf_counter()
        metrics = _evaluate(training, epoch)
        evaluated = time.perf_counter()
        history.append(Epoch(loss, metrics, trained - start, evaluated - trained))
        log.info("epoch %d of %d: %s", epoch + 1, training.epochs, _line(loss, metrics, metric))

        if best is None or rank_of(metrics, metric, epoch) > best.rank:
            best = _snapshot(training, epoch, metrics, collected)
        checkpointer = stepper.extras.checkpointer
        if checkpointer is not None and epoch < training.epochs - 1:
            averaged = stepper.averaged
            checkpoint = TrainingCheckpoint(
                epochs=epoch + 1,
                weights=stepper.model.state_dict(),
                optimizer_state=state_of(stepper.model, stepper.optimizer),
                best=best,
                history=tuple(history),
                averaged={} if averaged is None else averaged.state_dict(),
            )
            checkpointer.keep(checkpoint)
    assert best is not None
    return best, history


def _is_out_of_patience(config: TrainConfig, best: Snapshot | None, epoch: int) -> bool:
    """Whether too many epochs before this one were no better than the best."""
    if config.patience is None or best is None:
        return False
    return epoch - 1 - best.epoch >= config.patience


def _train_epoch(training: _Training, epoch: int) -> tuple[float, Any]:
    """One pass over the training data.

    Gives the mean loss per image and what the collector gathered.
    """
    stepper = training.stepper
    collector = stepper.extras.collector
    progress = stepper.extras.progress or silent
    # Dropout of an epoch doesn't depend on those before it.
    torch.manual_seed((training.seed * 1_000_003 + epoch) % 2**63)
    train_unfrozen(stepper.model)
    batches = batches_of(training.train, stepper.config, training.seed, epoch)
    count = len(batches)
    total = training.epochs * count

    loss_sum = 0.0
    images_seen = 0
    if collector is not None:
        collector.reset()
    with collector.attach(stepper.model) if collector else contextlib.nullcontext():
        for index, shard in enumerate(distributed.split_batches(batches)):
            done = epoch * count + index
            rate = learning_rate(done, total, stepper.config)
            loss = train_batch(stepper, shard, rate, (done + 1) / total)
            if not math.isfinite(loss):
                raise _diverged(loss, epoch, index, stepper.config)
            loss_sum += loss * shard.whole
            images_seen += shard.whole
            mean = loss_sum / images_seen
            progress(done + 1, total, f"epoch {epoch + 1}/{training.epochs}, loss {mean:.3f}")
    if images_seen == 0:
        raise _no_images()
    return loss_sum / images_seen, _collected(collector)


def _no_images() -> TrainError:
    return TrainError("there is no image to train on", remedy="give the training split some images")


def _collected(collector: TrainingCollector | None) -> Any:
    """What a collector has gathered; None where its batches did not show what it needs."""
    if collector is None:
        return None
    distributed.merge_collectors(collector)
    try:
        return collector.result()
    except Undecided as error:
        log.info(
            "nothing could be gathered while training, a pass of its own has to do it: %s",
            error.what,
        )
        return None


def train_unfrozen(model: nn.Module) -> None:
    """Bring `model` into training mode, but for modules whose parameters are all frozen.

    These, with all inside them (batch norms, whose running statistics would go on learning, and
    dropout), stay in evaluation mode: what is frozen computes the same in training as later.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@traced("evaluate")
def _evaluate(training: _Training, epoch: int) -> Metrics | None:
    stepper = training.stepper
    is_quick = _is_quick(training, epoch)
    return _judged(stepper.kept, training.val, stepper.engine, stepper.task, is_quick=is_quick)


def _is_quick(training: _Training, epoch: int) -> bool:
    """Whether an epoch is judged without the metrics that are slow: the last one, which is the best
    more often than not, is judged by all.
    """
    metrics = training.stepper.task.metrics.values()
    if training.metric.is_slow or not any(metric.is_slow for metric in metrics):
        return False
    return training.stepper.extras.is_trial or epoch < training.epochs - 1


def _snapshot(training: _Training, epoch: int, metrics: Metrics | None, collected: Any) -> Snapshot:
    stepper = training.stepper
    is_last = epoch == training.epochs - 1
    # No later epoch can make the weights worse.
    is_final = metrics is None or is_last
    weights = {}
    # The model itself never has those of its average.
    if not is_final or stepper.averaged is not None:
        weights = {name: x.clone() for name, x in stepper.kept.state_dict().items()}
    optimizer_state: OptimState = {}
    if not is_final or is_last:
        optimizer_state = state_of(stepper.model, stepper.optimizer)
    rank = rank_of(metrics, training.metric, epoch)
    return Snapshot(epoch, rank, metrics, collected, weights, optimizer_state)


def _beside(model: nn.Module, state: OptimState) -> OptimState:
    """The momentum on each parameter's own device."""
    placed: OptimState = {}
    devices = {name: parameter.device for name, parameter in model.named_parameters()}
    for name, entry in state.items():
        placed[name] = {key: x.to(devices[name]) for key, x in entry.items()}
    return placed


def _diverged(loss: float, epoch: int, batch: int, config: TrainConfig) -> TrainError:
    # A rate far off is not brought back by fifths.
    lower = option(config.called, float(f"{min(config.lr / 5, LR_SCRATCH):.2g}"))
    return TrainError(
        f"the loss became {loss}",
        where=f"epoch {epoch + 1}, batch {batch + 1}",
        remedy=f"lower the learning rate: it is {config.lr:g}, try {lower}",
    )


def _line(loss: float, metrics: Metrics | None, metric: Metric) -> str:
    if metrics is None:
        return f"loss {loss:.4f}"
    return f"loss {loss:.4f}, validation {metric.name} {metrics.value(metric.name):.4f}"


@contextlib.contextmanager
def _modes_restored(model: nn.Module) -> Iterator[None]:
    """Afterwards each module is in the mode that it was in, and has no gradients."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _reproducible(engine: Engine) -> Iterator[None]:
    with torch.random.fork_rng(), same_bits(engine.device):
        yield
