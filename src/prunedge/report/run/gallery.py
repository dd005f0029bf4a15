"""What the pruned model gets wrong, as small images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from prunedge.data.decode import source_of
from prunedge.edge.image.read import Greys, parse_range, read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError
from prunedge.report.decision_text import percent
from prunedge.report.run.explain import Explanation
from prunedge.runs.decision_record import DecisionRecord, ShownRecord
from prunedge.utils.wording import counted

MOST_MISTAKES = 24
MOST_OF_A_KIND = 12
THUMBNAIL = 160


@dataclass(frozen=True)
class Shelf:
    """The images of one kind, with a note that says which they are."""

    title: str
    note: str
    shown: tuple[Mapping[str, Any], ...]


def thumbnails(mistakes: Sequence[Mapping[str, Any]], span: str | None = None) -> dict[str, Any]:
    """The first mistakes as JPEG data URIs, most confident first (as they come, where answers
    have no confidence); images that are gone are left out and counted.

    `span` is the run's range of greys of more than eight bits (`LOW:HIGH`).
    """
    shown = []
    gone = 0
    most_confident = sorted(mistakes, key=lambda mistake: -(mistake["p_best"] or 0))
    for mistake in most_confident[:MOST_MISTAKES]:
        image = thumbnail(mistake["path"], span)
        if image is None:
            gone += 1
            continue
        name = Path(mistake["path"]).name
        shown.append({**mistake, "uri": _data_uri(image), "name": name})
    return {"shown": shown, "gone": gone, "count": len(mistakes)}


def shelves(
    images: Mapping[str, Sequence[ShownRecord]],
    best: DecisionRecord,
    explanation: Explanation,
    span: str | None = None,
) -> list[Shelf]:
    """The images of `shown_in` with their heat maps, kind by kind: missed damage, false alarms, and
    those nearest to the threshold.
    """
    counts = best.test
    notes = {
        "missed damage": ("surest", counts.missed),
        "false alarms": ("surest", counts.alarms),
        "borderline": ("nearest to the threshold", None),
    }
    made = []
    for title, records in images.items():
        shown = []
        for record in records:
            image = thumbnail(record.path, span)
            if image is not None:
                shown.append(_shown(record, image, explanation))
        rank, count = notes[title]
        note = f"the {counted(len(shown), 'image')} {rank}"
        if count is not None:
            note = f"{len(shown):,} of {count:,}, the {rank} first"
        if len(shown) < len(records):
            note += f"; {len(records) - len(shown)} can't be read any more"
        made.append(Shelf(title, note, tuple(shown)))
    return made


def shown_in(test: Mapping[str, Any]) -> dict[str, list[ShownRecord]]:
    """The images of test.json that are worth a look, by kind; {} where it has none."""
    wrong = [ShownRecord(**record) for record in test.get("wrong") or []]
    near = [ShownRecord(**record) for record in test.get("borderline") or []]
    if not wrong and not near:
        return {}
    return {
        "missed damage": [record for record in wrong if record.is_damaged][:MOST_OF_A_KIND],
        "false alarms": [record for record in wrong if not record.is_damaged][:MOST_OF_A_KIND],
        "borderline": near[:MOST_OF_A_KIND],
    }


def thumbnail(path: str, span: str | None) -> Image.Image | None:
    """A small image; None where it can't be read any more."""
    greys = None if span is None else Greys(*parse_range(span), mixed=True)
    try:
        return Image.fromarray(read_image(source_of(path), square(THUMBNAIL), greys))
    except (DataError, FileNotFoundError):
        return None


def _shown(record: ShownRecord, image: Image.Image, explanation: Explanation) -> dict[str, Any]:
    """What the template is told of an image."""
    heat = explanation.images.get((record.path, record.part))
    return {
        "uri": _data_uri(image),
        "heat": None if heat is None else _data_uri(heat),
        "name": Path(record.path).name,
        "label": record.label,
        "lines": list(_lines(record)),
    }


def _lines(record: ShownRecord) -> Iterator[str]:
    """What the models made of an image."""
    yield f"{record.part or 'damage'} {percent(record.probability)}"
    yield _decided(record.is_damaged, record.is_called)
    if record.was_called is not None and record.was_called != record.is_called:
        yield f"unpruned: {_decided(record.is_damaged, record.was_called)}"


def _decided(is_damaged: bool, is_called: bool) -> str:
    """What a decision is called."""
    if is_damaged:
        return "found" if is_called else "missed"
    return "false alarm" if is_called else "quiet"


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
