"""What was measured of a region, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunedge.edge.inspect.levels import level_text
from prunedge.utils.wording import figure

# The measures that have a name and a unit, in the order in which they are told.
MEASURES = {
    "length_mm": ("length", "mm"),
    "length_px": ("length", "px"),
    "mean_width_mm": ("mean width", "mm"),
    "mean_width_px": ("mean width", "px"),
    "largest_width_mm": ("largest width", "mm"),
    "largest_width_px": ("largest width", "px"),
    "width_mm": ("box, width", "mm"),
    "height_mm": ("box, height", "mm"),
    "width": ("box, width", "px"),
    "height": ("box, height", "px"),
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
    "polygon",
}


def measures_of(region: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values: how sure the model is, how much of the image it is, where it lies, and
    everything that was measured; in millimetres alone where they are known.
    """
    span = record.get("span")
    pixels = record["width"] * record["height"]
    told = [("surest" if span is None else "highest", level_text(region["probability"], span, 1))]
    if "mean_probability" in region:
        told.append(("mean", level_text(region["mean_probability"], span, 1)))
        severity = region["area"] * region["mean_probability"] / pixels
        told.append(("severity", f"{figure(100 * severity, 2)} % of the image"))
    told.append(("position", f"{region['left']}, {region['top']} px from left and top"))
    for key, (name, unit) in MEASURES.items():
        in_mm = key.replace("_px", "_mm") if "_px" in key else f"{key}_mm"
        has_mm = in_mm in region or (key == "area" and "area_mm2" in region)
        if key in region and not (unit.startswith("px") and has_mm):
            told.append((name, f"{figure(region[key], 4)} {unit}"))
    for key, value in region.items():
        if key not in MEASURES and key not in ELSEWHERE and isinstance(value, str | int | float):
            told.append((key.replace("_", " "), str(value)))
    return told
