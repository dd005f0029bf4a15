"""The folder of a comparison: two pictures of each pair, comparison.json, comparison.csv and a
page. It is there whole or not at all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from prunedge.edge.inspect.compare.drawing import draw_pair
from prunedge.edge.inspect.compare.page import MOST_PICTURES, render_comparison, thumbnail
from prunedge.edge.inspect.compare.pair import Pair
from prunedge.edge.inspect.compare.pairing import Unpaired
from prunedge.edge.inspect.compare.records import pair_to_json, table
from prunedge.edge.inspect.kept import KeptInspection
from prunedge.edge.inspect.sources import COMPARISON
from prunedge.errors import DataError
from prunedge.utils.files import (
    is_ours,
    make_folder,
    read_text,
    refuse_url,
    write_bytes,
    write_text,
    written_folder,
)
from prunedge.utils.machine import pass_on_reading

FORMAT = "prunedge comparison"
PAGE = "comparison.html"


@dataclass
class ComparisonFolder:
    """A comparison's folder while it is made: hidden, and then at `place`."""

    path: Path
    place: Path
    inspections: tuple[KeptInspection, KeptInspection]
    pairs: list[dict[str, Any]] = field(default_factory=list)
    thumbnails: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """Where the page will be."""
        return self.place / PAGE

    def keep(self, pair: Pair) -> None:
        """Write the pictures of a pair, and remember the rest."""
        pictures = draw_pair(pair)
        for picture, suffix in zip(pictures, (".before.jpg", ".after.jpg"), strict=True):
            file = self.path / f"{pair.old}{suffix}"
            make_folder(file.parent)
            write_bytes(file, _jpeg(picture))
        old, new = self.inspections
        kept = pair_to_json(pair, (old.images[pair.old], new.images[pair.new]))
        self.pairs.append(kept)
        if len(self.thumbnails) < MOST_PICTURES and kept["changes"]:
            self.thumbnails[pair.old] = (thumbnail(pictures[0]), thumbnail(pictures[1]))

    def summarise(
        self, sentence: str, differences: Sequence[str], not_compared: Sequence[Unpaired]
    ) -> None:
        """Write the JSON, the table and the page."""
        comparison = {
            "format": FORMAT,
            "summary": sentence,
            "differences": list(differences),
            "old": _about(self.inspections[0]),
            "new": _about(self.inspections[1]),
            "pairs": self.pairs,
            "not_compared": [asdict(each) for each in not_compared],
        }
        write_text(self.path / COMPARISON, json.dumps(comparison, indent=1))
        write_text(self.path / "comparison.csv", table(self.pairs, not_compared))
        write_text(self.path / PAGE, render_comparison(comparison, self.thumbnails))


@contextmanager
def open_comparison(
    place: Path, inspections: tuple[KeptInspection, KeptInspection]
) -> Iterator[ComparisonFolder]:
    """A folder to make: new, empty, or in place of an earlier comparison. DataError where it holds
    something else.
    """
    refuse_url(place)
    _refuse_foreign(place)
    with written_folder(place, "comparison") as hidden:
        yield ComparisonFolder(hidden, place, inspections)


def _refuse_foreign(place: Path) -> None:
    if not place.exists():
        return
    if place.is_dir() and all(is_ours(entry.name) for entry in place.iterdir()):
        return
    try:
        mark = json.loads(read_text(place / COMPARISON, DataError))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, place / COMPARISON)
        mark = None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise DataError(
            "the folder holds something else than a comparison",
            where=place,
            remedy="choose another --out",
        )


def _about(inspection: KeptInspection) -> dict[str, Any]:
    """Which inspection it was."""
    about = inspection.about
    return {
        "folder": str(inspection.folder),
        "source": about["source"],
        "date": about["date"],
        "bundle": about["bundle"],
        "settings": about["settings"],
        "images": len(inspection.images),
    }


def _jpeg(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=88)
    return content.getvalue()
