"""The cut of one step: channels removed, proven to change nothing else, and handed on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunedge.graph import ChannelGraph, derive
from prunedge.graph.plan import Plan
from prunedge.pruning.planner import StepPlanner
from prunedge.pruning.steps import State
from prunedge.pruning.work import StepWork
from prunedge.surgery import Surgery, operate, slice_state
from prunedge.surgery.compensate import compensate
from prunedge.utils import distributed


@dataclass(frozen=True)
class Cut:
    """A smaller model that is not yet fine-tuned, the `surgery` that made it, and its
    `state`.

    `ratio` is the share of the channels that was aimed at in the end, `latency_ms` what the model
    takes on the device that steers, None without one.
    """

    surgery: Surgery
    state: State
    ratio: float
    latency_ms: float | None = None

    @property
    def graph(self) -> ChannelGraph:
        """The smaller model's."""
        assert self.state.graph is not None
        return self.state.graph

    @property
    def plan(self) -> Plan:
        """Which channels stay, counted in the model that was cut."""
        return self.surgery.plan


def cut(work: StepWork, planner: StepPlanner, plan: Plan, ratio: float) -> Cut | None:
    """Remove what the plan says, with the proof that nothing else changed; where a device steers
    and the cut is no faster, a larger one is tried. None where nothing may go.
    """
    context = work.context
    surgery = operate(work.state.model, work.graph, plan)
    latency: float | None = None
    if context.device is not None:
        work.clock.lap("surgery")
        surgery, latency, ratio = planner.enlarge_until_faster(work.state.model, surgery, ratio)
        work.clock.lap("evaluate")
    distributed.require_same("which channels go", surgery.plan.to_json())
    if not surgery.plan.keep:
        return None

    _compensate(work, surgery)
    state = _state_after(work, surgery)
    work.clock.lap("surgery")
    return Cut(surgery, state, ratio, latency)


def _compensate(work: StepWork, surgery: Surgery) -> None:
    """Hand what the removed channels gave to their consumers, in place, where the context asks for
    it.
    """
    context = work.context
    recovery = context.recovery
    if recovery.compensate == "none":
        return
    calibration = context.trainer.calibration(recovery.calibration, context.seed)
    compensate(
        work.state.model,
        work.graph,
        surgery.plan,
        surgery.model,
        calibration,
        recovery.compensate,
    )


def _state_after(work: StepWork, surgery: Surgery) -> State:
    before = work.state
    optimizer_state = None
    if before.optimizer_state:
        optimizer_state = slice_state(before.optimizer_state, work.graph, surgery.plan)
    return replace(
        before,
        model=surgery.model,
        plan=before.plan.then(surgery.plan),
        scores=None,
        optimizer_state=optimizer_state,
        graph=derive(work.graph, surgery.plan, surgery.model),
    )
