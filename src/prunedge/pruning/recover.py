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
from prunedge.pruning.policy import Verdict
from prunedge.pruning.steps import doubts
from prunedge.pruning.trainer import FineTuning, Judgement
from prunedge.pruning.work import StepWork
from prunedge.surgery import OptimState
from prunedge.train import Penalty, penalty
from prunedge.train.state import Epoch

log = logging.getLogger(__name__)

# A loop of its own for each: the same seed would show them the same order of images.
SEED_OF_SPARSIFYING = 2_500
SEED_OF_ROUND = 5_000


@dataclass(frozen=True)
class Recovered:
    """A smaller model after fine-tuning, and what the rule says of it.

    `before` and `after` are what it does on validation data; `scores` were gathered in the last
    of `rounds` fine-tunings, which had `epochs` in all: those of `history`.
    """

    model: nn.Module
    before: Judgement
    after: Judgement
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
    fitted = context.trainer.fit(
        copied(state.model),
        FineTuning(
            epochs=context.epochs,
            seed=work.seed + SEED_OF_SPARSIFYING,
            optimizer_state=state.optimizer_state,
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
    model as it was cut, and more gently. If that does so too, it is the last.
    """
    context = work.context
    trainer = context.trainer
    policy = work.policy
    model = cut.state.model
    as_cut = {name: value.clone() for name, value in model.state_dict().items()}
    before = trainer.evaluate(model, policy.metric)
    work.clock.lap("evaluate")

    first = context.reference(work.history)
    start = None if context.first is None else work.history[0]
    sources = trainer.sources()
    tuning = FineTuning(
        epochs=context.epochs_of(cut.graph.macs(), first),
        seed=work.seed,
        optimizer_state=cut.state.optimizer_state,
        collector=gathered_while_training(context.criterion, cut.graph),
        penalty=_penalty(context, cut.graph),
    )
    rounds = 0
    history: list[Epoch] = []
    drops: list[float] = []
    while True:
        fitted = trainer.fit(model, replace(tuning, seed=work.seed + SEED_OF_ROUND * rounds))
        model = fitted.model
        work.clock.lap("finetune")
        after = trainer.evaluate(model, policy.metric)
        work.clock.lap("evaluate")
        rounds += 1
        history += fitted.history
        verdict = policy.accepts(first, after, sources, start, doubts(work.history))
        if verdict.keeps_rule or rounds > context.extra_rounds:
            break
        if after.only_answer is not None:
            if tuning.is_gentler:
                break
            tuning = replace(tuning, is_gentler=True, optimizer_state=cut.state.optimizer_state)
            log.info("the fine-tuning ended in a model with one answer: once more, more gently")
            model.load_state_dict(as_cut)
            drops = []
            continue
        tuning = replace(tuning, optimizer_state=fitted.optimizer_state)
        drops.append(policy.metric.drop(first.metric_after, after.value))
        if not is_recovering(drops, policy.allowed(first)):
            break

    if fitted.note:
        verdict = replace(verdict, reason=f"{verdict.reason}; {fitted.note}")
    return Recovered(
        model=model,
        before=before,
        after=after,
        optimizer_state=fitted.optimizer_state,
        scores=fitted.collected,
        rounds=rounds,
        epochs=rounds * tuning.epochs,
        history=tuple(history),
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
