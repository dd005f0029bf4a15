"""A run of a training of the user's own: what was cut off goes on, to the same result."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunedge.config import RunConfig, asked
from prunedge.edge.tasks.metric import Metric
from prunedge.errors import PrunedgeError, RunError
from prunedge.latency import Steering, steer
from prunedge.pruning.context import PruneContext
from prunedge.pruning.costs import Device
from prunedge.pruning.from_config import (
    context_of,
    policy_of,
    watched_metric,
    what_a_step_saves,
)
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import Finished
from prunedge.pruning.polish import polish
from prunedge.pruning.prune_with import (
    OwnTraining,
    config_with,
    judged_by,
    refuse_of_training,
    start_with,
)
from prunedge.pruning.record import step_zero
from prunedge.pruning.steps import Iteration, State, Step, last_accepted
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.new import create, refuse_full
from prunedge.runs.own_model import (
    accelerator_of,
    engine_record,
    refuse_another,
    refuse_other_state,
)
from prunedge.runs.own_trainer import fixed_trainer, training_of
from prunedge.runs.resumption import change, changes_of, note_computing
from prunedge.runs.run import Run, open_run
from prunedge.runs.session import LATENCY, timed_on, timer_of
from prunedge.runs.working import failure_noted, held_run
from prunedge.utils import trust
from prunedge.utils.signs import CONFIG

log = logging.getLogger(__name__)

FOLDERS = "fit"  # below it each fine-tuning has a folder of its own

Made = Iterator[tuple[Step, nn.Module]]


def search(
    own: OwnTraining,
    out: Path,
    given: Mapping[str, Any],
    callbacks: Callbacks | None = None,
    device: Device | None = None,
) -> Made:
    """Begin a run in the folder `out`, or go on with the one that lies there; yields each step with
    its model.

    Of a run that goes on, the steps that were made before come first: those whose models were kept.
    `given` are all the settings by their keys; what ends a run may differ from what it began with
    (`resumption.changes_of`). RunError where something else differs, or the model is another.
    """
    callbacks = callbacks or Callbacks()
    if not (out / CONFIG).is_file():
        run, context, start = begin(own, out, given, callbacks, device)
        with held_run(out), failure_noted(run):
            _keep(run, start, callbacks)
            yield start.step, start.state.model
            yield from _pruned(run, context, start.state, callbacks)
        return

    run = open_run(out)
    _require_own(run)
    config = _config_now(run, own, given, has_device=device is not None)
    refuse_another(run, own)
    with held_run(out):
        run = _changed(run, changes_of(run, _asked(config), "prune"), callbacks)
        for step in run.steps():
            if step.accepted:
                model = replace(run, template=own.model).load(step.index)
                yield step, _beside(own.model, model)
        yield from _gone_on(run, own, callbacks, device)


def begin(
    own: OwnTraining,
    out: Path,
    given: Mapping[str, Any],
    callbacks: Callbacks,
    device: Device | None = None,
) -> tuple[Run, PruneContext, Iteration]:
    """A new run: its folder is made only when the functions work, and the unpruned model is judged.
    RunError where the folder holds something.
    """
    refuse_full(out)
    refuse_of_training(given)
    refuse_other_state(own.model)
    trust.give(str(given.get("criterion", "")))
    if device is None and given.get("device") is not None:
        config = config_with(own, given, has_device=False)
        device = _steered(config, own, callbacks)
    trainer = replace(own.trainer, folder=out / FOLDERS, progress=callbacks.progress)
    own = replace(own, trainer=trainer)
    config, context, _, start = start_with(own, given, device)
    record = {} if device is None else _record_of(device)

    run = replace(create(out, config, "prune"), template=own.model)
    if device is not None:
        run.write(LATENCY, record)
    run.write("engine.json", engine_record(own))
    callbacks.say(what_a_step_saves(config))
    return run, context, start


def resume(
    path: Path,
    callbacks: Callbacks | None = None,
    changes: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Run:
    """Go on with a run of a training that has a name: the one that made it, or the one that the
    user names now.
    """
    callbacks = callbacks or Callbacks()
    run = open_run(path)
    if not run.config.has_own_trainer:
        raise fixed_trainer(run)
    trust.check(run.config.prune.criterion, path)
    own = training_of(run, name)
    refuse_another(run, own)
    with held_run(path):
        run = _changed(run, changes or {}, callbacks)
        for _ in _gone_on(run, own, callbacks):
            pass
    return run


def prune(
    own: OwnTraining, out: Path, given: Mapping[str, Any], callbacks: Callbacks | None = None
) -> Run:
    """The whole search in a new run folder; RunError where it holds something."""
    refuse_full(out)
    for _ in search(own, out, given, callbacks):
        pass
    return open_run(out)


def _require_own(run: Run) -> None:
    """RunError where prunedge itself trained the model of a run."""
    if not run.config.has_own_trainer:
        raise RunError(
            "this run is of prunedge's own training",
            where=run.path,
            remedy=f"go on with {run.how_to_go_on()}, or name another folder",
        )


def _config_now(
    run: Run, own: OwnTraining, given: Mapping[str, Any], *, has_device: bool
) -> RunConfig:
    """What the run is asked for now, with the metric that it watches unless another is named."""
    refuse_of_training(given)
    config = config_with(own, given, has_device=has_device)
    metric = own.metric or run.config.trainer.metric
    assert metric is not None
    config = judged_by(config, own, metric)
    watched, wanted = watched_metric(run.config), watched_metric(config)
    if wanted != watched:
        raise RunError(
            f"the run watches {_in_words(watched)}, and is asked for {_in_words(wanted)}",
            where=run.path,
            remedy="leave it as it was, or start a new run in another folder",
        )
    return config


def _in_words(metric: Metric) -> str:
    return f"{metric.name} ({'higher' if metric.higher_is_better else 'lower'} is better)"


def _asked(config: RunConfig) -> dict[str, Any]:
    """What a user may ask for, of a config."""
    return {key: value for key, value in config.flat().items() if key in asked()}


def _changed(run: Run, changes: Mapping[str, Any], callbacks: Callbacks) -> Run:
    return change(run, changes, callbacks.say) if changes else run


def _gone_on(
    run: Run, own: OwnTraining, callbacks: Callbacks, device: Device | None = None
) -> Made:
    """The steps that a run has not made yet."""
    if run.has_ended():
        return
    run = replace(run, template=own.model)
    trainer = replace(own.trainer, folder=run.path / FOLDERS, progress=callbacks.progress)
    with failure_noted(run):
        trainer.functions.refuse_missing(run.config.prune.criterion)
        trainer.functions.refuse_unsuited(run.config.prune.criterion)
        if run.engine() is None:  # it was cut off as it began
            run.write("engine.json", engine_record(own))
        for line in note_computing(run, torch.get_num_threads(), 1, accelerator_of(own.model)):
            log.warning("%s", line)
        context = context_of(run.config, trainer, _kept_device(run, own, callbacks, device))
        steps = run.steps()
        if steps:
            state = run.state(last_accepted(steps).index)
            state = replace(state, model=_beside(own.model, state.model))
        else:  # it was cut off before it had one
            start = step_zero(context, own.model, policy_of(run.config))
            _keep(run, start, callbacks)
            yield start.step, start.state.model
            state = start.state
        yield from _pruned(run, context, state, callbacks)


def _pruned(run: Run, context: PruneContext, state: State, callbacks: Callbacks) -> Made:
    """Prune from the last accepted step until the rule ends it, and polish; each step is kept
    before it is given.
    """
    policy = policy_of(run.config)
    steps = run.steps()
    if not steps[-1].is_polish or run.stopped() is None:
        for iteration in iterate(context, policy, steps, state, finished=run.finish):
            _keep(run, iteration, callbacks)
            yield iteration.step, iteration.state.model
    for iteration in polish(context, policy, run.steps(), run.state):
        _keep(run, iteration, callbacks)
        yield iteration.step, iteration.state.model
    stop = run.read("stop.json")
    result = run.best().index
    # Also where the process ended between a polish and this.
    if stop is not None and stop["keep"] != result:
        run.finish(Finished(stop["reason"], result))


def _keep(run: Run, iteration: Iteration, callbacks: Callbacks) -> None:
    run.commit(iteration)
    if callbacks.on_step is not None:
        callbacks.on_step(iteration.step)


def _beside(given: nn.Module, model: nn.Module) -> nn.Module:
    """A model that was read, where the given one lies."""
    devices = {parameter.device for parameter in given.parameters()}
    return model.to(devices.pop()) if len(devices) == 1 else model


def _steered(config: RunConfig, own: OwnTraining, callbacks: Callbacks) -> Steering:
    """The device that the settings name, timed with the model."""
    example = own.trainer.example()
    if not isinstance(example, torch.Tensor):
        raise PrunedgeError(
            "a device times models that take one batch of images",
            where="device",
            remedy="leave it out: --for macs, or --for params, tells what a channel costs",
        )
    if callbacks.progress is not None:
        callbacks.progress(0, 1, f"timing layers on {config.device.address}")
    steering = steer(own.model.eval(), example, timer_of(config))
    callbacks.say(timed_on(steering))
    return steering


def _record_of(device: Device) -> dict[str, Any]:
    """What is kept of a device that steers."""
    if not isinstance(device, Steering):
        raise PrunedgeError(
            f"a run keeps what was measured of its device, and {type(device).__name__} tells "
            "nothing of that",
            where="device=",
            remedy="give what prunedge.steer(...) gives, or leave out= away",
        )
    return device.to_json()


def _kept_device(
    run: Run, own: OwnTraining, callbacks: Callbacks, device: Device | None
) -> Steering | None:
    """The device that the run is steered by, as it was measured when it began."""
    if run.config.device.address is None:
        return None
    if run.read(LATENCY) is None:  # it was cut off as it began
        run.write(LATENCY, _record_of(device or _steered(run.config, own, callbacks)))
    return run.read_as(LATENCY, Steering.from_json)
