"""Which way a photograph's scale comes from, and what is done where it can't be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.scale.distance import scale_from_distance
from prunedge.edge.inspect.scale.marker import Marker, scale_from_marker
from prunedge.edge.inspect.scale.quantity import COVERAGE, Quantity, parse_quantity
from prunedge.edge.inspect.scale.scale import Scale
from prunedge.errors import DataError

Missing = Literal["pixels", "skip"]
IN_PIXELS = "measured in pixels"


@dataclass(frozen=True)
class Scaling:
    """Where the scale of photographs comes from, other than from a given number.

    `uncertainty` is the expanded one (k = 2) of the number that is given. `marker` is in each
    photograph, or each was taken from the same `distance` (millimetres). `missing` says what is
    done with a photograph whose scale is not found: it is measured in `pixels`, or it is an error,
    so that it is skipped (`skip`).
    """

    uncertainty: float = 0.0
    marker: Marker | None = None
    distance: Quantity | None = None
    missing: Missing = "pixels"


def parse_mm_per_pixel(text: str) -> Quantity:
    """`0.12` or `0.12±0.01`, with or without `mm` behind it. DataError where it is neither."""
    return parse_quantity(text, "--mm-per-pixel", {"": 1.0, "mm": 1.0}, "0.12 or 0.12±0.01")


def parse_missing(text: str) -> Missing:
    """`pixels` or `skip`. DataError where it is neither."""
    if text == "pixels":
        return "pixels"
    if text == "skip":
        return "skip"
    raise DataError(
        f"'{text}' can't be done with photographs without a scale",
        where="--no-scale",
        remedy="give --no-scale pixels or --no-scale skip",
    )


def scale_of(
    photo: Photo,
    mm_per_pixel: float | None,
    scaling: Scaling,
    height_mm: Quantity | None,
    no_height: str = "",
) -> tuple[Scale | None, tuple[str, ...]]:
    """A photograph's scale, and what is unusual about it; None where there is none to be had.
    `height_mm` is the distance where no other is given, `no_height` why that is not known although
    it was asked for.

    DataError where it is not found and such photographs are to be skipped.
    """
    if mm_per_pixel is not None:
        return Scale(mm_per_pixel, scaling.uncertainty / COVERAGE), ()
    try:
        if scaling.marker is not None:
            return scale_from_marker(photo, scaling.marker)
        distance = scaling.distance or height_mm
        if distance is None and no_height:
            raise DataError(no_height)
        if distance is None:
            return None, ()
        source = "distance" if scaling.distance is not None else "height"
        words = f"{source} of {distance.text('mm')} and focal length"
        size = (photo.width, photo.height)
        return scale_from_distance(photo.camera, size, distance, words), ()
    except DataError as error:
        if scaling.missing == "skip":
            raise
        return None, (f"{IN_PIXELS}: {error.what}",)


def scale_in_words(records: Sequence[Mapping[str, Any]]) -> str:
    """The scale of an inspection's images, and where it comes from, by their JSON."""
    scales = [scale for record in records if (scale := record.get("scale"))]
    if not scales:
        return "not known"
    values = [scale["mm_per_pixel"] for scale in scales]
    source = scales[0]["source"]
    range_text = f"{min(values):.4g}"
    if max(values) > min(values):
        range_text += f" to {max(values):.4g}"
    elif scales[0]["uncertainty"]:
        range_text += f" ± {scales[0]['uncertainty']:.2g}"
    text = f"{range_text} mm a pixel ({source})"
    if len(scales) < len(records):
        text += f", of {len(scales):,} of {len(records):,} images"
    return text
