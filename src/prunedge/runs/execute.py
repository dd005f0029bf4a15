"""Training and pruning in a run folder, and the test: what was cut off goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from prunedge.config import RunConfig
from prunedge.graph import trace
from prunedge.pruning.context import PruneContext
from prunedge.pruning.loop import iterate
from prunedge.pruning.policy import Finished
from prunedge.pruning.polish import polish
from prunedge.pruning.steps import Step, last_accepted
from prunedge.runs import baselines, unpruned
from prunedge.runs.begin import begin
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.data_record import note_data
from prunedge.runs.resumption import change
from prunedge.runs.run import Run, open_run
from prunedge.runs.run_models import require_plan
from prunedge.runs.session import RunSession
from prunedge.runs.small import small_networks
from prunedge.runs.testing import on_test
from prunedge.runs.training import refuse_one_class, taught
from prunedge.runs.working import failure_noted, held_run
from prunedge.train.collapse import NOTHING_TO_PRUNE
from prunedge.utils import distributed, trust
from prunedge.utils.tracing import phase, traced


def train(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """Transfer learning alone: a run whose history is the unpruned model."""
    session = begin(config, out, callbacks or Callbacks(), "train")
    with held_run(out), failure_noted(session.run):
        return _train(session)


def resume_training(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a training from its last kept epoch, to the same result as if it had never been
    cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `train`.
    """
    with held_run(path):
        session = _resume(path, callbacks or Callbacks(), changes)
        with failure_noted(session.run):
            return _train(session)


def prune(config: RunConfig, out: Path, callbacks: Callbacks | None = None) -> Run:
    """The whole job in a new run folder: train (or take over `config.model.start`), prune until the
    stop policy ends it, test once.
    """
    session = begin(config, out, callbacks or Callbacks(), "prune")
    with held_run(out), failure_noted(session.run):
        return _prune(session)


def resume(
    path: Path, callbacks: Callbacks | None = None, changes: Mapping[str, Any] | None = None
) -> Run:
    """Go on with a run from its last kept step, to the same result as if it had never been cut off.

    `changes` are other values of the config's keys that `resumption.CHANGEABLE` has for `prune`; a
    run that has ended goes on if they let it.
    """
    with held_run(path):
        session = _resume(path, callbacks or Callbacks(), changes)
        with failure_noted(session.run):
            return _prune(session)


def _resume(path: Path, callbacks: Callbacks, changes: Mapping[str, Any] | None) -> RunSession:
    run = open_run(path)
    named = [run.config.model.name, run.config.prune.criterion]
    named += [network.model for network in small_networks(run.config)]
    for name in named:
        trust.check(name, path)
    # As the first process finds them: it may have made them before another looks.
    changes = distributed.broadcast_object(changes)
    if changes:
        run = change(run, changes, callbacks.say)
    return RunSession(run.config, callbacks, run)


def _train(session: RunSession) -> Run:
    if not session.run.steps():
        _prepare(session)
        unpruned.make(session)
    return session.run


@traced("start", phase)
def _prepare(session: RunSession) -> None:
    """Load the images and choose what computes, or find what did."""
    _ = session.engine
    note_data(session.run, session.data, lambda: session.twins)


def _prune(session: RunSession) -> Run:
    if session.run.test() is not None:
        return session.run
    _prepare(session)
    state = unpruned.make(session).state if not session.run.steps() else None
    run = session.run
    steps = run.steps()
    base = last_accepted(steps).index
    if steps[0].only_answer is not None:
        run.finish(Finished(NOTHING_TO_PRUNE, 0))
    refuse_one_class(steps[0], session.task, taught(run))

    teacher = _teacher(session, base)
    if state is None:
        state = run.state(base)
    context = replace(session.context(state.model, teacher), first=_first_of(run))
    if not steps[-1].is_polish or run.stopped() is None:
        iterations = iterate(context, session.policy, steps, state, finished=run.finish)
        # Nothing but the loop holds the model that it begins with.
        del state
        session.forget_model()
        for iteration in iterations:
            with phase(f"step {iteration.step.number}"):
                session.keep(iteration)
    _polish(session, context)

    compared = {}
    if session.config.prune.baseline or session.config.prune.small:
        compared = baselines.make(session)
    run.write("test.json", _test(session, compared))
    return run


def _polish(session: RunSession, context: PruneContext) -> None:
    """Fine-tune what the search has found for longer, where the config asks for it."""
    run = session.run
    for iteration in polish(context, session.policy, run.steps(), run.state):
        with phase("polish"):
            session.keep(iteration)
    stop = run.read("stop.json")
    result = run.best().index
    # Also where the process ended between a polish and this.
    if stop is not None and stop["keep"] != result:
        run.finish(Finished(stop["reason"], result))


def _teacher(session: RunSession, base: int) -> nn.Module | None:
    """The first, unpruned model where fine-tuning imitates it. RunError where the plan of the step
    `base` is none for that model.
    """
    run = session.run
    distills = bool(session.config.recover.distill)
    is_pruned = bool(run.plan(base).keep)
    if not (distills or is_pruned):
        return None
    first = run.load_first()
    if is_pruned:
        require_plan(run, base, trace(first, session.data.example()))
    return first if distills else None


def _first_of(run: Run) -> Step | None:
    """The first model of the run's chain, where that is not its step 0."""
    chain = run.chain()
    return None if chain is None else chain.first


@traced("test", phase)
def _test(session: RunSession, compared: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The models, and the baselines, on the test split: the one time that it is looked at, unless
    an ended run went on.
    """
    run = session.run
    models = {}
    for reference in run.references():
        is_start = reference.tested == "start"
        models[reference.tested] = run.load(0) if is_start else run.load_first()
    models["best"] = run.load()
    tested = on_test(
        models, session.data, session.engine, session.config.task.rule, session.twins or ()
    )
    beside = {name: model.eval() for name, model in compared.items()}
    return {
        **tested,
        "baselines": on_test(beside, session.data, session.engine),
        "looks_before": run.looks_before(),
    }
