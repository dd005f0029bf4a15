"""Step 0 of a run: the model that pruning starts from, trained here or taken from another run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from prunedge.importance import gathered_while_training
from prunedge.pruning.context import PruneContext
from prunedge.pruning.from_config import transfer_settings
from prunedge.pruning.gathered import gathered
from prunedge.pruning.record import step_zero
from prunedge.pruning.steps import Iteration, Step
from prunedge.pruning.trainer import Judgement
from prunedge.runs import origin
from prunedge.runs.checkpoint import RunCheckpointer
from prunedge.runs.run import Run
from prunedge.runs.run_models import share_model
from prunedge.runs.training import NAME as RATE
from prunedge.runs.training import inherit_rate, note_patience, rate_of
from prunedge.train import Rate, TrainExtras, penalty, transfer
from prunedge.utils import distributed
from prunedge.utils.checksums import file_digest
from prunedge.utils.tracing import phase, traced

if TYPE_CHECKING:
    from prunedge.runs.session import RunSession

log = logging.getLogger(__name__)


@traced("train", phase)
def make(session: RunSession) -> Iteration:
    """Train the model, or take over the start's, and keep it as step 0."""
    run = session.run
    context = session.context(session.model)
    checkpointer = RunCheckpointer(
        run.path, str(context.trainer.provenance(context.criterion, distills=False)), run.sign
    )
    if session.start is None:
        iteration = _trained(session, context, checkpointer)
    else:
        inherit_rate(run, session.start)
        iteration = _taken_over(session, session.start, context)
    session.keep(iteration)
    checkpointer.forget()
    if session.start is not None:
        share_model(run, session.start)
    return iteration


def _trained(
    session: RunSession, context: PruneContext, checkpointer: RunCheckpointer
) -> Iteration:
    run = session.run
    config = session.config
    model = session.model
    graph = session.graph
    settings = transfer_settings(config, session.data)
    rate = rate_of(
        run,
        model,
        session.data,
        settings.config(model),
        session.engine,
        progress=session.callbacks.progress,
        tell=session.callbacks.say,
    )

    def lowered(lower: Rate) -> None:
        # Cut off in between, the training begins anew at the rate before, to the same result.
        checkpointer.forget()
        run.write(RATE, lower.to_json())
        session.callbacks.say(lower.sentence())

    fitted = transfer(
        model,
        session.data,
        settings,
        engine=session.engine,
        seed=config.data.seed,
        rate=rate,
        lowered=lowered,
        extras=TrainExtras(
            progress=session.callbacks.progress,
            collector=gathered_while_training(config.prune.criterion, graph),
            penalty=penalty(config.train.sparsity, graph, config.train.sparsity_strength),
            checkpointer=checkpointer,
        ),
    )
    early = note_patience(run, fitted)
    if early is not None:
        session.callbacks.say(early)
    scores = gathered(context, fitted.model, fitted.collected)
    iteration = step_zero(
        context, fitted.model, session.policy, scores, fitted.optimizer_state, graph=graph
    )
    return replace(iteration, epochs=fitted.history)


def _taken_over(session: RunSession, source: Run, context: PruneContext) -> Iteration:
    """The model that another run handed over. Where that was pruned before, the first model of the
    chain is kept as well, and measured on this run's own images.
    """
    run = session.run
    policy = session.policy
    state = session.start_state
    chain = origin.chain_to(source, source.best().index)
    if state.plan.keep:
        origin.keep_first(run, source)
        first = _measured_first(run, context, session)
        digest = distributed.rank_zero_only(file_digest)(run.first_file())
        chain = replace(chain, first=first, weights=digest)
    run.write("chain.json", chain.to_json())

    iteration = step_zero(
        replace(context, first=chain.first),
        state.model,
        policy,
        state.scores,
        plan=state.plan,
        graph=session.graph,
    )
    if chain.first is not None:
        outcome = Judgement.of_step(iteration.step)
        verdict = policy.accepts(chain.first, outcome, context.trainer.sources())
        if not verdict.accepted:
            log.warning("the start breaks the rule already: %s", verdict.reason)
    return iteration


def _measured_first(run: Run, context: PruneContext, session: RunSession) -> Step:
    """The first model of the chain on this run's validation images (and on the device that
    steers).
    """
    model = run.load_first()
    step = step_zero(replace(context, device=None), model, session.policy).step
    if context.device is None:
        return step
    latency = context.device.measure(model, context.trainer.example())
    return replace(step, latency_ms=distributed.broadcast_object(latency))
