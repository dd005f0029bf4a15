"""How far the pruning goes: which step is kept, and what to do next. Pure: the same history gives
the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from prunedge.edge.tasks.metric import Drop, as_drop
from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.pruning.steps import Step, handed_over, last_accepted, removals
from prunedge.tasks import Metric
from prunedge.train.bootstrap import paired_drop_interval
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

HALVINGS = 3
DOUBTS = 2  # models in a row that may lie beyond the rule by chance
SURE = 0.9  # the confidence from which on a drop is called sure
MINUTE_S = 60
GIVEN_UP = "even a step of"
COLLAPSED = "every validation image gets the same answer"


@dataclass(frozen=True)
class Continue:
    """Remove this share of what is saved, starting from the last model that was accepted."""

    ratio: float


@dataclass(frozen=True)
class Finished:
    """The loop ends, and hands over the step `keep`."""

    reason: str
    keep: int


class Outcome(Protocol):
    """What a model does on validation data, as far as the rule asks (`trainer.Judgement`)."""

    @property
    def value(self) -> float:
        """The metric."""

    @property
    def only_answer(self) -> int | None:
        """The answer that every image gets; None where answers differ."""

    @property
    def correct(self) -> str:
        """Which images were answered right (`prunedge.tasks.packed`)."""


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a model: whether the search goes on from it, whether it may be handed
    over, and why.
    """

    accepted: bool
    keeps_rule: bool
    reason: str


@dataclass(frozen=True)
class StopPolicy:
    """How far to go: what is handed over is not worse than the first, unpruned model by more than
    `max_drop`, in the metric's unit or as a share of that model's value (`5%`), on validation data.

    With `confidence` (0.5 to 1) the search also goes on from a model that lies beyond the rule, as
    long as it may do so by chance: it is taken back when the metric has dropped by more with that
    confidence (`paired_drop_interval`), and when `DOUBTS` models in a row have lain beyond.

    `step_ratio` is the share that a step removes of what is left of the `saved` (the channels, or a
    cost). Whenever a step is taken back, the next one goes half as far on the logarithmic scale
    (bisection over the cost: a share r becomes 1 - sqrt(1 - r)), at most `HALVINGS` times.
    `target_macs` and `target_params` (shares of the unpruned model's), `target_latency`
    (milliseconds on the device), `max_steps` and `budget` (minutes for all steps together) end the
    loop earlier; the step that reaches a target removes no more than it must. `polish` is the
    number of epochs that what is handed over is fine-tuned for in the end (`pruning.polish`). Steps
    before `judged_from` were judged by a stricter rule: that they were taken back halves nothing.
    """

    metric: Metric
    max_drop: Drop = 3.0
    step_ratio: float = 0.1
    target_macs: float | None = None
    target_params: float | None = None
    max_steps: int | None = None
    confidence: float | None = None
    target_latency: float | None = None
    budget: float | None = None
    polish: int = 0
    judged_from: int = 0
    saved: str = "channels"

    def __post_init__(self) -> None:
        wrong = [
            f"{name} must be {rule}, not {getattr(self, name)}"
            for name, is_fine, rule in (
                ("max_drop", _is_drop(self.max_drop), "0 or more, and finite"),
                ("step_ratio", 0 < self.step_ratio < 1, "between 0 and 1"),
                (
                    "target_macs",
                    self.target_macs is None or 0 < self.target_macs <= 1,
                    "above 0 and at most 1",
                ),
                (
                    "target_params",
                    self.target_params is None or 0 < self.target_params <= 1,
                    "above 0 and at most 1",
                ),
                (
                    "target_latency",
                    self.target_latency is None or 0 < self.target_latency < inf,
                    "above 0, and finite",
                ),
                ("max_steps", self.max_steps is None or self.max_steps >= 1, "1 or more"),
                (
                    "budget",
                    self.budget is None or 0 < self.budget < inf,
                    "above 0, and finite",
                ),
                (
                    "confidence",
                    self.confidence is None or 0.5 <= self.confidence < 1,
                    "from 0.5 to below 1",
                ),
            )
            if not is_fine
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    def accepts(
        self,
        first: Step,
        outcome: Outcome,
        sources: Sequence[str | None],
        start: Step | None = None,
        doubts: int = 0,
    ) -> Verdict:
        """Whether a model keeps the rule, and what is to be said about it.

        `first` is the unpruned model, `start` the one that the run began with where that is
        another; `sources` are those of the validation images. `doubts` models in a row, from which
        this one was made, lie beyond the rule already: after `DOUBTS` it is no chance. A model that
        answers one class whatever it sees breaks every rule, unless one of these did so already:
        nothing is left in it that could be pruned.
        """
        metric = self.metric
        drop = metric.drop(first.metric_after, outcome.value)
        change = metric.change(first.metric_after, outcome.value)
        allowed = self.allowed(first)
        told = metric.in_unit(metric.number(change))
        reason = f"{metric.name} {told} against the unpruned model's"
        if start is not None:
            change = metric.change(start.metric_after, outcome.value)
            reason += f", {metric.number(change)} against the start's"

        was_collapsed = first.only_answer is not None or (
            start is not None and start.only_answer is not None
        )
        if outcome.only_answer is not None and not was_collapsed:
            return Verdict(accepted=False, keeps_rule=False, reason=f"{reason}, and {COLLAPSED}")

        keeps_rule = drop <= allowed + 1e-9
        if isinstance(self.max_drop, str):
            limit = f"{metric.number(allowed, signed=False)} ({self.max_drop})"
        else:
            limit = f"{self.max_drop:g}"
        side = "below" if metric.higher_is_better else "above"
        broken = f"more than {limit} {side}"
        if self.confidence is None:
            accepted = keeps_rule
        else:
            low, high = paired_drop_interval(
                first.correct, outcome.correct, self.confidence, sources
            )
            accepted = keeps_rule or (doubts < DOUBTS and low <= allowed + 1e-9)
            reason += (
                f" ({0.0 - high:+.2f} to {0.0 - low:+.2f}, one-sided "
                f"{100 * self.confidence:g} % bounds)"
            )
            if low <= allowed + 1e-9:
                broken = f"after {DOUBTS} in a row beyond the rule again {broken}"
            elif self.confidence >= SURE:
                broken = f"surely {broken}"
            else:
                broken += f" with {100 * self.confidence:g} % confidence"
        if not accepted:
            reason += f", {broken}"
        elif not keeps_rule:
            reason += f", more than {limit} {side}, but maybe by chance"
        return Verdict(accepted, keeps_rule, reason)

    def allowed(self, first: Step) -> float:
        """`max_drop` in the metric's unit, where `first` is the unpruned model."""
        return self.metric.allowed(self.max_drop, first.metric_after)

    def next_action(
        self, history: Sequence[Step], first: Step | None = None
    ) -> Continue | Finished:
        """What to do after these steps, step 0 first.

        `first` is the unpruned model where step 0 is one that was pruned before.
        """
        result = handed_over(history).index
        reached = self._target_reached(last_accepted(history), first or history[0])
        if reached is not None:
            return Finished(reached, result)
        made = removals(history)[1:]
        if self.max_steps is not None and len(made) >= self.max_steps:
            done = f"{counted(self.max_steps, 'step')} done ({option('max_steps')})"
            return Finished(done, result)
        spent = self._spent(made)
        if spent is not None:
            return Finished(spent, result)

        halvings = len(self.taken_back(history))
        return Continue(self._ratio(halvings)) if halvings <= HALVINGS else self.given_up(history)

    def taken_back(self, history: Sequence[Step]) -> list[Step]:
        """The steps that were taken back, as far as this rule has judged them."""
        judged = [step for step in removals(history) if step.index >= self.judged_from]
        return [step for step in judged if not step.accepted]

    def smaller(self, ratio: float) -> float | None:
        """The share of the next smaller step; None below the smallest."""
        smaller = (self._ratio(halvings) for halvings in range(HALVINGS + 1))
        return next((share for share in smaller if share < ratio), None)

    def given_up(self, history: Sequence[Step]) -> Finished:
        """The end where the smallest step was taken back as well."""
        smallest = self._ratio(HALVINGS)
        metric = self.metric
        verb = "drops" if metric.higher_is_better else "raises"
        drops = f"{verb} {metric.name} by more than {metric.drop_text(self.max_drop)}"
        if COLLAPSED in self.taken_back(history)[-1].reason:
            drops = f"leaves a model of which {COLLAPSED}"
        reason = f"{GIVEN_UP} {smallest:.2%} of the {self.saved} {drops}"
        return Finished(reason, handed_over(history).index)

    def _ratio(self, halvings: int) -> float:
        """The share of a step after so many were taken back: 2**-halvings of the way that the first
        goes on the logarithmic scale.
        """
        return float(1 - (1 - self.step_ratio) ** (0.5**halvings))

    def _spent(self, made: Sequence[Step]) -> str | None:
        """That the time is up, or would be with one more step as long as the last and the polish;
        None where it is not, or there is no budget.
        """
        if self.budget is None or not made:
            return None
        last = made[-1]
        spent = sum(step.seconds for step in made)
        polish = self.polish * last.seconds_finetune / max(1, last.epochs)
        if spent + last.seconds + polish <= self.budget * MINUTE_S:
            return None
        minutes = spent / MINUTE_S
        given = option("budget", f"{self.budget:g}min")
        return f"{minutes:.1f} minutes spent, and another step would pass the limit ({given})"

    def reaches_target(self, first: Step, graph: ChannelGraph) -> Callable[[Plan], bool] | None:
        """Whether a plan for a model with this graph reaches a target of MACs or parameters; None
        without such targets.

        `first` is the unpruned model, of which targets are shares.
        """
        limits: list[tuple[Callable[[Plan], int], float]] = []
        if self.target_macs is not None:
            limits.append((graph.macs, self.target_macs * first.macs))
        if self.target_params is not None:
            limits.append((graph.params, self.target_params * first.params))
        if not limits:
            return None
        return lambda plan: any(count(plan) <= limit for count, limit in limits)

    def _target_reached(self, good: Step, first: Step) -> str | None:
        """Which target the last accepted model reaches, in words."""
        macs = good.macs / first.macs
        params = good.params / first.params
        latency = good.latency_ms

        if self.target_macs is not None and good.macs <= self.target_macs * first.macs:
            return f"target reached: {macs:.1%} of the MACs"
        if self.target_params is not None and good.params <= self.target_params * first.params:
            return f"target reached: {params:.1%} of the parameters"
        if (
            self.target_latency is not None
            and latency is not None
            and latency <= self.target_latency
        ):
            return f"target reached: {latency:.3g} ms on the device"
        return None


def _is_drop(drop: Drop) -> bool:
    """Whether a rule can go by it."""
    try:
        as_drop(drop)
    except ValueError:
        return False
    return True
