"""What NAME.json holds, as far as pages and tables read it."""

from __future__ import annotations

from pydantic import Field

from prunedge.utils.records import Record as Kept


class RegionRecord(Kept):
    """A damaged region, as far as pages and tables read it."""

    label: str
    probability: float
    left: int
    top: int
    width: int
    height: int
    width_mm: float = 0.0
    height_mm: float = 0.0


class PositionRecord(Kept):
    """Where an image was taken."""

    latitude: float
    longitude: float
    altitude_m: float | None


class ScaleRecord(Kept):
    """How many millimetres a pixel shows."""

    mm_per_pixel: float
    uncertainty: float
    source: str


class PlaceRecord(Kept):
    """Where a photograph lies on a map, or what is missing for that."""

    missing: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    heading: float = 0.0
    mm_per_pixel: float = 0.0


class ImageRecord(Kept):
    """NAME.json: what was found in an image, as far as pages and tables read it."""

    key: str
    name: str
    width: int
    height: int
    patches: int
    damaged: int
    probability: float
    span: list[float] | None = None
    numbers: dict[str, float] = Field(default_factory=dict)
    damaged_share: float
    severity: float
    has_mask: bool = False
    seconds: float
    seconds_drawing: float
    notes: list[str]
    taken: str = ""
    position: PositionRecord | None
    scale: ScaleRecord | None = None
    footprint: PlaceRecord = Field(default_factory=PlaceRecord)
    regions: list[RegionRecord]
