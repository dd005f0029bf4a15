"""What one step of the loop works with, and what its first stages make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from prunedge.graph import ChannelGraph, trace
from prunedge.importance import Scores
from prunedge.pruning.context import PruneContext
from prunedge.pruning.gathered import kept_scores
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.steps import Clock, State, Step, removals


@dataclass(frozen=True)
class StepWork:
    """A step under way: from which `state`, after which steps, and the model's channel graph."""

    context: PruneContext
    policy: StopPolicy
    history: Sequence[Step]
    state: State
    graph: ChannelGraph
    clock: Clock = field(default_factory=Clock)

    @property
    def number(self) -> int:
        """Which step it is, as users count: polishes are none."""
        return len(removals(self.history))

    @property
    def seed(self) -> int:
        """What all that is random in the step follows from: made again, it is the same."""
        return self.context.seed * 10_000 + self.number

    def of(self, state: State) -> StepWork:
        """The same step with the model in another state."""
        return replace(self, state=state)


@dataclass(frozen=True)
class Ranking:
    """The scores of all channels. `refused` maps groups that stay whole to the reason; `was_kept`:
    the training of the model has gathered the scores.
    """

    scores: Scores
    refused: Mapping[str, str]
    was_kept: bool


def begin_step(
    context: PruneContext, policy: StopPolicy, history: Sequence[Step], state: State
) -> StepWork:
    """A step from the last good state, whose graph is traced where it is not known."""
    clock = Clock()
    graph = state.graph or trace(state.model, context.trainer.example())
    clock.lap("surgery")
    return StepWork(context, policy, history, state, graph, clock)


def rank_channels(work: StepWork) -> Ranking:
    """The scores that the model's training has gathered, or those of a pass of their own."""
    context = work.context
    kept = kept_scores(context, work.history, work.state)
    scores = kept or context.trainer.rank(
        work.state.model, work.graph, context.criterion, work.seed
    )
    work.clock.lap("rank")
    return Ranking(scores, _refused(work, scores), was_kept=kept is not None)


def _refused(work: StepWork, scores: Scores) -> dict[str, str]:
    """Groups that stay whole: the criterion can't judge them, or a removal could not be proven."""
    refused = {}
    for group in work.graph.groups:
        if group.name not in scores.values:
            refused[group.name] = f"the criterion {work.context.criterion} can't judge it"
    for step in work.history:
        for frozen in step.frozen:
            refused[frozen["name"]] = frozen["reason"]
    return refused
