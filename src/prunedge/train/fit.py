"""Train a network in place, and keep its best epoch."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from prunedge.errors import TrainError, Undecided
from prunedge.models.classification import class_logits, cross_entropy
from prunedge.models.cost import evaluating
from prunedge.train.engine import Engine, same_bits
from prunedge.train.evaluate import Metrics, measure, outputs
from prunedge.train.optim import OptimState, make_optimiser, state_of
from prunedge.train.schedule import FitRecipe, learning_rate
from prunedge.train.sync import add_gradients, seeing_whole, start_alike
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.distributed import Share
from prunedge.utils.tracing import timed

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]  # batches done, batches in all, what is going on
Penalty = Callable[[nn.Module, float], None]  # adds to the gradients, the training being so far along (0 to 1)


class Collector(Protocol):
    """Whatever gathers numbers (importance scores) from the batches of an epoch while a network trains on them.

    The loss that goes backward is the mean over the batch. Where several processes share it, what each of them sees is its part of
    the gradient of the mean over the whole; `gathered` and `take_over` then join what they have.
    """

    def reset(self) -> None:
        """Forget everything: an epoch begins."""

    def attach(self, net: nn.Module) -> AbstractContextManager[Any]:
        """Hook into `net` for as long as the context lasts."""

    def start_batch(self, batch_size: int, here: int | None = None) -> None:
        """A batch of that many pictures comes next, `here` of them in this process (None: all, there is no other)."""

    def gathered(self) -> Any:
        """What was gathered since `reset`, to be sent to another process."""

    def take_over(self, gathered: Any) -> None:
        """Add what another process has gathered."""

    def result(self) -> Any:
        """What was gathered since `reset`; `Undecided` where the batches did not show what it needs."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: the mean training `loss` per picture, the metrics on validation data if any, seconds of each part."""

    loss: float
    val: Metrics | None
    seconds: float
    seconds_evaluate: float


@dataclass(frozen=True)
class FitResult:
    """A trained network: `net` (the one passed in), and with it the state of the epoch `best_epoch` (0-based).

    `state` is the momentum by parameter name, `collected` what the collector gathered in that epoch (None when it failed), `val` its
    metrics.
    `seconds` is training alone, `seconds_evaluate` the validation. With no epochs `best_epoch` is -1 and `history` is
    empty.
    """

    net: nn.Module
    state: OptimState
    val: Metrics | None
    best_epoch: int
    history: tuple[Epoch, ...]
    seconds: float
    seconds_evaluate: float
    collected: Any


@dataclass(frozen=True)
class _Training:
    """What stays the same through all epochs of one call; `wrapped` and `driver` are Fabric's net and optimiser."""

    net: nn.Module
    wrapped: Any
    driver: Any
    recipe: FitRecipe
    engine: Engine
    seed: int
    epochs: int
    collector: Collector | None
    progress: Progress
    teacher: nn.Module | None
    penalty: Penalty | None


@dataclass(frozen=True)
class Snapshot:
    """The best epoch so far; `weights` is empty when that is the one just trained and nothing can come after it.

    `rank` orders epochs, `state` is the momentum by parameter name, `collected` what the collector gave.
    """

    epoch: int
    rank: tuple[float, float]
    val: Metrics | None
    collected: Any
    weights: dict[str, torch.Tensor]
    state: OptimState


@dataclass(frozen=True)
class Halfway:
    """A training after its first `epochs` epochs: the network's `weights`, the momentum, the best epoch and all epochs so far."""

    epochs: int
    weights: dict[str, torch.Tensor]
    state: OptimState
    best: Snapshot
    history: tuple[Epoch, ...]


class Keeper(Protocol):
    """Where a training is kept while it goes on, so that one that is cut off goes on from its last epoch."""

    def kept(self) -> Halfway | None:
        """What was kept last; None when nothing was."""

    def keep(self, halfway: Halfway) -> None:
        """Keep it in the place of what was kept before."""


def fit(
    net: nn.Module,
    data_train: Any,
    *,
    epochs: int,
    recipe: FitRecipe,
    engine: Engine,
    seed: int,
    val: Any = None,
    state: OptimState | None = None,
    collector: Collector | None = None,
    progress: Progress | None = None,
    teacher: nn.Module | None = None,
    penalty: Penalty | None = None,
    keeper: Keeper | None = None,
) -> FitResult:
    """Train `net` in place on a Split or any batches ((N, 3, S, S) float32, (N,) int64) and keep its best epoch.

    After every epoch `val` (a Split or batches) is evaluated; at the end the weights, the momentum and the collector's
    result are those of the epoch with the highest `recipe.metric`, the lower loss breaking ties (without `val`: of the
    last one). `teacher` is the network whose answers `recipe.distill` adds; `penalty` adds the gradients of a regularisation. `state` is
    the momentum to start from, by parameter name. With a `keeper` the training is kept after every epoch, and goes on from what is kept, to
    the same result. Everything random follows from `seed` and the
    epoch's number, and torch's global random state is left as it was: the same call on the same machine with as many
    threads gives the same weights (on a GPU as far as torch has algorithms that do; the log names those that may not).
    Modules whose parameters are all frozen stay in evaluation mode (`train_unfrozen`).
    Several processes divide each batch and do the same mathematics as one (`prunedge.train.sync`).
    Raises TrainError when the loss isn't finite, or `state` doesn't fit the network; ModelError before the first step when the network is
    no classifier of the labels (`prunedge.models.classification`).
    """
    if epochs < 0:
        raise TrainError(f"{epochs} epochs", remedy="give 0 or more")
    engine = engine.suited(net)
    data_train, val = _repeatable(data_train), None if val is None else _repeatable(val)
    halfway = distributed.from_first(keeper.kept()) if keeper is not None else None
    history: list[Epoch] = list(halfway.history) if halfway else []
    best: Snapshot | None = halfway.best if halfway else None
    if recipe.distill and teacher is None:
        raise TrainError("distillation needs a teacher", remedy="give the unpruned network as teacher=")
    with engine.holding(net), _teaching(teacher, engine), _as_it_was(net), _reproducible(engine):
        if halfway:
            net.load_state_dict(halfway.weights)
        optimiser = make_optimiser(net, recipe, halfway.state if halfway else state)
        # Fabric would wrap a network of several processes in DistributedDataParallel, which `add_gradients` says why not.
        wrapped, driver = (net, optimiser) if distributed.size() > 1 else engine.fabric.setup(net, optimiser, move_to_device=False)
        start_alike(net, optimiser)
        taught = teacher if recipe.distill else None
        ours = _Training(net, wrapped, driver, recipe, engine, seed, epochs, collector, progress or _silent, taught, penalty)
        if epochs == 0:
            best = _snapshot(ours, optimiser, -1, _measured(ours, val), None)
        for epoch in range(halfway.epochs if halfway else 0, epochs):
            start = time.perf_counter()
            loss, collected = _train_epoch(ours, data_train, epoch)
            middle = time.perf_counter()
            metrics = _measured(ours, val)
            history.append(Epoch(loss, metrics, middle - start, time.perf_counter() - middle))
            log.info("epoch %d of %d: %s", epoch + 1, epochs, _told(loss, metrics, recipe.metric))
            if best is None or _rank(metrics, recipe.metric, epoch) > best.rank:
                best = _snapshot(ours, optimiser, epoch, metrics, collected)
            if keeper is not None and epoch < epochs - 1:
                keeper.keep(Halfway(epoch + 1, net.state_dict(), state_of(net, optimiser), best, tuple(history)))
        assert best is not None
        if best.epoch < epochs - 1:
            net.load_state_dict(best.weights)
    return FitResult(
        net=net,
        state=_beside(net, best.state),
        val=best.val,
        best_epoch=best.epoch,
        history=tuple(history),
        seconds=sum(epoch.seconds for epoch in history),
        seconds_evaluate=sum(epoch.seconds_evaluate for epoch in history),
        collected=best.collected,
    )


def _train_epoch(ours: _Training, data: Any, epoch: int) -> tuple[float, Any]:
    """One pass over the training data; gives the mean loss per picture and what the collector gathered."""
    torch.manual_seed((ours.seed * 1_000_003 + epoch) % 2**63)  # dropout of an epoch doesn't depend on those before it
    train_unfrozen(ours.net)
    batches = _batches(data, ours.recipe, ours.seed, epoch)
    count, losses, pictures_seen = len(batches), 0.0, 0
    if ours.collector:
        ours.collector.reset()
    with ours.collector.attach(ours.net) if ours.collector else contextlib.nullcontext():
        for index, share in enumerate(distributed.shares(batches)):
            done = epoch * count + index
            rate, along = learning_rate(done, ours.epochs * count, ours.recipe), (done + 1) / (ours.epochs * count)
            loss = _train_batch(ours, share, rate, along)
            if not math.isfinite(loss):
                raise _astray(f"the loss became {loss}", epoch, index, ours.recipe)
            losses, pictures_seen = losses + loss * share.whole, pictures_seen + share.whole
            ours.progress(done + 1, ours.epochs * count, f"epoch {epoch + 1}/{ours.epochs}, loss {losses / pictures_seen:.3f}")
    if pictures_seen == 0:
        raise TrainError("there is no picture to train on", remedy="give the training split some pictures")
    return losses / pictures_seen, _collected(ours.collector)


def _collected(collector: Collector | None) -> Any:
    """What a collector has gathered in an epoch; None where its batches did not show what it needs."""
    if collector is None:
        return None
    distributed.join(collector)
    try:
        return collector.result()
    except Undecided as error:
        log.info("nothing could be gathered while training, a pass of its own has to do it: %s", error.what)
        return None


def train_unfrozen(net: nn.Module) -> None:
    """Bring `net` into training mode, but for modules with parameters none of which requires a gradient.

    These, with all inside them (batch norms, whose running statistics would go on learning, and dropout), stay in evaluation mode: what is
    frozen computes the same in training as later.
    """
    net.train()
    for module in net.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _train_batch(ours: _Training, share: Share, lr: float, along: float) -> float:
    """One step of the optimiser, `along` (0 to 1) of all; gives the batch's mean loss."""
    for group in ours.driver.param_groups:
        group["lr"] = lr
    if ours.collector:
        ours.collector.start_batch(*((share.whole,) if distributed.size() == 1 else (share.whole, share.here)))
    with ours.engine.span("forward"), seeing_whole(share, ours.engine):
        inputs = ours.engine.picture(share.pictures)
        truth = share.labels.to(ours.engine.device, non_blocking=True)
        logits = class_logits(ours.wrapped(inputs))
    loss = cross_entropy(logits, truth, label_smoothing=ours.recipe.label_smoothing)
    if ours.teacher is not None:
        loss = (1 - ours.recipe.distill) * loss + ours.recipe.distill * _distance(ours, inputs, logits.float())
    if distributed.size() > 1:
        loss = loss * (share.here / share.whole)  # its part of the mean over the whole batch
    whole = distributed.total(loss.detach().clone())
    with ours.engine.span("backward"):
        ours.engine.fabric.backward(loss)
        if distributed.size() > 1:
            add_gradients(ours.net)
    with ours.engine.span("optimiser"):
        return _stepped(ours, whole, along)


def _stepped(ours: _Training, loss: torch.Tensor, along: float) -> float:
    """Let the optimiser take its step unless the loss or the gradients aren't finite; gives the loss, NaN where only these aren't."""
    if ours.penalty is not None:
        ours.penalty(ours.net, along)
    norm = ours.engine.fabric.clip_gradients(ours.wrapped, ours.driver, max_norm=ours.recipe.clip, error_if_nonfinite=False)
    # Both at once: each number that the program asks a GPU for makes it wait until all before is done.
    value, length = (float(loss), 0.0) if norm is None else torch.stack((loss.float(), norm.detach().float().to(loss.device))).tolist()
    if not math.isfinite(value):
        return value
    if not math.isfinite(length):
        return math.nan
    ours.driver.step()
    ours.driver.zero_grad(set_to_none=True)
    return value


@timed("teacher")
def _distance(ours: _Training, inputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """What the teacher's softened answers still differ by, the mean over the batch."""
    assert ours.teacher is not None
    with torch.no_grad(), ours.engine.autocast():
        answers = class_logits(ours.teacher(inputs)).float()
    heat = ours.recipe.temperature
    soft = F.kl_div(F.log_softmax(logits / heat, 1), F.log_softmax(answers / heat, 1), reduction="batchmean", log_target=True)
    return soft * heat**2


def _batches(data: Any, recipe: FitRecipe, seed: int, epoch: int) -> Any:
    """The epoch's batches: shuffled and augmented by a Split, or as they come from any other iterable."""
    if not hasattr(data, "batches"):
        return data
    rest = len(data) % recipe.batch_size
    # Batch normalisation can't learn from a last batch of one picture and is misled by two or three.
    drop_last = 0 < rest < 4 and len(data) > recipe.batch_size
    return data.batches(recipe.batch_size, shuffle_seed=seed, augment=recipe.augment, epoch=epoch, drop_last=drop_last)


def _repeatable(data: Any) -> Any:
    """The data itself, or its batches in a list when it can't be counted or gone through twice."""
    if hasattr(data, "batches") or (hasattr(data, "__len__") and iter(data) is not data):
        return data
    return list(data)


@timed("evaluate")
def _measured(ours: _Training, val: Any) -> Metrics | None:
    return None if val is None else distributed.from_first(measure(*outputs(ours.net, val, ours.engine)))


def _rank(metrics: Metrics | None, metric: str, epoch: int) -> tuple[float, float]:
    return (float(epoch), 0.0) if metrics is None else (metrics.value(metric), -metrics.loss)


def _snapshot(ours: _Training, optimiser: torch.optim.Optimizer, epoch: int, metrics: Metrics | None, collected: Any) -> Snapshot:
    is_final = metrics is None or epoch == ours.epochs - 1  # no later epoch can make the weights worse
    weights = {} if is_final else {name: tensor.clone() for name, tensor in ours.net.state_dict().items()}
    state = state_of(ours.net, optimiser) if not is_final or epoch == ours.epochs - 1 else {}
    return Snapshot(epoch, _rank(metrics, ours.recipe.metric, epoch), metrics, collected, weights, state)


def _beside(net: nn.Module, state: OptimState) -> OptimState:
    """The momentum on each parameter's own device."""
    homes = {name: parameter.device for name, parameter in net.named_parameters()}
    return {name: {key: one.to(homes[name]) for key, one in entry.items()} for name, entry in state.items()}


def _astray(what: str, epoch: int, batch: int, recipe: FitRecipe) -> TrainError:
    return TrainError(
        what,
        where=f"epoch {epoch + 1}, batch {batch + 1}",
        remedy=f"lower the learning rate: it is {recipe.lr:g}, try {option(recipe.called, float(f'{recipe.lr / 5:.2g}'))}",
    )


def _told(loss: float, metrics: Metrics | None, metric: str) -> str:
    return f"loss {loss:.4f}" + (f", validation {metric} {metrics.value(metric):.4f}" if metrics else "")


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


@contextlib.contextmanager
def _teaching(teacher: nn.Module | None, engine: Engine) -> Iterator[None]:
    if teacher is None:
        yield
        return
    with engine.holding(teacher), evaluating(teacher):
        yield


@contextlib.contextmanager
def _as_it_was(net: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        net.zero_grad(set_to_none=True)
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _reproducible(engine: Engine) -> Iterator[None]:
    with torch.random.fork_rng(), same_bits(engine.device):
        yield
