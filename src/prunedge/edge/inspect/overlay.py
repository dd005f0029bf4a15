"""What an inspection looks like: the map as colours over the photograph, boxes around the regions,
a legend.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, log10

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.levels import Span, level_of, level_text
from prunedge.edge.inspect.regions import Region
from prunedge.utils.wording import figure, percentage

LONGEST, SMALLEST = 2000, 640  # pixels of the longer side; small photographs are enlarged
LEGEND, NARROWEST = 60, 460  # height of the legend, width that it needs
MOST_BOXES, MOST_TEXTS = 500, 40
OPAQUE = 0.4  # at probability 1; the damage itself must stay visible

# Lightness rises from dark blue to yellow, so that the order is seen by people who see no red or
# green, and on grey prints.
COLOURS = np.array(
    [
        (13, 8, 135),
        (84, 2, 163),
        (139, 10, 165),
        (185, 50, 137),
        (219, 92, 104),
        (244, 136, 73),
        (254, 188, 43),
        (240, 249, 33),
    ]
)


def grey_map(values: np.ndarray) -> Image.Image:
    """A map (rows, columns) of probabilities as an 8-bit grey image, a pixel for each cell."""
    return Image.fromarray((values * 255).round().astype(np.uint8))


def css_colours() -> str:
    """The colours from probability 0 to 1, for a gradient in a page."""
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in COLOURS)


def shown_size(width: int, height: int) -> tuple[tuple[int, int], float]:
    """The size at which a photograph of this size is shown, and how many times its own that is."""
    scale = min(
        LONGEST / width, (LONGEST - LEGEND) / height, max(1, ceil(SMALLEST / max(width, height)))
    )
    return (max(1, round(width * scale)), max(1, round(height * scale))), scale


def draw_overlay(photo: Photo, inspection: Inspection, threshold: float) -> Image.Image:
    """The photograph (RGB, at most 2000 pixels in either direction with its legend) with map,
    regions and legend.
    """
    size, scale = shown_size(photo.width, photo.height)
    seen = photo.resized(*size).convert("RGBA")
    seen.alpha_composite(_heat(inspection, size))
    canvas = Image.new("RGB", (max(size[0], NARROWEST), size[1] + LEGEND), "white")
    canvas.paste(seen.convert("RGB"))
    brush = ImageDraw.Draw(canvas)
    with_names = len({region.label for region in inspection.regions}) > 1
    for index, region in reversed(list(enumerate(inspection.regions[:MOST_BOXES]))):
        _box(
            brush,
            region,
            scale,
            size,
            _label(region, with_names, inspection.span) if index < MOST_TEXTS else None,
        )
    _legend(canvas, size[1], threshold, inspection.span)
    draw_scale_bar(brush, canvas.width, size, scale, inspection.mm_per_pixel, canvas.height)
    return canvas


def _colours(values: np.ndarray) -> np.ndarray:
    """Probabilities (...) as colours (..., 3) uint8."""
    steps = np.linspace(0, 1, len(COLOURS))
    return (
        np.stack([np.interp(values, steps, COLOURS[:, channel]) for channel in range(3)], axis=-1)
        .round()
        .astype(np.uint8)
    )


def _heat(inspection: Inspection, size: tuple[int, int]) -> Image.Image:
    # Squared, so that the sound greater part of a photograph keeps its own colours.
    alpha = (inspection.map**2 * OPAQUE * 255).round().astype(np.uint8)
    heat = Image.fromarray(
        np.concatenate([_colours(inspection.map), alpha[..., None]], axis=-1), "RGBA"
    )
    # The cells at the right and bottom edge are cut off where the photograph ends.
    return heat.resize(
        size,
        Image.Resampling.NEAREST,
        box=(0, 0, inspection.width / inspection.cell, inspection.height / inspection.cell),
    )


def _label(region: Region, with_name: bool, span: Span | None) -> str:
    level = level_text(region.probability, span)
    return f"{region.label} {level}" if with_name else level


def _box(
    brush: ImageDraw.ImageDraw,
    region: Region,
    scale: float,
    size: tuple[int, int],
    text: str | None,
) -> None:
    left, top = floor(region.left * scale), floor(region.top * scale)
    right, bottom = (
        min(size[0], ceil(region.right * scale)) - 1,
        min(size[1], ceil(region.bottom * scale)) - 1,
    )
    right, bottom = max(left, right), max(top, bottom)
    # White between black lines is seen on any photograph.
    for inset, colour in ((0, "black"), (1, "white"), (2, "white"), (3, "black")):
        if right - left >= 2 * inset and bottom - top >= 2 * inset:
            brush.rectangle(
                (left + inset, top + inset, right - inset, bottom - inset), outline=colour
            )
    if text is not None:
        wide, high = (int(value) for value in brush.textbbox((0, 0), text, font=font(15))[2:])
        x = max(0, min(left, size[0] - wide - 9))
        y = next((y for y in (top - high - 6, bottom + 1) if 0 <= y <= size[1] - high - 6), top)
        brush.rectangle((x, y, x + wide + 8, y + high + 5), fill="black")
        brush.text((x + 4, y + 2), text, fill="white", font=font(15))


def _legend(canvas: Image.Image, top: int, threshold: float, span: Span | None) -> None:
    left, wide = 12, 200
    bar = Image.fromarray(np.tile(_colours(np.linspace(0, 1, wide)), (14, 1, 1)))
    canvas.paste(bar, (left, top + 10))
    brush = ImageDraw.Draw(canvas)
    brush.rectangle((left - 1, top + 9, left + wide, top + 24), outline="black")
    tick = left + round(level_of(threshold, span) * (wide - 1))
    brush.line((tick, top + 4, tick, top + 29), fill="black", width=2)
    text = f"damage 0 to 100 %; boxes from {percentage(threshold)}"
    if span is not None:
        text = f"{figure(span[0])} to {figure(span[1])}; boxes from {figure(threshold)}"
    brush.text(
        (left, top + 33),
        text,
        fill="black",
        font=font(15),
    )


def draw_scale_bar(
    brush: ImageDraw.ImageDraw,
    right: int,
    shown: tuple[int, int],
    scale: float,
    mm_per_pixel: float | None,
    bottom: int,
) -> None:
    """A bar of a round length in the lower right corner of a legend that ends at `bottom`, below a
    photograph `shown` at so many times its size.
    """
    per_unit = (
        scale if mm_per_pixel is None else scale / mm_per_pixel
    )  # pixels of the overlay for a pixel or a millimetre
    length = _round_length(min(160, shown[0]) / per_unit)
    right -= 12
    y = bottom - LEGEND + 17
    left = right - max(1, round(length * per_unit))
    brush.line((left, y, right, y), fill="black", width=3)
    for x in (left, right):
        brush.line((x, y - 6, x, y + 6), fill="black", width=2)
    text = f"{length:g} {'pixels' if mm_per_pixel is None else 'mm'}"
    brush.text(
        (right - brush.textlength(text, font=font(15)), y + 16),
        text,
        fill="black",
        font=font(15),
    )


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20 ... that is no longer."""
    power = 10.0 ** floor(log10(most))
    return next(step * power for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of legends and boxes."""
    return ImageFont.load_default(size)
