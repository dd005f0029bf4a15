"""What is recorded of a step: its line in the history, and the state after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prunedge.graph import ChannelGraph, trace
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.pruning.context import PruneContext
from prunedge.pruning.cut import Cut
from prunedge.pruning.gathered import gathered
from prunedge.pruning.planner import StepPlanner
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.recover import Recovered
from prunedge.pruning.steps import Clock, Iteration, State, Step, last_accepted
from prunedge.pruning.trainer import Judgement
from prunedge.pruning.work import Ranking, StepWork
from prunedge.surgery import OptimState
from prunedge.utils import distributed

log = logging.getLogger(__name__)


def record_step(
    work: StepWork,
    ranking: Ranking,
    planner: StepPlanner,
    cut: Cut,
    recovered: Recovered,
    ratio: float,
) -> Iteration:
    """The line of a step that asked for the share `ratio`, and the state after it."""
    context = work.context
    limited = planner.limit_warning(cut.plan, cut.ratio)
    if limited:
        log.warning("step %d: %s", work.number, limited)

    frozen = {**ranking.refused, **cut.surgery.refused}
    step = step_of(
        cut.graph,
        context.reference(work.history),
        recovered.before,
        recovered.after,
        work.clock.seconds,
        index=len(work.history),
        number=work.number,
        removed=cut.plan.removes(work.graph),
        accepted=recovered.verdict.accepted,
        keeps_rule=recovered.verdict.keeps_rule,
        reason=recovered.verdict.reason,
        start=last_accepted(work.history).index,
        fraction_asked=ratio,
        frozen=[{"name": name, "reason": reason} for name, reason in frozen.items()],
        rounds=recovered.rounds,
        epochs=recovered.epochs,
        scored="while training" if ranking.was_kept else "in a pass",
        limited=limited,
    )
    if context.device is not None:
        predicted = context.device.cost(work.state.model, work.graph).total(cut.plan)
        step = replace(step, latency_ms=cut.latency_ms, predicted_ms=predicted)

    scores = gathered(context, recovered.model, recovered.scores, distills=True)
    state = replace(
        cut.state,
        model=recovered.model,
        scores=scores,
        optimizer_state=recovered.optimizer_state,
    )
    return Iteration(step, state, recovered.history)


def step_zero(
    context: PruneContext,
    model: nn.Module,
    policy: StopPolicy,
    scores: Scores | None = None,
    optimizer_state: OptimState | None = None,
    *,
    plan: Plan | None = None,
    graph: ChannelGraph | None = None,
) -> Iteration:
    """Step 0: the model to start from, measured on the validation split.

    `scores` are used when their provenance says that they are what this loop would gather
    (`gathered`), and left otherwise. `plan` says how it was pruned before, if it was; `graph` is
    its channel graph, where that is known. It is compared with the context's `first` model.
    """
    graph = graph or trace(model, context.trainer.example())
    clock = Clock()
    judged = context.trainer.evaluate(model, policy.metric)
    clock.lap("evaluate")

    reason = "the unpruned model"
    if context.first is not None:
        verdict = policy.accepts(context.first, judged, context.trainer.sources())
        reason = f"the start, which was pruned before: {verdict.reason}"
    step = step_of(
        graph,
        context.first,
        judged,
        judged,
        clock.seconds,
        index=0,
        removed=0,
        accepted=True,
        keeps_rule=True,
        reason=reason,
    )
    if context.device is not None:
        latency = distributed.broadcast_object(
            context.device.measure(model, context.trainer.example())
        )
        predicted = context.device.cost(model, graph).total()
        step = replace(step, latency_ms=latency, predicted_ms=predicted)
    return Iteration(step, State(model, plan or Plan({}), scores, optimizer_state, graph))


def step_of(
    graph: ChannelGraph,
    first: Step | None,
    before: Judgement,
    after: Judgement,
    seconds: Mapping[str, Any],
    *,
    fraction_asked: float = 0.0,
    **fields: Any,
) -> Step:
    """A line of the history: what the model costs and does, compared with the `first` one; `fields`
    are the others of a Step.
    """
    widths = graph.widths()
    original_channels = first.channels if first else graph.channels
    return Step(
        channels=graph.channels,
        fraction_asked=fraction_asked,
        fraction_removed=1 - graph.channels / original_channels if original_channels else 0.0,
        metrics_before=dict(before.values),
        metrics=dict(after.values),
        metric_before=before.value,
        metric_after=after.value,
        macs=graph.macs(),
        params=graph.params(),
        size_mb=size_mb(graph),
        kept=widths,
        original=first.original if first else widths,
        correct=after.correct,
        majority=None if after.constant is None else after.constant.score,
        majority_answer=None if after.constant is None else after.constant.answer,
        only_answer=after.only_answer,
        **seconds,
        **fields,
    )


def size_mb(graph: ChannelGraph) -> float:
    """Megabytes (10^6) of the float32 parameters and buffers."""
    return sum(torch.Size(shape).numel() for shape in graph.shapes.values()) * 4 / 1e6
