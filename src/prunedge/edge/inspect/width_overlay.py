"""How wide damage is, in colours along its centrelines over the photograph, with a legend."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor

import numpy as np
from PIL import Image, ImageDraw

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.overlay import LEGEND, draw_scale_bar, font, shown_size
from prunedge.edge.inspect.widths import WidthClasses

# Okabe and Ito's colours (Color Universal Design, 2008) without black, in an order in which those
# beside each other differ in lightness as well.
COLOURS = (
    (86, 180, 233),
    (240, 228, 66),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (255, 255, 255),
)
LINE, CASING = 1, 3  # places around a centreline's, in the overlay's pixels
STEP = 22  # height of a row of the legend
BOX = 14


def draw_widths(photo: Photo, inspection: Inspection, classes: WidthClasses) -> Image.Image:
    """The photograph (RGB, at most 2000 pixels in either direction with its legend) with each
    measured centreline in the colour of the class of its width there.
    """
    size, scale = shown_size(photo.width, photo.height)
    rows = _rows(classes, size[0])
    legend = LEGEND + STEP * (len(rows) - 1)
    canvas = Image.new("RGB", (max(size[0], _width(rows)), size[1] + legend), "white")
    pixels = np.array(photo.resized(*size).convert("L").convert("RGB"))
    lines = list(_lines(inspection, classes, scale))
    for x, y, _ in lines:
        _paint(pixels, x, y, (0, 0, 0), CASING)
    for x, y, number in lines:
        _paint(pixels, x, y, COLOURS[number], LINE)
    canvas.paste(Image.fromarray(pixels))

    brush = ImageDraw.Draw(canvas)
    _legend(brush, rows, size[1], inspection.unit)
    draw_scale_bar(brush, canvas.width, size, scale, inspection.mm_per_pixel, size[1] + legend)
    return canvas


def _lines(
    inspection: Inspection, classes: WidthClasses, scale: float
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """The columns and rows of the overlay where a centreline has a class's width, and its number,
    the widest last.
    """
    per_pixel = 1.0 if inspection.unit == "px" else inspection.mm_per_pixel
    if per_pixel is None:
        return
    measured = [region.measures for region in inspection.regions if region.measures is not None]
    for number in range(len(classes.names)):
        for measures in measured:
            places = measures.centreline
            numbers = np.searchsorted(classes.limits, places[:, 2] * per_pixel, "right")
            x, y = (places[numbers == number, :2].T * scale).astype(int)
            if len(x):
                yield x, y, number


def _paint(
    pixels: np.ndarray, x: np.ndarray, y: np.ndarray, colour: tuple[int, int, int], around: int
) -> None:
    """Colour the places around these of an image (rows, columns, 3)."""
    height, width, _ = pixels.shape
    for down in range(-around, around + 1):
        for right in range(-around, around + 1):
            rows = (y + down).clip(0, height - 1)
            columns = (x + right).clip(0, width - 1)
            pixels[rows, columns] = colour


def _rows(classes: WidthClasses, width: int) -> list[list[tuple[int, str]]]:
    """The legend's rows, each with numbers and names of classes that fit beside the scale bar."""
    rows: list[list[tuple[int, str]]] = [[]]
    room = max(width, 460) - 200
    used = 0.0
    for number, name in enumerate(classes.names):
        needed = font(15).getlength(f"{name} mm") + BOX + 24
        if used + needed > room and rows[-1]:
            rows.append([])
            used = 0.0
        rows[-1].append((number, name))
        used += needed
    return rows


def _width(rows: list[list[tuple[int, str]]]) -> int:
    """How wide a legend has to be."""
    widest = max(
        sum(font(15).getlength(f"{name} mm") + BOX + 24 for _, name in row) for row in rows
    )
    return max(460, floor(widest) + 200)


def _legend(
    brush: ImageDraw.ImageDraw, rows: list[list[tuple[int, str]]], top: int, unit: str
) -> None:
    y = top + 10
    for row in rows:
        x = 12.0
        for number, name in row:
            brush.rectangle((x, y, x + BOX, y + BOX), fill=COLOURS[number], outline="black")
            text = f"{name} {unit}"
            brush.text((x + BOX + 6, y - 2), text, fill="black", font=font(15))
            x += font(15).getlength(text) + BOX + 24
        y += STEP
    brush.text((12, y + 3), "width of damage, along its middle", fill="black", font=font(15))
