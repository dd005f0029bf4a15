"""What each JSON file of a run holds, so that what doesn't fit is called damaged where it is
read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from prunedge.edge.image.read import parse_range
from prunedge.edge.tasks.base import scales_in
from prunedge.errors import DataError
from prunedge.pruning.steps import Step
from prunedge.runs.data_record import DataRecord
from prunedge.runs.decision_record import CountsRecord, DecisionRecord, ShownRecord
from prunedge.runs.time_records import BenchRecord, LatencyRecord, TimesRecord
from prunedge.tasks import TASKS
from prunedge.utils.records import Loss, Record

if TYPE_CHECKING:
    MetricsRecord = Any
else:
    # What a model does on a split, of any task.
    MetricsRecord = Union[tuple(task.record for task in TASKS.values())]  # noqa: UP007  how many there are is not known


class EnvironmentRecord(Record):
    """environment.json: what the run was made by and on."""

    verb: Literal["train", "prune"]
    versions: dict[str, str] = Field(default_factory=dict)
    device: str = ""


class EngineRecord(Record):
    """engine.json: what computes the run, and the images that it began with."""

    precision: str
    threads: PositiveInt
    processes: PositiveInt
    processor: str
    accelerator: str | None
    fingerprint: str
    classes: list[str]  # none where the user's own functions know the data
    scales: list[list[float]] = Field(default_factory=list)
    range: str | None = None

    @field_validator("scales")
    @classmethod
    def _are_scales(cls, rows: list[list[float]]) -> list[list[float]]:
        scales_in(rows)  # ValueError
        return rows

    @field_validator("range")
    @classmethod
    def _is_a_range(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                parse_range(value)
        except DataError as error:
            raise ValueError(error.what) from None
        return value


class MistakeRecord(Record):
    """An image that the best model gets wrong, and the unpruned one got right."""

    path: str
    label: str
    baseline: str
    best: str
    p_baseline: float | None
    p_best: float | None


class TwinsRecord(Record):
    """How many test images look like one of another split, and the metrics of each model on the
    others, where there are any; `decided` is what each decision finds of these.
    """

    count: PositiveInt
    without: dict[str, MetricsRecord]
    decided: dict[str, CountsRecord] = Field(default_factory=dict)


class TestRecord(Record):
    """test.json: the metrics on the test split, and how the models decide between damaged and
    sound, where their task and classes tell which is which: with the images that the best one
    decides wrongly, worst first, and those nearest to its threshold.
    """

    __test__ = False

    baseline: MetricsRecord
    best: MetricsRecord
    start: MetricsRecord | None = None
    mistakes: list[MistakeRecord] = Field(default_factory=list)
    baselines: dict[str, MetricsRecord] = Field(default_factory=dict)
    looks_before: NonNegativeInt = 0
    twins: TwinsRecord | None = None
    decisions: dict[str, DecisionRecord] = Field(default_factory=dict)
    wrong: list[ShownRecord] = Field(default_factory=list)
    borderline: list[ShownRecord] = Field(default_factory=list)


class StopRecord(Record):
    """stop.json: why the loop ended, and the step that it hands over."""

    reason: str
    keep: NonNegativeInt


class BaselineRecord(Record):
    """A baseline that was trained: one of the config's `baseline`, or of its `small` networks."""

    epochs: NonNegativeInt
    macs: PositiveInt
    params: PositiveInt
    size_mb: PositiveFloat
    seconds: float
    val: MetricsRecord
    sha256: str


class ResumptionRecord(Record):
    """What changed when the run was gone on with: after which step, and each key with its old and
    new value.
    """

    after_step: int
    changes: dict[str, Annotated[list[Any], Field(min_length=2, max_length=2)]]

    @field_validator("changes")
    @classmethod
    def _counts_are_numbers(cls, changes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name in ("threads", "processes"):
            if not all(type(count) is int for count in changes.get(name, [])):
                raise ValueError(f"{name} should be whole numbers")
        return changes


class LinkRecord(Record):
    """A model of another run."""

    run: str
    step: NonNegativeInt


class CutRecord(Record):
    """A removal that came before."""

    keep: dict[str, list[NonNegativeInt]]
    epochs: NonNegativeInt


class ChainRecord(Record):
    """chain.json: how the model that the run starts from came to be."""

    links: list[LinkRecord] = Field(min_length=1)
    epochs: NonNegativeInt
    cuts: list[CutRecord]
    first: Step | None
    weights: str | None = None


class RateRecord(Record):
    """lr.json: the learning rate, and why it is this one."""

    lr: PositiveFloat
    why: str
    curve: list[Annotated[list[float | None], Field(min_length=2, max_length=2)]]
    start: float | None
    steps: NonNegativeInt
    silenced: list[float] = Field(default_factory=list)

    @model_validator(mode="after")
    def _curve_has_a_start(self) -> RateRecord:
        if self.curve and (self.start is None or any(rate is None for rate, _ in self.curve)):
            raise ValueError("the curve has no start, or a loss without a rate")
        return self


class PatienceRecord(Record):
    """patience.json: after how many epochs patience ended the training, and the best of them."""

    epochs: PositiveInt
    best: PositiveInt


class WeightsRecord(Record):
    """weights.json: what became of the tensors of a file."""

    pairs: dict[str, str]
    how: str
    fresh: list[str]
    left_out: list[str]
    converted: str
    source: str
    note: str


class EpochRecord(Record):
    """An epoch of learning.json: the mean training loss of an image, and the metrics on the
    validation split where it was measured after the epoch, the `loss` among them.
    """

    loss: Loss
    metrics: dict[str, float | None] | None


class FailureRecord(Record):
    """failed.json: the error that the last attempt ended in."""

    error: str


# The kind of each file's value.
KINDS: dict[str, Any] = {
    "environment.json": EnvironmentRecord,
    "engine.json": EngineRecord,
    "test.json": TestRecord,
    "stop.json": StopRecord,
    "baselines.json": dict[str, BaselineRecord],
    "times.json": TimesRecord,
    "resumed.json": list[ResumptionRecord],
    "chain.json": ChainRecord,
    "lr.json": RateRecord,
    "patience.json": PatienceRecord,
    "learning.json": dict[str, list[EpochRecord]],
    "data.json": DataRecord,
    "weights.json": WeightsRecord,
    "bench.json": BenchRecord,
    "latency.json": LatencyRecord,
    "seen.json": list[str],
    "failed.json": FailureRecord,
}
