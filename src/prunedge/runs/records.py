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

from prunedge.config import RunConfig
from prunedge.edge.image.read import parse_range
from prunedge.errors import DataError
from prunedge.pruning.steps import Step
from prunedge.tasks import TASKS, unpacked
from prunedge.utils.records import Record, require

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
    classes: list[str] = Field(min_length=1)
    range: str | None = None

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
    p_baseline: float
    p_best: float


class TestRecord(Record):
    """test.json: the metrics on the test split."""

    __test__ = False

    baseline: MetricsRecord
    best: MetricsRecord
    start: MetricsRecord | None = None
    mistakes: list[MistakeRecord] = Field(default_factory=list)
    baselines: dict[Literal["scratch", "random"], MetricsRecord] = Field(default_factory=dict)
    looks_before: NonNegativeInt = 0


class StopRecord(Record):
    """stop.json: why the loop ended, and the step that it hands over."""

    reason: str
    keep: NonNegativeInt


class BaselineRecord(Record):
    """A baseline that was trained."""

    epochs: NonNegativeInt
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


class WeightsRecord(Record):
    """weights.json: what became of the tensors of a file."""

    pairs: dict[str, str]
    how: str
    fresh: list[str]
    left_out: list[str]
    converted: str
    source: str
    note: str


class BundleTimes(Record):
    """What was measured of one bundle."""

    latency_ms: dict[str, PositiveFloat]
    seconds_total: float
    peak_rss_mb: float
    runtime: str

    @field_validator("latency_ms")
    @classmethod
    def _has_a_median(cls, value: dict[str, float]) -> dict[str, float]:
        if "median" not in value:
            raise ValueError("there is no median")
        return value


class Speedup(Record):
    """How many times as long the first bundle takes, over interleaved blocks."""

    low: float
    high: float
    blocks: NonNegativeInt


class Ratios(Record):
    """A bundle beside the first one."""

    speedup: Speedup


class Processor(Record):
    """The machine that measured."""

    processor: str


class BenchRecord(Record):
    """bench.json: the times of the run's bundles."""

    bundles: list[BundleTimes]
    ratios: list[Ratios]
    device: Processor | None = None
    threads: PositiveInt = 1
    batch: PositiveInt = 1
    patches: PositiveInt = 1

    @model_validator(mode="after")
    def _ratios_have_bundles(self) -> BenchRecord:
        missing = {"device", "threads", "batch", "patches"} - self.model_fields_set
        if self.ratios and (
            len(self.bundles) != len(self.ratios) + 1 or missing or self.device is None
        ):
            raise ValueError("ratios without what they are of")
        return self


class LayerRecord(Record):
    """A convolution or a linear layer as a runtime sees it (`latency.layers.Shape`)."""

    inputs: NonNegativeInt
    outputs: NonNegativeInt
    size: list[int] = Field(min_length=2, max_length=2)
    kernel: list[int] = Field(min_length=2, max_length=2)


class GridRecord(Record):
    """Milliseconds of one kind of layer at some widths."""

    kind: LayerRecord
    inputs: list[int] = Field(min_length=1)
    outputs: list[int] = Field(min_length=1)
    ms: list[list[float]]

    @model_validator(mode="after")
    def _is_rectangular(self) -> GridRecord:
        if len(self.ms) != len(self.inputs) or any(
            len(row) != len(self.outputs) for row in self.ms
        ):
            raise ValueError("the milliseconds are not those of these widths")
        return self


class StaircaseRecord(Record):
    """Milliseconds of one layer against its number of channels."""

    layer: LayerRecord
    axis: Literal["outputs", "inputs"]
    channels: list[int]
    ms: list[float]
    step: PositiveInt


class TableRecord(Record):
    """The layers of a model on a device."""

    grids: list[GridRecord]
    staircases: list[StaircaseRecord]
    runtime: str
    device: dict[str, Any]
    threads: PositiveInt


class FitRecord(Record):
    """Whole models from their layers."""

    layers: float
    megabyte: float
    rest: float
    cache: float
    points: list[Annotated[list[float], Field(min_length=2, max_length=2)]]


class LatencyRecord(Record):
    """latency.json: the device that steers."""

    address: str
    target: str
    table: TableRecord
    fit: FitRecord


class SpanRecord(Record):
    """The sums of one place in the code (profile/profile.json)."""

    thread: str
    phase: str
    path: str
    count: NonNegativeInt
    self_s: float
    total_s: float


class ProfileRecord(Record):
    """profile/profile.json: where the time went."""

    rows: list[SpanRecord]
    wall_s: PositiveFloat
    spans: NonNegativeInt
    spans_left_out: NonNegativeInt
    machine: str | None
    threads: int | None
    precision: str | None


class LayerTime(Record):
    """A layer of a bundle (profile/bench.json)."""

    name: str
    kind: str
    shape: str
    ms: float
    share: float
    macs_per_ms: float | None
    place: NonNegativeInt


class BundleProfile(Record):
    """What `bench --profile` saw of one bundle."""

    bundle: str
    target: str
    runtime: str
    passes: NonNegativeInt
    image_ms: dict[str, float]
    layers: list[LayerTime]


# The kind of each file's value.
KINDS: dict[str, Any] = {
    "environment.json": EnvironmentRecord,
    "engine.json": EngineRecord,
    "test.json": TestRecord,
    "stop.json": StopRecord,
    "baselines.json": dict[Literal["scratch", "random"], BaselineRecord],
    "resumed.json": list[ResumptionRecord],
    "chain.json": ChainRecord,
    "lr.json": RateRecord,
    "weights.json": WeightsRecord,
    "bench.json": BenchRecord,
    "latency.json": LatencyRecord,
    "seen.json": list[str],
}


def require_step(step: Step, config: RunConfig, first: Step | None = None) -> None:
    """Raise ValueError where a step names a class that there is not, a group without a reason, or
    other answers than it counts.

    `first` is the history's, beside which it stands: step 0 is always accepted, and all are judged
    by the same images.
    """
    classes = config.data.classes
    if (step.latency_ms is None) != (config.device.address is None):
        raise ValueError(f"step {step.index} was timed on another device than the run's")
    for label in (step.largest, step.only):
        if label is not None and classes and label >= len(classes):
            raise ValueError(f"step {step.index} names class {label} of {len(classes)}")
    for group in step.frozen:
        require(dict[str, str], group)
        if not {"name", "reason"} <= group.keys():
            raise ValueError(f"step {step.index} has a frozen group without a name or a reason")
    images = step.correct.partition(":")[0]
    if step.correct and len(unpacked(step.correct)) != int(images):
        raise ValueError(f"step {step.index} has other answers than it counts")

    if first is None:
        return
    if not first.accepted:
        raise ValueError("step 0 is not accepted")
    if images != first.correct.partition(":")[0]:
        raise ValueError(f"step {step.index} was judged by another number of images than step 0")
    if step.original.keys() != first.original.keys():
        raise ValueError(f"step {step.index} is of another model than step 0")
