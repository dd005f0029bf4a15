"""What the pruned model gets wrong, as small images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from prunedge.data.decode import source_of
from prunedge.edge.image.read import Greys, parse_range, read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError

MOST_MISTAKES = 24
THUMBNAIL = 160


def thumbnails(mistakes: Sequence[Mapping[str, Any]], span: str | None = None) -> dict[str, Any]:
    """The first mistakes as JPEG data URIs, most confident first (as they come, where answers
    have no confidence); images that are gone are left out and counted.

    `span` is the run's range of greys of more than eight bits (`LOW:HIGH`).
    """
    shown = []
    gone = 0
    greys = None if span is None else Greys(*parse_range(span), mixed=True)
    most_confident = sorted(mistakes, key=lambda mistake: -(mistake["p_best"] or 0))
    for mistake in most_confident[:MOST_MISTAKES]:
        try:
            pixels = read_image(source_of(mistake["path"]), square(THUMBNAIL), greys)
            image = Image.fromarray(pixels)
        except (DataError, FileNotFoundError):
            gone += 1
            continue
        shown.append({**mistake, "uri": _data_uri(image), "name": Path(mistake["path"]).name})
    return {"shown": shown, "gone": gone, "count": len(mistakes)}


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
