"""The loop: rank, choose, cut, recover, record; and again, until the policy says that it is enough.

It writes nothing. Each step's randomness comes from the seed and the step's number alone, so a loop
that is cut off and goes on from its last good state makes the same steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prunedge.pruning.context import PruneContext
from prunedge.pruning.cut import cut
from prunedge.pruning.planner import StepPlanner
from prunedge.pruning.policy import Continue, Finished, StopPolicy
from prunedge.pruning.record import record_step
from prunedge.pruning.recover import recover, sparsify_leaving
from prunedge.pruning.steps import Iteration, State, Step, handed_over, removals
from prunedge.pruning.work import begin_step, rank_channels
from prunedge.utils.tracing import phase

NOTHING_LEFT = "no channel is left"


def iterate(
    context: PruneContext,
    policy: StopPolicy,
    history: Sequence[Step],
    state: State,
    *,
    finished: Callable[[Finished], None] | None = None,
) -> Iterator[Iteration]:
    """Make one step after the other and yield each, until the policy ends it. `state` is that of
    the last accepted step.

    Why it ended goes to `finished`.
    """
    history = list(history)
    action = policy.next_action(history, context.first)

    while isinstance(action, Continue):
        with phase(f"step {len(removals(history))}"):
            iteration = one_step(context, policy, history, state, action.ratio)
        if isinstance(iteration, Finished):
            action = iteration
            break

        history.append(iteration.step)
        if iteration.step.accepted:
            state = iteration.state
        yield iteration
        action = policy.next_action(history, context.first)

    if finished is not None and isinstance(action, Finished):
        finished(action)


def one_step(
    context: PruneContext, policy: StopPolicy, history: Sequence[Step], state: State, ratio: float
) -> Iteration | Finished:
    """Remove this share of what is saved and recover; the end where no channel may go any more, or
    every smaller step would be one that was taken back.
    """
    work = begin_step(context, policy, history, state)

    ranking = rank_channels(work)
    planner = StepPlanner(work, ranking)
    untried = planner.untried(ratio)
    if untried is None:
        return policy.given_up(history)
    plan, ratio = untried
    work = sparsify_leaving(work, plan)

    smaller = cut(work, planner, plan, ratio)
    if smaller is None:
        return _nothing_left(context, history)
    recovered = recover(work, smaller)
    return record_step(work, ranking, planner, smaller, recovered, ratio)


def _nothing_left(context: PruneContext, history: Sequence[Step]) -> Finished:
    """The end where nothing may be removed any more."""
    why = "that makes it faster on the device" if context.device else "that may be removed"
    return Finished(f"{NOTHING_LEFT} {why}", handed_over(history).index)
