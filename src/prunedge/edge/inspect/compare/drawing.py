"""The two photographs of a pair, the new one as the old one was taken, with outlines of what
changed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunedge.edge.inspect.compare.changes import Change, Kind
from prunedge.edge.inspect.compare.damage_maps import DamageMap
from prunedge.edge.inspect.compare.pair import Pair
from prunedge.edge.inspect.compare.registration import opencv

LONGEST, SMALLEST = 1600, 800  # pixels of the longer side; small photographs are enlarged
MOST_TEXTS = 60  # numbers in a picture
BESIDE = 5  # pixels from a region to its outline
NOWHERE = (128, 128, 128)  # where the new photograph shows nothing

# Okabe and Ito's colours, told apart by people who see no red or green; numbers and the table say
# the same without colour.
COLOURS: dict[Kind, str] = {
    "new": "#f0e442",
    "grown": "#56b4e9",
    "smaller": "#009e73",
    "gone": "#d55e00",
    "unchanged": "#ffffff",
    "unclear": "#cc79a7",
    "outside": "#999999",
}


def draw_pair(pair: Pair) -> tuple[Image.Image, Image.Image]:
    """The old photograph and the new one laid on it (RGB, of one size), with outlines. What one of
    them alone has is outlined in the other as a thin line.
    """
    width, height = pair.size
    longest = max(pair.size)
    scale = min(max(1.0, SMALLEST / longest), LONGEST / longest)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    old = pair.old_copy.resize(size, Image.Resampling.BICUBIC)
    new = _laid_on(pair, size, scale)
    pictures = (ImageDraw.Draw(old), ImageDraw.Draw(new))
    numbered = list(enumerate(pair.changes, 1))
    for change in reversed(pair.changes):  # the first of the table on top
        sides = ((change.old, pair.old_map), (change.new, pair.new_map))
        for own, brush in enumerate(pictures):
            is_there = bool(sides[own][0])
            numbers, found = sides[own] if is_there else sides[1 - own]
            for outline in _outlines(found, numbers, scale):
                _draw_outline(brush, outline, COLOURS[change.kind], is_thick=is_there)
    for number, change in reversed(numbered[:MOST_TEXTS]):
        for brush in pictures:
            _write_number(brush, str(number), change, scale, size)
    return old, new


def _laid_on(pair: Pair, size: tuple[int, int], scale: float) -> Image.Image:
    """The new photograph's copy as the old photograph was taken, at this size."""
    cv2 = opencv()
    old = np.array([[scale, 0, -0.5], [0, scale, -0.5], [0, 0, 1]])
    # From the numbers of the copy's pixels to places of the new photograph.
    factor = pair.new_size[0] / pair.new_copy.width
    new = np.array([[factor, 0, factor / 2], [0, factor, factor / 2], [0, 0, 1]])
    way = old @ pair.registration.matrix @ new
    pixels = cv2.warpPerspective(
        np.asarray(pair.new_copy),
        way,
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=NOWHERE,
    )
    return Image.fromarray(pixels)


def _outlines(found: DamageMap, numbers: tuple[int, ...], scale: float) -> list[list[Any]]:
    """The outlines around regions, as points (x, y) of the picture: a little outside, so that they
    don't cover thin cracks.
    """
    cv2 = opencv()
    per_square = found.cell * scale
    side = max(1, round(per_square))  # pixels that a square is drawn with
    rim = round(BESIDE / per_square * side)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    border = rim + 1
    outlines = []
    for number in numbers:
        box = found.boxes.get(number)
        if box is None:
            continue
        left, top, right, bottom = box
        is_own = (found.labels[top:bottom, left:right] == number).astype(np.uint8)
        drawn = np.pad(np.kron(is_own, np.ones((side, side), np.uint8)), border)
        mask = cv2.dilate(drawn, disc)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            points = (contour.reshape(-1, 2) + 0.5 - border) / side + (left, top)
            outlines.append([tuple(point) for point in (points * per_square).tolist()])
    return outlines


def _draw_outline(
    brush: ImageDraw.ImageDraw, points: list[Any], colour: str, *, is_thick: bool
) -> None:
    """A coloured line on a black one, which is seen on any photograph."""
    closed = [*points, points[0]]
    if is_thick:
        brush.line(closed, fill="black", width=5, joint="curve")
    brush.line(closed, fill=colour, width=3 if is_thick else 1, joint="curve")


def _write_number(
    brush: ImageDraw.ImageDraw, text: str, change: Change, scale: float, size: tuple[int, int]
) -> None:
    """A change's number above its box, in its colour on black."""
    left, top, _, bottom = (side * scale for side in change.box)
    font = _font()
    wide, high = (int(value) for value in brush.textbbox((0, 0), text, font=font)[2:])
    x = max(0, min(round(left), size[0] - wide - 8))
    y = round(top) - high - 10
    if y < 0:
        y = min(round(bottom) + 4, size[1] - high - 6)
    brush.rectangle((x, y, x + wide + 7, y + high + 5), fill="black")
    brush.text((x + 4, y + 2), text, fill=COLOURS[change.kind], font=font)


@lru_cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(22)
