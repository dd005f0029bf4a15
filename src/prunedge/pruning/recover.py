"""Fine-tuning after a cut, and more of it before a step is taken back; or a training before the cut
that draws the channels that leave to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from prunedge.graph import ChannelGraph, copied
from prunedge.graph.plan import Plan
from prunedge.importance import Scores, gathered_while_training
from prunedge.pruning.context import PruneContext
from prunedge.pruning.cut import Cut
from prunedge.pruning.policy import Outcome, Verdict
from prunedge.pruning.steps import doubts
from prunedge.pruning.work import StepWork
from prunedge.surgery import OptimState
from prunedge.tasks import Metrics
from prunedge.train import Penalty, TrainExtras, evaluate, fit, penalty

# A loop of its own for each: the same seed would show them the same order of images.
SEED_OF_SPARSIFYING = 2_500
SEED_OF_ROUND = 5_000


@dataclass(frozen=True)
class Recovered:
    """A smaller model after fine-tuning, and what the rule says of it.

    `before` and `after` are its metrics on the validation split; `scores` were gathered in the last
    of `rounds` fine-tunings.
    """

    model: nn.Module
    before: Metrics
    after: Metrics
    optimizer_state: OptimState | None
    scores: Scores | None
    rounds: int
    verdict: Verdict


def sparsify_leaving(work: StepWork, plan: Plan) -> StepWork:
    """The step after a training in which the channels that leave are drawn to zero more and more,
    where the context asks for it. The model of before stays as it was.
    """
    context = work.context
    recovery = context.recovery
    if recovery.sparsity != "growing" or not plan.keep:
        return work
    leaving = {}
    for name, kept in plan.keep.items():
        leaving[name] = sorted(set(range(work.graph.group(name).size)) - set(kept))
    state = work.state
    fitted = fit(
        copied(state.model),
        context.data.train,
        epochs=context.epochs,
        config=context.finetune,
        engine=context.engine,
        seed=work.seed + SEED_OF_SPARSIFYING,
        task=context.task,
        extras=TrainExtras(
            optimizer_state=state.optimizer_state,
            progress=context.progress,
            teacher=recovery.teacher,
            penalty=penalty("growing", work.graph, recovery.sparsity_strength, leaving),
        ),
    )
    work.clock.lap("finetune")
    return work.of(replace(state, model=fitted.model, optimizer_state=fitted.optimizer_state))


def recover(work: StepWork, cut: Cut) -> Recovered:
    """Fine-tune the smaller model in place, and in extra rounds while it breaks the rule and they
    bring it back.
    """
    context = work.context
    policy = work.policy
    model = cut.state.model
    optimizer_state = cut.state.optimizer_state
    before = evaluate(model, context.data.val, context.engine, context.task)
    work.clock.lap("evaluate")

    collector = gathered_while_training(context.criterion, cut.graph)
    first = context.reference(work.history)
    start = None if context.first is None else work.history[0]
    rounds = 0
    drops: list[float] = []
    while True:
        fitted = fit(
            model,
            context.data.train,
            epochs=context.epochs,
            config=context.finetune,
            engine=context.engine,
            seed=work.seed + SEED_OF_ROUND * rounds,
            val=context.data.val,
            task=context.task,
            extras=TrainExtras(
                optimizer_state=optimizer_state,
                collector=collector,
                progress=context.progress,
                teacher=context.recovery.teacher,
                penalty=_penalty(context, cut.graph),
            ),
        )
        work.clock.lap("finetune")
        rounds += 1
        optimizer_state = fitted.optimizer_state
        assert fitted.val is not None
        outcome = Outcome.of_metrics(fitted.val, policy.metric, context.task)
        verdict = policy.accepts(first, outcome, context.sources(), start, doubts(work.history))
        drops.append(policy.metric.drop(first.metric_after, outcome.value))
        if verdict.keeps_rule or rounds > context.extra_rounds:
            break
        if not is_recovering(drops, policy.max_drop):
            break

    return Recovered(
        model=fitted.model,
        before=before,
        after=fitted.val,
        optimizer_state=fitted.optimizer_state,
        scores=fitted.collected,
        rounds=rounds,
        verdict=verdict,
    )


def is_recovering(drops: Sequence[float], allowed: float) -> bool:
    """Whether one more round of fine-tuning is worth its time, by the drop of the metric after each
    so far and the one that is allowed.

    After the first, always; later where the last one made good at least half as much as is still
    missing. A model that has lost most of its channels gets better for many epochs, and they are
    cheap; one that lost what it can't do without stays where it is.
    """
    if len(drops) < 2:
        return True
    gained = drops[-2] - drops[-1]
    missing = drops[-1] - allowed
    return 2 * gained >= missing


def _penalty(context: PruneContext, graph: ChannelGraph) -> Penalty | None:
    """What draws channels to zero in every fine-tuning; the growing penalty has a training of its
    own.
    """
    recovery = context.recovery
    if recovery.sparsity == "growing":
        return None
    return penalty(recovery.sparsity, graph, recovery.sparsity_strength)
