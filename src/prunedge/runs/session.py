"""What a run works with: one config, one data set, one model, one graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunedge.config import RunConfig
from prunedge.data import Dataset
from prunedge.edge.bench.hardware import processor
from prunedge.edge.tasks.base import scale_rows
from prunedge.errors import RunError
from prunedge.graph import ChannelGraph, trace
from prunedge.latency import Steering, Timer, steer
from prunedge.models import Loaded, build_with_report
from prunedge.pruning.context import PruneContext
from prunedge.pruning.from_config import context_of, finetuning, policy_of, trainer_of
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.steps import Iteration, State
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.data_record import twins_of
from prunedge.runs.images import images_of
from prunedge.runs.learning import note_epochs
from prunedge.runs.origin import open_start
from prunedge.runs.resumption import note_computing
from prunedge.runs.run import Run, open_run
from prunedge.runs.training import with_rate
from prunedge.tasks import Task, make_task
from prunedge.train import Engine, TrainConfig, make_engine, measure_engine
from prunedge.utils import distributed
from prunedge.utils.tracing import span, traced
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.data.duplicates import Twin

log = logging.getLogger(__name__)

LATENCY = "latency.json"  # what was measured of the device that steers


class RunSession:
    """What a run works with: one config, one data set, one model, one graph. Each is made once,
    when it is first asked for.

    Of a run that is about to begin, `out` is where its folder will be.
    """

    def __init__(
        self,
        config: RunConfig,
        callbacks: Callbacks,
        run: Run | None = None,
        out: Path | None = None,
    ) -> None:
        self.config = config
        self.callbacks = callbacks
        self._run = run
        self._out = out
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
            moved = ("prune", "DATA", "--from", config.model.start, "--out", self._out)
        else:
            moved = ()
        return images_of(config, *moved, progress=self.callbacks.progress)

    @cached_property
    def twins(self) -> list[Twin] | None:
        """The test images that look like one of another split; None where there are too many images
        to compare.
        """
        return twins_of(self.data)

    @cached_property
    def task(self) -> Task:
        """What is predicted of the images."""
        return make_task(self.data.spec)

    @cached_property
    def start(self) -> Run | None:
        """The run that this one goes on from; None where it trains its model itself."""
        if not self.config.model.start:
            return None
        return open_run(self.config.model.start) if self._run is None else open_start(self._run)

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
        data = self.config.data
        built, self.loaded = build_with_report(
            model.name,
            self.task.outputs,
            model.weights,
            seed=data.seed,
            in_channels=data.in_channels,
            image_norm=data.image_norm,
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
            "scales": scale_rows(data.spec.scales),
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
        """The device that steers, if one does: measured before the run has a folder, which then
        keeps what was measured.
        """
        address = self.config.device.address
        if address is None:
            return None
        if self._run is not None:
            kept = self._run.read_as(LATENCY, Steering.from_json)
            if kept is not None:
                return kept
        if self.callbacks.progress is not None:
            self.callbacks.progress(0, 1, f"timing layers on {address}")
        with span("device"):
            record = steer(self.model.eval(), self.data.example(), timer_of(self.config)).to_json()
        record = distributed.broadcast_object(record)
        if self._run is not None:
            self._run.write(LATENCY, record)
        steering = Steering.from_json(record)
        self.callbacks.say(timed_on(steering))
        return steering

    @property
    def policy(self) -> StopPolicy:
        """Which step is kept, and when the loop ends."""
        return policy_of(self.config)

    def context(self, model: nn.Module, teacher: nn.Module | None = None) -> PruneContext:
        """What every step of the loop works with; `model` is any of this architecture."""
        config = self._with_rate(model)
        trainer = trainer_of(
            config,
            self.data,
            self.engine,
            model,
            teacher=teacher,
            progress=self.callbacks.progress,
        )
        return context_of(config, trainer, self.device)

    def finetune(self, model: nn.Module) -> TrainConfig:
        """How `model` is fine-tuned, without a teacher."""
        return finetuning(self._with_rate(model), self.data, model)

    def _with_rate(self, model: nn.Module) -> RunConfig:
        """The config, with the rate that the model was trained with."""
        return with_rate(self.config, self.run, finetuning(self.config, self.data, model))

    def forget_model(self) -> None:
        """Free the model that the run began with: the loop goes on from smaller ones."""
        for name in ("model", "graph", "start_state"):
            vars(self).pop(name, None)

    def keep(self, iteration: Iteration) -> None:
        """Keep an iteration in the run, and tell of its step."""
        note_epochs(self.run, iteration)
        self.run.commit(iteration)
        if self.callbacks.on_step is not None:
            self.callbacks.on_step(iteration.step)


def timed_on(steering: Steering) -> str:
    """Which machine's milliseconds steer, in a sentence."""
    address = steering.timer.address
    table = steering.table
    place = "this machine" if address == "local" else address
    name = table.device.get("processor", "of an unknown kind")
    return (
        f"milliseconds are those of {place} ({name}), {table.runtime}, "
        f"{counted(table.threads, 'thread')}"
    )


def timer_of(config: RunConfig) -> Timer:
    """What times layers on the config's device."""
    assert config.device.address is not None
    return Timer(config.device.address, config.device.runtime, config.device.threads)
