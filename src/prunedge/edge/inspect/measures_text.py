"""What was measured of a region, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunedge.edge.inspect.levels import level_text
from prunedge.edge.inspect.measure_words import class_in_words, with_uncertainty
from prunedge.utils.wording import figure

# The measures that have a name and a unit, in the order in which they are told.
MEASURES = {
    "length_mm": ("length", "mm"),
    "length_px": ("length", "px"),
    "mean_width_mm": ("mean width", "mm"),
    "mean_width_px": ("mean width", "px"),
    "largest_width_mm": ("largest width", "mm"),
    "largest_width_px": ("largest width", "px"),
    "area_mm2": ("area", "mm²"),
    "area": ("area", "px²"),
    "direction_deg": ("direction", "°"),
}
# What is told in other words.
ELSEWHERE = {
    "label",
    "probability",
    "mean_probability",
    "number",
    "mean_number",
    "left",
    "top",
    "right",
    "bottom",
    "width",
    "height",
    "width_mm",
    "height_mm",
    "polygon",
    "width_class",
    "width_class_is_sure",
}
# Behind the name of a measure: its expanded uncertainty, which stands behind its ±.
UNCERTAINTY = "_uncertainty"


def measures_of(region: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values: how sure the model is, how much of the image it is, where it lies, and
    everything that was measured, with its uncertainty; in millimetres alone where they are known.
    """
    span = record.get("span")
    pixels = record["width"] * record["height"]
    told = [("surest" if span is None else "highest", level_text(region["probability"], span, 1))]
    if "mean_probability" in region:
        told.append(("mean", level_text(region["mean_probability"], span, 1)))
        severity = region["area"] * region["mean_probability"] / pixels
        told.append(("severity", f"{figure(100 * severity, 2)} % of the image"))
    told.append(("position", f"{region['left']}, {region['top']} px from left and top"))
    told += _sizes(region)
    if "width_class" in region:
        told.append(("width class", class_in_words(region)))
    for key, value in region.items():
        is_told = key in MEASURES or key in ELSEWHERE or key.endswith(UNCERTAINTY)
        if not is_told and isinstance(value, str | int | float):
            told.append((key.replace("_", " "), _plain(value)))
    return told


def _sizes(region: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sizes and the direction of a region, in millimetres alone where they are known."""
    told = []
    for key, (name, unit) in MEASURES.items():
        in_mm = "area_mm2" if key == "area" else key.replace("_px", "_mm")
        is_in_mm_too = in_mm != key and in_mm in region
        if key in region and not is_in_mm_too:
            told.append((name, f"{_size(region, key)} {unit}"))
    suffix, unit = ("_mm", "mm") if "width_mm" in region else ("", "px")
    width, height = f"width{suffix}", f"height{suffix}"
    if width in region and height in region:
        box = f"{figure(region[width], 4)} x {figure(region[height], 4)} {unit}"
        told.append(("box", box))
    return told


def _size(region: Mapping[str, Any], key: str) -> str:
    """A measure, with its uncertainty where the region tells it."""
    uncertainty = region.get(f"{key}{UNCERTAINTY}")
    if uncertainty is None:
        return figure(region[key], 4)
    return with_uncertainty(region[key], uncertainty)


def _plain(value: str | float) -> str:
    """A value that has no words of its own."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else figure(value, 4)
