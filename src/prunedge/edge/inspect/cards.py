"""A card for each defect of an inspection, to be looked at, noted and signed: a page that prints
on A4, whatever browser prints it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.kept import KeptInspection, Record
from prunedge.edge.inspect.levels import level_text
from prunedge.edge.inspect.measures_text import measures_of
from prunedge.edge.inspect.overlay import LEGEND
from prunedge.edge.inspect.page import facts_of, sentence_of
from prunedge.edge.inspect.photographs import Photographs
from prunedge.edge.inspect.written_files import CARDS, PDF, list_files
from prunedge.errors import DataError, MachineError
from prunedge.utils.browser import print_to_pdf, require_browser
from prunedge.utils.files import write_text
from prunedge.utils.pages import render_template

INSTEAD = f"open {CARDS} in a browser on another machine and print it there"
A_SHEET = 3  # cards
MOST_CARDS = 1000  # findings.csv has all
MOST_SKIPPED = 8  # lines of what was not inspected on the first sheet
# Pixels of a picture's longer side, of few cards and of many: the browser that prints them decodes
# all at once, four bytes for a pixel.
PICTURE, SMALL_PICTURE, FEW = 480, 300, 200
MOST_ENLARGED = 4.0
AROUND = 0.6  # of a region's longer side is shown around it
LEAST = 96  # pixels that are shown at least


def write_cards(
    inspection: KeptInspection,
    *,
    photos: Path | None = None,
    browser: str | None = None,
    max_megapixels: float = 200.0,
) -> list[Path]:
    """Write defects.html into an inspection's folder, and with a `browser` (`require_browser`)
    defects.pdf; returns the files.

    Pictures are cut from the photographs, wherever these are (`photos`, if not where they were
    inspected), or from the overlays where they are gone, which the cards then say.
    """
    page = inspection.folder / CARDS
    source = Photographs(inspection, photos, "--photos", max_megapixels)
    text = render_cards(inspection, source)
    list_files(inspection.folder, [CARDS] if browser is None else [CARDS, PDF])
    write_text(page, text)
    if browser is None:
        return [page]
    pdf = inspection.folder / PDF
    print_to_pdf(page, pdf, browser)
    return [page, pdf]


def browser_for_cards() -> str:
    """The browser that prints them; ExtraMissing where there is none."""
    return require_browser(INSTEAD)


def render_cards(inspection: KeptInspection, source: Photographs) -> str:
    """The page as HTML."""
    records = list(inspection.images.values())
    total = sum(len(record["regions"]) for record in records)
    cards = []
    for card in _cards(inspection, records, source):
        cards.append(card)
        if len(cards) == MOST_CARDS:
            break
    about = inspection.about
    skipped = inspection.skipped
    return render_template(
        "defects.html.j2",
        title=f"Defects: {about['source']}",
        date=str(about["date"]).replace("T", " "),
        sentence=sentence_of(about, records, skipped),
        total=total,
        left_out=total - len(cards),
        facts=facts_of(about, records),
        skipped=skipped[:MOST_SKIPPED],
        more_skipped=max(0, len(skipped) - MOST_SKIPPED),
        sheets=[cards[first : first + A_SHEET] for first in range(0, len(cards), A_SHEET)],
        pages=1 + ceil(len(cards) / A_SHEET),
    )


def _cards(
    inspection: KeptInspection, records: Sequence[Record], source: Photographs
) -> Iterator[dict[str, Any]]:
    """The cards in the order of findings.csv; each photograph is decoded once."""
    number = 0
    total = sum(len(record["regions"]) for record in records)
    longest = PICTURE if total <= FEW else SMALL_PICTURE
    for record in records:
        if not record["regions"]:
            continue
        view = _view(inspection, record, source, longest)
        for place, region in enumerate(record["regions"], 1):
            number += 1
            yield {
                "number": number,
                "label": region["label"],
                "image": record["name"],
                "place": f"region {place} of {len(record['regions'])}",
                "picture": view.picture(region),
                "remark": view.remark,
                "level": level_text(region["probability"], record.get("span")),
                "measures": measures_of(region, record),
            }


class _View:
    """What a region is shown in: the photograph of this size (width, height), or its overlay with a
    `remark`, so that no side of a picture is longer than `longest` pixels.
    """

    def __init__(
        self, shown: Photo | Image.Image, size: tuple[int, int], longest: int, remark: str = ""
    ) -> None:
        self.remark = remark
        self._longest = longest
        self._shown = shown
        self._size = size

    def picture(self, region: Mapping[str, Any]) -> str:
        """The region with what is around it, and its outline, as a data URL."""
        box = _around(region, self._size)
        left, top, right, bottom = box
        scale = min(self._longest / max(right - left, bottom - top), MOST_ENLARGED)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        picture = self._cut(box).convert("RGB").resize(size, Image.Resampling.BICUBIC)
        if isinstance(self._shown, Photo):
            _outline(picture, region, (left, top), scale)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()

    def _cut(self, box: tuple[int, int, int, int]) -> Image.Image:
        if isinstance(self._shown, Photo):
            return self._shown.crop(box)
        scale = (self._shown.height - LEGEND) / self._size[1]
        left, top, right, bottom = (round(side * scale) for side in box)
        return self._shown.crop((left, top, max(left + 1, right), max(top + 1, bottom)))


def _view(inspection: KeptInspection, record: Record, source: Photographs, longest: int) -> _View:
    """The photograph; its overlay where it is gone."""
    size = (record["width"], record["height"])
    try:
        return _View(source.open(record["name"]), size, longest)
    except (DataError, MachineError) as error:
        remark = f"from the overlay, since {error.what}"
    file = inspection.folder / f"{record['name']}.overlay.jpg"
    try:
        with Image.open(file) as opened:
            return _View(opened.convert("RGB"), size, longest, remark)
    except OSError:
        blank = Image.new("RGB", (size[0], size[1] + LEGEND), "white")
        return _View(blank, size, longest, f"no picture {remark}; the overlay can't be read either")


def _around(region: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A region's box with some of its surroundings, within the photograph."""
    longest = max(region["right"] - region["left"], region["bottom"] - region["top"])
    rim = max(round(AROUND * longest / 2), (LEAST - longest) // 2, 8)
    left, top = max(0, region["left"] - rim), max(0, region["top"] - rim)
    right = min(size[0], region["right"] + rim)
    bottom = min(size[1], region["bottom"] + rim)
    return left, top, max(left + 1, right), max(top + 1, bottom)


def _outline(
    picture: Image.Image, region: Mapping[str, Any], origin: tuple[int, int], scale: float
) -> None:
    """The region's outline, or its box where it has none, in a picture that begins at `origin`."""
    left, top, right, bottom = (region[side] for side in ("left", "top", "right", "bottom"))
    points = region.get("polygon")
    if not points:
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    drawn = [((x - origin[0]) * scale, (y - origin[1]) * scale) for x, y in points]
    brush = ImageDraw.Draw(picture)
    closed = [*drawn, drawn[0]]
    brush.line(closed, fill="black", width=4, joint="curve")
    brush.line(closed, fill="#f0e442", width=2, joint="curve")
