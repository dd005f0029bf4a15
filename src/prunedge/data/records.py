"""The list of all images: what each is called, shows and comes from, before any is opened."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunedge.data import label_kinds
from prunedge.data.paths import written
from prunedge.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
LAYOUT = (
    "expected DATA/<class>/*.jpg, DATA/train/<class>/*.jpg, a CSV with the columns path,label, "
    "or shards (*.tar)"
)


@dataclass(frozen=True)
class Row:
    """One listed image: its file, its name relative to the root (with slashes), and what the user
    said of it.
    """

    path: Path
    name: str
    label: str
    source: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Listing:
    """All images of a root, in an order that does not depend on the file system, and the names of
    their classes, sorted.
    """

    root: Path
    rows: tuple[Row, ...]
    classes: tuple[str, ...]

    @property
    def where(self) -> str:
        """The root, for messages."""
        return written(self.root)


def finish(
    root: Path, rows: Sequence[Row], where: Path | None = None, *, held: str = "folder names"
) -> Listing:
    """Check what every layout must give: two classes, one to an image, and a split for all
    images or for none.

    `held` says what holds the labels.
    """
    place = written(where or root)
    classes = _sorted_labels({row.label for row in rows})
    if not rows:
        raise DataError("no images found", where=place, remedy=LAYOUT)
    if len(classes) < 2:
        raise DataError(
            f"only one class, '{classes[0][:100]}'",
            where=place,
            remedy=f"at least two are needed; {LAYOUT}",
        )
    counts = Counter(row.label for row in rows)
    if wrong := label_kinds.refusal(counts, held):
        raise DataError(wrong, where=place, remedy=label_kinds.REMEDY)
    if doubtful := label_kinds.doubt(counts, held):
        log.warning("%s: %s; %s", place, doubtful, label_kinds.REMEDY)
    given = {row.split for row in rows}
    if None in given and len(given) > 1:
        bare = [row.name for row in rows if row.split is None]
        raise DataError(
            f"{len(bare)} of {len(rows)} images have no split, {bare[0]} first",
            where=place,
            remedy="fill in all or none",
        )
    if None not in given and "train" not in given:
        raise DataError(
            "a split is given, but no image is for training",
            where=place,
            remedy="mark some as train",
        )
    return Listing(root, tuple(rows), classes)


def _sorted_labels(found: set[str]) -> tuple[str, ...]:
    """Sorted as numbers when all are, so that class 10 comes after class 9."""
    return tuple(
        sorted(found, key=lambda label: (int(label), label) if label.isdecimal() else (-1, label))
    )
