"""What brings a smaller model back to what it was: compensation, fine-tuning, and more of it before
a step is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from prunedge.graph import ChannelGraph, copied
from prunedge.graph.plan import Plan
from prunedge.importance import Scores, gathered_while_training
from prunedge.pruning.context import PruneContext
from prunedge.pruning.policy import Outcome, StopPolicy
from prunedge.pruning.steps import Clock, State, Step
from prunedge.surgery import OptimState, Surgery
from prunedge.surgery.compensate import compensate
from prunedge.tasks import Metrics
from prunedge.train import Penalty, TrainExtras, evaluate, fit, penalty

# A loop of its own for each: the same seed would show them the same order of images.
SEED_OF_FADING = 2_500
SEED_OF_ROUND = 5_000


@dataclass(frozen=True)
class Recovered:
    """A smaller model after fine-tuning, and whether the rule keeps it.

    `before` and `after` are its metrics on the validation split; `scores` were gathered in the last
    of `rounds` fine-tunings.
    """

    model: nn.Module
    before: Metrics
    after: Metrics
    momentum: OptimState | None
    scores: Scores | None
    rounds: int
    accepted: bool
    reason: str


def faded(context: PruneContext, state: State, graph: ChannelGraph, plan: Plan, seed: int) -> State:
    """The model after training in which the channels that leave are drawn to zero more and more;
    `state` stays as it was.
    """
    leaving = {}
    for name, kept in plan.keep.items():
        leaving[name] = sorted(set(range(graph.group(name).size)) - set(kept))
    recovery = context.recovery
    fitted = fit(
        copied(state.model),
        context.data.train,
        epochs=context.epochs,
        config=context.finetune,
        engine=context.engine,
        seed=seed + SEED_OF_FADING,
        task=context.task,
        extras=TrainExtras(
            state=state.momentum,
            progress=context.progress,
            teacher=recovery.teacher,
            penalty=penalty("growing", graph, recovery.sparsity_strength, leaving),
        ),
    )
    return replace(state, model=fitted.model, momentum=fitted.state)


def compensated(
    context: PruneContext, model: nn.Module, graph: ChannelGraph, surgery: Surgery
) -> None:
    """Hand what the removed channels gave to their consumers, in place, where the context asks for
    it.
    """
    recovery = context.recovery
    if recovery.compensate == "none":
        return
    calibration = context.data.train.take(recovery.calibration, context.seed).batches(32)
    compensate(model, graph, surgery.plan, surgery.model, calibration, recovery.compensate)


def recover(
    context: PruneContext,
    policy: StopPolicy,
    history: Sequence[Step],
    model: nn.Module,
    graph: ChannelGraph,
    momentum: OptimState | None,
    seed: int,
    clock: Clock,
) -> Recovered:
    """Fine-tune a smaller model in place, once more for each extra round while it breaks the
    rule.
    """
    before = evaluate(model, context.data.val, context.engine, context.task)
    clock.lap("evaluate")

    collector = gathered_while_training(context.criterion, graph)
    start = None if context.first is None else history[0]
    rounds = 0
    while True:
        fitted = fit(
            model,
            context.data.train,
            epochs=context.epochs,
            config=context.finetune,
            engine=context.engine,
            seed=seed + SEED_OF_ROUND * rounds,
            val=context.data.val,
            task=context.task,
            extras=TrainExtras(
                state=momentum,
                collector=collector,
                progress=context.progress,
                teacher=context.recovery.teacher,
                penalty=_penalty(context, graph),
            ),
        )
        clock.lap("finetune")
        rounds += 1
        momentum = fitted.state
        assert fitted.val is not None
        outcome = Outcome.of_metrics(fitted.val, policy.metric, context.task)
        accepted, reason = policy.accepts(
            context.reference(history), outcome, context.sources(), start
        )
        if accepted or rounds > context.extra_rounds:
            break

    return Recovered(
        model=fitted.model,
        before=before,
        after=fitted.val,
        momentum=fitted.state,
        scores=fitted.collected,
        rounds=rounds,
        accepted=accepted,
        reason=reason,
    )


def _penalty(context: PruneContext, graph: ChannelGraph) -> Penalty | None:
    """What draws channels to zero in every fine-tuning; the growing penalty has a training of its
    own.
    """
    recovery = context.recovery
    if recovery.sparsity == "growing":
        return None
    return penalty(recovery.sparsity, graph, recovery.sparsity_strength)
