"""Measures in words: a value with its uncertainty, as the page and the command show them."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor, log10
from typing import Any


def with_uncertainty(value: float, uncertainty: float) -> str:
    """`0.31 ± 0.05`, `14.2 ± 1.1`: the uncertainty with two digits where it begins with 1, else one
    (GUM 7.2.6: no more than two), the value with as many decimals.
    """
    if uncertainty <= 0:
        return f"{value:,.4g}"
    decimals = -floor(log10(uncertainty))
    if uncertainty * 10**decimals < 2:
        decimals += 1
    shown = max(0, decimals)
    return f"{round(value, decimals):,.{shown}f} ± {round(uncertainty, decimals):,.{shown}f}"


def size_with_uncertainty(region: Mapping[str, Any], name: str) -> str:
    """A measure of a region's JSON, in millimetres where they are known, without its unit; empty
    where it was not measured.
    """
    unit = unit_of(region)
    key = f"{name}_{unit}"
    if key not in region:
        return ""
    return with_uncertainty(region[key], region[f"{key}_uncertainty"])


def unit_of(region: Mapping[str, Any]) -> str:
    """What a region's measures are told in."""
    return "mm" if "length_mm" in region else "px"


def measures_in_words(region: Mapping[str, Any]) -> str:
    """A region's length and widths in a line, with its class of width; empty where it was not
    measured.
    """
    if "length_px" not in region:
        return ""
    unit = unit_of(region)
    text = (
        f"{size_with_uncertainty(region, 'length')} {unit} long, "
        f"{size_with_uncertainty(region, 'mean_width')} {unit} wide, "
        f"at most {size_with_uncertainty(region, 'largest_width')} {unit}"
    )
    if "width_class" in region:
        text += f" (class {class_in_words(region)})"
    return text


def class_in_words(region: Mapping[str, Any]) -> str:
    """A region's class of width, and whether it may be the one beside it."""
    doubt = "" if region["width_class_is_sure"] else ", or the one beside it"
    return f"{region['width_class']}{doubt}"
