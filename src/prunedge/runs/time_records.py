"""What the JSON files of measured times hold: bench.json, latency.json, profiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from prunedge.utils.records import Record


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


class MillisecondsRecord(Record):
    """How long an image takes."""

    median: PositiveFloat
    low: PositiveFloat
    high: PositiveFloat


class TimesRecord(Record):
    """times.json: the small networks beside the unpruned and the pruned model."""

    address: str
    target: str
    threads: PositiveInt
    runtime: str
    device: Processor
    ms: dict[str, MillisecondsRecord]

    @model_validator(mode="after")
    def _has_both_models(self) -> TimesRecord:
        if not {"baseline", "best"} <= self.ms.keys():
            raise ValueError("the times of the unpruned or of the pruned model are missing")
        return self


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
