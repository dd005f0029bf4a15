"""Which channels go in one step: the scores, within what the constraints, the targets and the
device allow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import lcm

from torch import nn

from prunedge.graph.plan import Plan
from prunedge.pruning.costs import Cost, cost_of
from prunedge.pruning.select import PlanConstraints, at_limit, choose
from prunedge.pruning.steps import last_accepted
from prunedge.pruning.work import Ranking, StepWork
from prunedge.surgery import Surgery, operate
from prunedge.utils import distributed
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

log = logging.getLogger(__name__)

GROWTH = 1.5  # of the share that a step removes, where a device is no faster for it


@dataclass(frozen=True)
class StepPlanner:
    """Chooses the channels of one step by their scores."""

    work: StepWork
    ranking: Ranking

    def plan(self, ratio: float) -> Plan:
        """The channels that matter least, this share of all; fewer where that reaches a target."""
        is_of_cost = self.work.context.currency != "channels"
        plan = choose(
            self.work.graph,
            self.ranking.scores,
            ratio,
            constraints=self.constraints(),
            exclude=self.ranking.refused,
            scaling=self.work.context.scaling,
            enough=self._is_enough(),
            total_cost=self._cost().total if is_of_cost else None,
        )
        return distributed.broadcast_object(plan)

    def untried(self, ratio: float) -> tuple[Plan, float] | None:
        """The plan of a step of this share, and the share; of the next smaller step as long as a
        step like that was taken back already. None where no smaller one is left.

        Where a smaller share chooses as many channels of every layer from the same model, they are
        the same ones: its fine-tuning would be that of the step before once more.
        """
        work = self.work
        start = last_accepted(work.history).index
        taken_back = work.policy.taken_back(work.history)
        tried = [step.kept for step in taken_back if step.start == start]
        share: float | None = ratio
        while share is not None:
            plan = self.plan(share)
            if not plan.keep or work.graph.widths(plan) not in tried:
                return plan, share
            log.info("a step of %.2f%% would be one that was taken back", 100 * share)
            share = work.policy.smaller(share)
        return None

    def _cost(self) -> Cost:
        """What the step's model costs, in the currency that the run saves."""
        context = self.work.context
        return cost_of(context.currency, self.work.state.model, self.work.graph, context.device)

    def constraints(self) -> PlanConstraints:
        """What a plan may do to a group; a device likes multiples of its own."""
        constraints = self.work.context.constraints
        device = self.work.context.device
        if device is None:
            return constraints
        return replace(constraints, round_to=lcm(constraints.round_to, device.multiple))

    def enlarge_until_faster(
        self, model: nn.Module, surgery: Surgery, ratio: float
    ) -> tuple[Surgery, float | None, float]:
        """The removal, its milliseconds on the device, and its share.

        A larger removal where that was no faster than the last good model; one that removes nothing
        where none is.
        """
        device = self.work.context.device
        assert device is not None
        accepted = [step for step in self.work.history if step.accepted]
        limit = min(step.latency_ms for step in accepted if step.latency_ms is not None)
        # More than a group may lose in a step of the share that was asked for is another step
        # altogether.
        most = self._most(ratio)

        while surgery.plan.keep:
            latency = device.measure(surgery.model, self.work.context.trainer.example())
            latency = distributed.broadcast_object(latency)
            if latency < limit:
                return surgery, latency, ratio
            ratio *= GROWTH
            if ratio >= most:
                break
            surgery = operate(model, self.work.graph, self.plan(ratio))
        return replace(surgery, plan=Plan({})), None, ratio

    def limit_warning(self, plan: Plan, ratio: float) -> str:
        """What is to be said of a plan in which the largest share decides in most groups; empty
        where it doesn't.
        """
        constraints = self.constraints()
        bound = at_limit(self.work.graph, plan, constraints, self._most(ratio))
        free = [
            group
            for group in self.work.graph.groups
            if group.name not in self.ranking.refused and not constraints.excludes(group)
        ]
        if 2 * len(bound) <= len(free):
            return ""

        most = self._most(ratio)
        named = option("max_ratio", float(f"{most:g}"))
        limit = (
            f"the limit {named} decides in {len(bound)} of {counted(len(free), 'group')}: they "
            "lose all that it lets them"
        )
        if most <= ratio:
            return (
                f"{limit}, and no step of {ratio:g} can compare them; leave {option('max_ratio')} "
                "out, "
                f"or set it well above {option('step_ratio')}"
            )
        return (
            f"{limit}; a larger {option('max_ratio')} lets the scores decide, a smaller "
            f"{option('step_ratio')} asks for less at once"
        )

    def _most(self, ratio: float) -> float:
        """The largest share that a group may lose in a step of this share."""
        is_of_cost = self.work.context.currency != "channels"
        return self.work.context.constraints.most(ratio, of_cost=is_of_cost)

    def _is_enough(self) -> Callable[[Plan], bool] | None:
        """Whether a plan reaches any of the targets; None where there are none."""
        first = self.work.context.reference(self.work.history)
        reaches_target = self.work.policy.reaches_target(first, self.work.graph)
        device = self.work.context.device
        limit = self.work.policy.target_latency
        if device is None or limit is None:
            return reaches_target

        # What it says of this model and what was measured differ by a factor; the plan's will
        # differ by much the same.
        measured = last_accepted(self.work.history).latency_ms
        assert measured is not None
        cost = device.cost(self.work.state.model, self.work.graph)
        scale = measured / cost.total()

        def is_enough(plan: Plan) -> bool:
            if reaches_target is not None and reaches_target(plan):
                return True
            return scale * cost.total(plan) <= limit

        return is_enough
