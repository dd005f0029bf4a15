"""The last, longer fine-tuning: of the model that is about to be handed over, or of a smaller one
that it may bring back within the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from prunedge.graph import copied, trace
from prunedge.pruning.context import PruneContext
from prunedge.pruning.policy import Outcome, StopPolicy, Verdict
from prunedge.pruning.record import step_of
from prunedge.pruning.steps import (
    Clock,
    Iteration,
    State,
    Step,
    handed_over,
    last_accepted,
    lineage,
    removals,
)
from prunedge.pruning.trainer import FineTuning

# A loop of its own: the same seed would show the images in the order of a step's fine-tuning.
SEED_OF_POLISH = 7_500


def polish(
    context: PruneContext,
    policy: StopPolicy,
    history: Sequence[Step],
    state_of: Callable[[int], State],
) -> Iterator[Iteration]:
    """Fine-tune what the search has found for `policy.polish` epochs, and yield each attempt.

    The smallest model that was accepted comes first. Where it lies beyond the rule, polishing may
    bring it back; else the one that it was made from follows, up to the smallest that keeps the
    rule. An attempt that is worse than the model that it began with, or than an earlier polish of
    that model, is taken back. `state_of` gives the state of a step; its momentum is not used, so
    that it doesn't matter whether it was kept.
    """
    history = list(history)
    while policy.polish:
        start = to_polish(history, policy.polish)
        if start is None:
            return
        iteration = _polished(context, policy, history, start, state_of(start.index))
        history.append(iteration.step)
        yield iteration


def to_polish(history: Sequence[Step], epochs: int) -> Step | None:
    """The step whose model is to be polished next for so many epochs; None where there is nothing
    to do any more.
    """
    result = handed_over(history)
    attempts = [step for step in history if step.is_polish and step.epochs == epochs]
    polished = {step.start for step in attempts}
    for step in reversed(lineage(history, last_accepted(history).index)):
        if result in attempts and result.start == step.index:
            return None
        # A smaller model came back within the rule, however long it was polished for.
        if result.is_polish and result.start is not None and result.start > step.index:
            return None
        if step.index not in polished:
            return step
        if step.keeps_rule:
            return None
    return None


def _polished(
    context: PruneContext, policy: StopPolicy, history: Sequence[Step], start: Step, state: State
) -> Iteration:
    """The model of the step `start` after a fine-tuning of its own."""
    clock = Clock()
    graph = state.graph or trace(state.model, context.trainer.example())
    # The same number however often the run was gone on with.
    number = len(removals(history[: start.index]))
    work = FineTuning(
        epochs=policy.polish,
        seed=context.seed * 10_000 + number + SEED_OF_POLISH,
        is_polish=True,
    )
    fitted = context.trainer.fit(copied(state.model), work)
    clock.lap("finetune")
    judged = context.trainer.evaluate(fitted.model, policy.metric)
    clock.lap("evaluate")
    first = context.reference(history)
    other_start = None if context.first is None else history[0]
    verdict = _verdict(
        policy,
        _to_beat(history, start),
        judged,
        policy.accepts(first, judged, context.trainer.sources(), other_start),
    )
    step = step_of(
        graph,
        first,
        judged,
        judged,
        clock.seconds,
        index=len(history),
        number=start.number,
        removed=0,
        accepted=verdict.accepted,
        keeps_rule=verdict.keeps_rule,
        reason=verdict.reason,
        start=start.index,
        is_polish=True,
        rounds=1,
        epochs=policy.polish,
    )
    step = replace(
        step,
        metrics_before=start.metrics,
        metric_before=start.metric_after,
        latency_ms=start.latency_ms,
        predicted_ms=start.predicted_ms,
    )
    polished = replace(state, model=fitted.model, scores=None, optimizer_state=None, graph=graph)
    return Iteration(step, polished, fitted.history)


def _to_beat(history: Sequence[Step], start: Step) -> Step:
    """What a polish of the step `start` must not be worse than: an earlier polish of it that was
    kept, or itself.
    """
    kept = [step for step in history if step.is_polish and step.accepted]
    return [start, *(step for step in kept if step.start == start.index)][-1]


def _verdict(policy: StopPolicy, before: Step, outcome: Outcome, verdict: Verdict) -> Verdict:
    """Whether a polished model takes the place of the one `before`."""
    metric = policy.metric
    is_worse = metric.order(outcome.value) < metric.order(before.metric_after)
    if before.keeps_rule and is_worse:
        than = "the polish before" if before.is_polish else "before polishing"
        reason = f"{verdict.reason}; worse than {than}"
        return Verdict(accepted=False, keeps_rule=False, reason=reason)
    return Verdict(verdict.keeps_rule, verdict.keeps_rule, verdict.reason)
