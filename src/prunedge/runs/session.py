"""The main job on a run folder: train, prune, test. What was cut off goes on from its last step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.edge.bench.hardware import processor
from prunedge.errors import RunError
from prunedge.graph import ChannelGraph, trace
from prunedge.importance import find
from prunedge.latency import Steering, Timer, steer
from prunedge.models import Loaded, build_told
from prunedge.models.final_activation import refuse_probabilities
from prunedge.pruning.context import PruneContext, RecoveryConfig
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.pruning.steps import Iteration, State
from prunedge.runs import baselines, unpruned
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.checks import refuse_missing_classes, refuse_unsuited
from prunedge.runs.images import images_of
from prunedge.runs.leakage import refuse_seen
from prunedge.runs.resumption import change, note_computing, policy_of
from prunedge.runs.run import SEEN, Run, create, open_run, writing
from prunedge.runs.testing import on_test
from prunedge.runs.training import refuse_one_class, taught, transfer_settings, with_rate
from prunedge.tasks import Task, make_task
from prunedge.train import Engine, make_engine, measure_engine
from prunedge.utils import distributed, trust
from prunedge.utils.tracing import phase, span, traced

__all__ = ["Callbacks", "Session", "prune", "resume", "resume_training", "train"]

log = logging.getLogger(__name__)


def train(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """Transfer learning alone: a run whose history is the unpruned model."""
    session = _begin(config, out, callbacks or Callbacks(), "train")
    with _held(out):
        return _train(session)


def resume_training(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a training from its last kept epoch, to the same result as if it had never been
    cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `train`.
    """
    with _held(path):
        return _train(_resume(path, callbacks or Callbacks(), changes))


def prune(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """The whole job in a new run folder: train (or take over `config.model.start`), prune until the
    rule speaks, test once.
    """
    session = _begin(config, out, callbacks or Callbacks(), "prune")
    with _held(out):
        return _prune(session)


def resume(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a run from its last kept step, to the same result as if it had never been cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `prune`; a
    run that has ended goes on if they let it.
    """
    with _held(path):
        return _prune(_resume(path, callbacks or Callbacks(), changes))


class Session:
    """What a run works with: one config, one data set, one model, one graph. Each is made once,
    when it is first asked for.

    `start` is the run that the model is taken from, if any.
    """

    def __init__(self, config: RunConfig, callbacks: Callbacks, run: Run | None = None) -> None:
        self.config = config
        self.callbacks = callbacks
        self._run = run
        self.loaded: Loaded | None = None

    @property
    def run(self) -> Run:
        """The run's folder."""
        assert self._run is not None
        return self._run

    @run.setter
    def run(self, run: Run) -> None:
        self._run = run
        self.config = run.config

    @cached_property
    @traced("load")
    def data(self) -> Dataset:
        """The images. DataError where their place is gone, with the command that names another."""
        config = self.config
        if self._run is not None:
            moved: tuple[object, ...] = (self.run.verb(), "DATA", "--resume", self.run.path)
        elif config.model.start:
            moved = ("prune", "DATA", "--from", config.model.start, "--out", "OUT")
        else:
            moved = ()
        return images_of(config, *moved, progress=self.callbacks.progress)

    @cached_property
    def task(self) -> Task:
        """What is predicted of the images."""
        return make_task(self.data.spec)

    @cached_property
    def start(self) -> Run | None:
        """The run that this one goes on from; None where it trains its model itself."""
        if not self.config.model.start:
            return None
        return open_run(self.config.model.start)

    @cached_property
    def start_state(self) -> State:
        """What the run that this one goes on from handed over."""
        assert self.start is not None
        return self.start.state(self.start.best().index)

    @cached_property
    def model(self) -> nn.Module:
        """The model that the run begins with: the start's, or one with its weights loaded, which is
        then trained in place.
        """
        if self.start is not None:
            return self.start_state.model.eval()
        model = self.config.model
        built, self.loaded = build_told(
            model.name, self.data.classes, model.weights, seed=self.config.data.seed
        )
        return built

    @cached_property
    def graph(self) -> ChannelGraph:
        """The channel graph of that model, trained or not."""
        return trace(self.model, self.data.example())

    @cached_property
    def engine(self) -> Engine:
        """What computes: measured when the run begins, and the same on every resumption."""
        run = self.run
        record = run.engine()
        if record is None:
            engine = measure_engine(
                self.model,
                self.data.example(8),
                precision=self.config.train.precision,
                task=self.task,
            )
            record = distributed.broadcast_object(self._engine_record(engine))
            run.write("engine.json", record)
        else:
            engine = make_engine(record["precision"])
        self._require_same_images(record)
        for line in note_computing(
            run, torch.get_num_threads(), distributed.world_size(), engine.accelerator
        ):
            log.warning("%s", line)
        self.run = run.of_images(record)
        return engine

    def _engine_record(self, engine: Engine) -> dict[str, Any]:
        data = self.data
        return {
            "precision": engine.name,
            "threads": torch.get_num_threads(),
            "processes": distributed.world_size(),
            "processor": processor(),
            "accelerator": engine.accelerator,
            "fingerprint": data.fingerprint,
            "classes": list(data.classes),
            "range": None if data.greys is None else str(data.greys),
        }

    def _require_same_images(self, record: Mapping[str, Any]) -> None:
        data = self.data
        if record["fingerprint"] == data.fingerprint and record["classes"] == list(data.classes):
            return
        raise RunError(
            f"the images in {self.config.data.path} have changed since this run began",
            where=self.run.path,
            remedy="put the images back as they were, or start a new run",
        )

    @cached_property
    def device(self) -> Steering | None:
        """The device that steers, if one does: what was measured of it when the run began is kept
        in the run.
        """
        address = self.config.device.address
        if address is None:
            return None
        steering = self.run.read_as("latency.json", Steering.from_json)
        if steering is not None:
            return steering
        if self.callbacks.progress is not None:
            self.callbacks.progress(0, 1, f"timing layers on {address}")
        with span("device"):
            record = steer(self.model.eval(), self.data.example(), timer_of(self.config)).to_json()
        record = distributed.broadcast_object(record)
        self.run.write("latency.json", record)
        return Steering.from_json(record)

    @property
    def policy(self) -> StopPolicy:
        """The rule."""
        return policy_of(self.config)

    def context(self, model: nn.Module, teacher: nn.Module | None = None) -> PruneContext:
        """What every step of the loop works with; `model` is any of this architecture."""
        config = with_rate(self.config, self.run)
        settings = replace(transfer_settings(config), lr=config.recover.lr)
        finetune = replace(
            settings.config(model),
            called="finetune_lr",
            distill=config.recover.distill if teacher is not None else 0.0,
        )
        schedule = config.train.schedule_epochs or config.train.epochs
        if config.recover.rewind and schedule > config.recover.epochs:
            finetune = replace(finetune, start=1 - config.recover.epochs / schedule)
        return PruneContext(
            data=self.data,
            engine=self.engine,
            finetune=finetune,
            criterion=config.prune.criterion,
            epochs=config.recover.epochs,
            seed=config.data.seed,
            progress=self.callbacks.progress,
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
            device=self.device,
        )

    def keep(self, iteration: Iteration) -> None:
        """Keep an iteration in the run, and tell of its step."""
        self.run.commit(iteration)
        if self.callbacks.on_step is not None:
            self.callbacks.on_step(iteration.step)


def timer_of(config: RunConfig) -> Timer:
    """What times layers on the config's device."""
    assert config.device.address is not None
    return Timer(config.device.address, config.device.runtime, config.device.threads)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a run for writing until the block ends: the first process does, for all of them.
    RunError when it is none, or in use.
    """
    open_run(path)
    with ExitStack() as stack:
        distributed.rank_zero_only(lambda: stack.enter_context(writing(path)))()
        yield


@traced("start", phase)
def _begin(config: RunConfig, out: Path, callbacks: Callbacks, verb: str) -> Session:
    """A new run folder, made only when the images load and the model can be built: a typing error
    leaves nothing behind.
    """
    trust.give(config.prune.criterion)
    if not config.model.start:
        trust.give(config.model.name)
    find(config.prune.criterion)
    if config.device.address is not None:
        timer_of(config)

    session = Session(config, callbacks)
    refuse_missing_classes(session)
    unknown = refuse_seen(config, session.data)
    if session.start is not None:
        how = taught(session.start, config.model.start)
        refuse_one_class(session.start.best(), session.task, how)
    refuse_probabilities(session.model, session.data.example(4), config.model.name)
    refuse_unsuited(session, verb)

    session.run = run = create(out, config, verb)
    if unknown:
        run.write(SEEN, unknown)
        for line in unknown:
            log.warning("%s", line)
    if session.loaded is not None:
        run.write("weights.json", session.loaded.to_json())
        callbacks.say(session.loaded.sentence())
    return session


def _resume(path: Path, callbacks: Callbacks, changes: Mapping[str, Any] | None) -> Session:
    run = open_run(path)
    for name in (run.config.model.name, run.config.prune.criterion):
        trust.check(name, path)
    # As the first process finds them: it may have made them before another looks.
    changes = distributed.broadcast_object(changes)
    if changes:
        run = change(run, changes, callbacks.say)
    return Session(run.config, callbacks, run)


def _train(session: Session) -> Run:
    if not session.run.steps():
        _prepare(session)
        unpruned.make(session)
    return session.run


@traced("start", phase)
def _prepare(session: Session) -> None:
    """Load the images and choose what computes, or find what did."""
    _ = session.engine


def _prune(session: Session) -> Run:
    if session.run.test() is not None:
        return session.run
    _prepare(session)
    state = unpruned.make(session).state if not session.run.steps() else None
    run = session.run
    steps = run.steps()
    best = run.best().index
    refuse_one_class(steps[0], session.task, taught(run))

    first = run.load_first() if session.config.recover.distill or run.plan(best).keep else None
    if first is not None and run.plan(best).keep:
        run.require_plan(best, trace(first, session.data.example()))
    if state is None:
        state = run.state(best)
    teacher = first if session.config.recover.distill else None
    context = replace(session.context(state.model, teacher), first=_first_of(run))

    for iteration in iterate(context, session.policy, steps, state, finished=run.finish):
        with phase(f"step {iteration.step.index}"):
            session.keep(iteration)

    compared = {}
    if session.config.prune.baseline:
        compared = baselines.make(session, context)
    run.write("test.json", _test(session, compared))
    return run


def _first_of(run: Run) -> Any:
    """The first model of the run's chain, where that is not its step 0."""
    chain = run.chain()
    return None if chain is None else chain.first


@traced("test", phase)
def _test(session: Session, compared: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The models, and the baselines, on the test split: the one time that it is looked at, unless
    an ended run went on.
    """
    run = session.run
    models = {}
    for reference in run.references():
        is_start = reference.tested == "start"
        models[reference.tested] = run.load(0) if is_start else run.load_first()
    models["best"] = run.load()
    tested = on_test(models, session.data, session.engine)
    beside = {name: model.eval() for name, model in compared.items()}
    return {
        **tested,
        "baselines": on_test(beside, session.data, session.engine),
        "looks_before": run.looks_before(),
    }
