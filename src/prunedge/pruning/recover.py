"""Fine-tuning after a cut, and more of it before a step is taken back; or a training before the cut
that draws the channels that leave to zero.
"""

from __future__ import annotations

import logging
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
from prunedge.train import Penalty, TrainConfig, TrainExtras, evaluate, fit, penalty
from prunedge.train.learning_rate import lower_rate
from prunedge.train.state import Epoch

log = logging.getLogger(__name__)

# A loop of its own for each: the same seed would show them the same order of images.
SEED_OF_SPARSIFYING = 2_500
SEED_OF_ROUND = 5_000


@dataclass(frozen=True)
class Recovered:
    """A smaller model after fine-tuning, and what the rule says of it.

    `before` and `after` are its metrics on the validation split; `scores` were gathered in the last
    of `rounds` fine-tunings, which had `epochs` in all: those of `history`.
    """

    model: nn.Module
    before: Metrics
    after: Metrics
    optimizer_state: OptimState | None
    scores: Scores | None
    rounds: int
    epochs: int
    history: tuple[Epoch, ...]
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

    It is the last epoch of each that is judged, where the cosine has come to its low end, and not
    the best one: the rule asks the validation images once a round, and not after every epoch.

    A round that ends in a model with one answer is no start for another: the next begins with the
    model as it was cut, at a lower learning rate. If that does so too, it is the last.
    """
    context = work.context
    policy = work.policy
    model = cut.state.model
    optimizer_state = cut.state.optimizer_state
    as_cut = {name: value.clone() for name, value in model.state_dict().items()}
    finetune = context.finetune
    before = evaluate(model, context.data.val, context.engine, context.task)
    work.clock.lap("evaluate")

    collector = gathered_while_training(context.criterion, cut.graph)
    first = context.reference(work.history)
    start = None if context.first is None else work.history[0]
    epochs = context.epochs_of(cut.graph.macs(), first)
    rounds = 0
    history: list[Epoch] = []
    drops: list[float] = []
    while True:
        fitted = fit(
            model,
            context.data.train,
            epochs=epochs,
            config=finetune,
            engine=context.engine,
            seed=work.seed + SEED_OF_ROUND * rounds,
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
        after = evaluate(model, context.data.val, context.engine, context.task)
        work.clock.lap("evaluate")
        rounds += 1
        history += fitted.history
        optimizer_state = fitted.optimizer_state
        outcome = Outcome.of_metrics(after, policy.metric, context.task)
        verdict = policy.accepts(first, outcome, context.sources(), start, doubts(work.history))
        if verdict.keeps_rule or rounds > context.extra_rounds:
            break
        if outcome.only_answer is not None:
            if finetune.lr < context.finetune.lr:
                break
            finetune = replace(finetune, lr=lower_rate(finetune))
            log.info(
                "the fine-tuning ended in a model with one answer: once more at the rate %g",
                finetune.lr,
            )
            model.load_state_dict(as_cut)
            optimizer_state = cut.state.optimizer_state
            drops = []
            continue
        drops.append(policy.metric.drop(first.metric_after, outcome.value))
        if not is_recovering(drops, policy.allowed(first)):
            break

    return Recovered(
        model=fitted.model,
        before=before,
        after=after,
        optimizer_state=fitted.optimizer_state,
        scores=fitted.collected,
        rounds=rounds,
        epochs=rounds * epochs,
        history=tuple(history),
        verdict=_with_rate(verdict, context.finetune, finetune),
    )


def _with_rate(verdict: Verdict, usual: TrainConfig, last: TrainConfig) -> Verdict:
    """The verdict, with the rate of the last round where it had to be lowered."""
    if last.lr == usual.lr:
        return verdict
    said = f"learning rate {last.lr:g}, since {usual.lr:g} ended in one answer"
    return replace(verdict, reason=f"{verdict.reason}; {said}")


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
