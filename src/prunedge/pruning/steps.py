"""What the loop makes: steps for the history, and the state that it goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from prunedge.graph import ChannelGraph
from prunedge.graph.plan import Plan
from prunedge.importance import Scores
from prunedge.surgery.slicing import OptimState
from prunedge.train.state import Epoch

Packed = Annotated[str, Field(pattern=r"^(\d{1,9}:([0-9a-f]{2})*)?$")]

PARTS = ("rank", "surgery", "finetune", "evaluate")


@dataclass(frozen=True)
class Step:
    """One step of the loop, as it is kept in the history. Step 0 is the model that pruning starts
    from.

    `metrics` are the task's on the validation split, by name, and the `loss`; `metrics_before`
    those before fine-tuning; `metric_before` and `metric_after` the one that the rule watches.
    `removed`
    and `channels` count prunable channels (channels tied by a residual sum count once);
    `fraction_removed` is of the first, unpruned model's, and `original` its channels: where pruning
    starts from a model that was pruned before, step 0 has lost some already. `kept` and `original`
    count the channels that each prunable layer makes. `rounds` counts the fine-tunings: more than 1
    where the first broke the rule; `epochs` is how often they saw every training image in all.

    `index` is its place in the history, which names its checkpoint. `number` is what users see: how
    many removals there were up to it; a polish has that of the step that it polished, as it is none
    of the steps that are counted.

    `start` is the `index` of the step whose model this one was made from. A step that is not
    `accepted` was taken back: the search never goes on from it. One that `keeps_rule` may be handed
    over; the search also goes on from a model that may only by chance lie beyond the rule. A step
    that `is_polish` removes nothing: it is the last, longer fine-tuning of a model that is about to
    be handed over.

    `correct` says which validation images were answered right (`prunedge.tasks.packed`). `majority`
    is what the best constant answer, `majority_answer`, scores by the metric; `only_answer` is the
    answer that the model gives every validation image, None where its answers differ. Where a
    device steers, `latency_ms` was measured on it for one image, `predicted_ms` predicted before.
    `scored` says where the scores came from: gathered `while training` the model that was cut, or
    `in a pass` over it. `limited` is what is to be said where not the scores but the limit on what
    a group may lose decides in most groups.
    """

    # For whoever reads a step back: no infinities.
    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    index: NonNegativeInt
    removed: NonNegativeInt
    channels: NonNegativeInt
    accepted: bool
    keeps_rule: bool
    reason: str
    fraction_asked: float
    fraction_removed: float
    metrics_before: dict[str, float | None]
    metrics: dict[str, float | None]
    metric_before: float
    metric_after: float
    macs: PositiveInt
    params: PositiveInt
    size_mb: PositiveFloat
    seconds_rank: float
    seconds_surgery: float
    seconds_finetune: float
    seconds_evaluate: float
    kept: dict[str, NonNegativeInt]
    original: dict[str, NonNegativeInt]
    number: NonNegativeInt = 0
    start: NonNegativeInt | None = None
    is_polish: bool = False
    rounds: NonNegativeInt = 0
    epochs: NonNegativeInt = 0
    frozen: list[dict[str, Any]] = field(default_factory=list)
    correct: Packed = ""
    latency_ms: PositiveFloat | None = None
    predicted_ms: float | None = None
    scored: str = ""
    limited: str = ""
    majority: float | None = None
    majority_answer: NonNegativeInt | None = None
    only_answer: NonNegativeInt | None = None

    @property
    def name(self) -> str:
        """What it is called in a sentence: a polish is not one of the steps that are counted."""
        return f"the polish of step {self.number}" if self.is_polish else f"step {self.number}"

    @property
    def seconds(self) -> float:
        """What the step took, all parts together."""
        return sum(getattr(self, f"seconds_{part}") for part in PARTS)

    @property
    def verdict(self) -> str:
        """What became of the step, in words; empty where it was simply kept."""
        if not self.accepted:
            return f"taken back: {self.reason}"
        if not self.keeps_rule:
            return f"gone on from, not handed over: {self.reason}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """A plain dict of everything."""
        return asdict(self)


@dataclass(frozen=True)
class State:
    """All that the loop needs to go on from a step: nothing random, nothing hidden.

    `plan` leads from the unpruned model to this one. `scores` are None when they have to be
    measured first, `graph` when it has to be traced;
    `optimizer_state` is the optimizer's by parameter name.
    """

    model: nn.Module
    plan: Plan
    scores: Scores | None = None
    optimizer_state: OptimState | None = None
    graph: ChannelGraph | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Iteration:
    """What one step made: its line in the history, and the state after it. `epochs` are those in
    which its model was trained.
    """

    step: Step
    state: State
    epochs: tuple[Epoch, ...] = ()


class Clock:
    """The seconds of each part of a step."""

    def __init__(self) -> None:
        self.seconds = {f"seconds_{part}": 0.0 for part in PARTS}
        self._last = perf_counter()

    def lap(self, part: str) -> None:
        """Add what went by since the last lap to a part."""
        now = perf_counter()
        self.seconds[f"seconds_{part}"] += now - self._last
        self._last = now


def removals(history: Sequence[Step]) -> list[Step]:
    """The steps of the search, step 0 first; without those that polished what it found."""
    return [step for step in history if not step.is_polish]


def last_accepted(history: Sequence[Step]) -> Step:
    """The step that the search goes on from."""
    return [step for step in removals(history) if step.accepted][-1]


def handed_over(history: Sequence[Step]) -> Step:
    """The last step that keeps the rule: the smallest model, and the result."""
    return [step for step in history if step.keeps_rule][-1]


def may_be_polished(history: Sequence[Step]) -> list[Step]:
    """The models of the search that may yet be polished: the one that it goes on from, and those
    that it was made from up to the first that keeps the rule.
    """
    steps = []
    for step in reversed(lineage(history, last_accepted(history).index)):
        steps.append(step)
        if step.keeps_rule:
            break
    return steps


def doubts(history: Sequence[Step]) -> int:
    """How many models in a row, up to the one that the search goes on from, lie beyond the rule."""
    count = 0
    for step in reversed(lineage(history, last_accepted(history).index)):
        if step.keeps_rule:
            break
        count += 1
    return count


def lineage(history: Sequence[Step], index: int) -> list[Step]:
    """The steps that led from step 0 to step `index`, without step 0 and with that one."""
    steps: list[Step] = []
    step = history[index]
    while step.start is not None:
        steps.append(step)
        step = history[step.start]
    return steps[::-1]
