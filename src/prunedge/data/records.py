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
class Record:
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
    records: tuple[Record, ...]
    classes: tuple[str, ...]

    @property
    def where(self) -> str:
        """The root, for messages."""
        return written(self.root)


def finish(
    root: Path, records: Sequence[Record], where: Path | None = None, *, held: str = "folder names"
) -> Listing:
    """Check what every layout must give: two classes, one to an image, and a split for all
    images or for none.

    `held` says what holds the labels.
    """
    shown_as = written(where or root)
    classes = _sorted_labels({record.label for record in records})
    if not records:
        raise DataError("no images found", where=shown_as, remedy=LAYOUT)
    if len(classes) < 2:
        raise DataError(
            f"only one class, '{classes[0][:100]}'",
            where=shown_as,
            remedy=f"at least two are needed; {LAYOUT}",
        )
    counts = Counter(record.label for record in records)
    refusal = label_kinds.refusal(counts, held)
    if refusal is not None:
        raise DataError(refusal, where=shown_as, remedy=label_kinds.REMEDY)
    doubt = label_kinds.doubt(counts, held)
    if doubt is not None:
        log.warning("%s: %s; %s", shown_as, doubt, label_kinds.REMEDY)

    given = {record.split for record in records}
    if None in given and len(given) > 1:
        without = [record.name for record in records if record.split is None]
        raise DataError(
            f"{len(without)} of {len(records)} images have no split, {without[0]} first",
            where=shown_as,
            remedy="fill in all or none",
        )
    if None not in given and "train" not in given:
        raise DataError(
            "a split is given, but no image is for training",
            where=shown_as,
            remedy="mark some as train",
        )
    return Listing(root, tuple(records), classes)


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Sorted as numbers when all are, so that class 10 comes after class 9."""

    def order(label: str) -> tuple[int, str]:
        return (int(label), label) if label.isdecimal() else (-1, label)

    return tuple(sorted(labels, key=order))
