"""Class folders of a task that may give an image several labels: the same image in several folders
is one image with all their labels.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prunedge.data.records import FOLDER_NAMES, Listing, Record
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.utils.machine import pass_on_reading


def joined(listing: Listing) -> Listing:
    """The listing with files of equal bytes, within one split, as one image; as it is where the
    labels are no folders' names.
    """
    if listing.labels.held != FOLDER_NAMES:
        return listing
    kinds: dict[object, list[Record]] = defaultdict(list)
    for record, content in zip(listing.records, _contents(listing.records), strict=True):
        kinds[record.split, content].append(record)
    records = []
    for copies in kinds.values():
        label = SEPARATOR.join(sorted({record.label for record in copies}))
        records.append(replace(copies[0], label=label))
    return replace(
        listing,
        records=tuple(records),
        labels=replace(listing.labels, images=tuple(records)),
    )


def _contents(records: Sequence[Record]) -> list[object]:
    """Something that files of equal bytes have in common, for each. Only files of equal sizes are
    read; one that can't be is like none, and is told where it is decoded.
    """
    sizes = [_size(record.path) for record in records]
    times: dict[int, int] = defaultdict(int)
    for size in sizes:
        times[size] += 1
    contents: list[object] = []
    for record, size in zip(records, sizes, strict=True):
        contents.append(_digest(record.path) if size >= 0 and times[size] > 1 else record.path)
    return contents


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        pass_on_reading(error, path)
        return -1


def _digest(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        pass_on_reading(error, path)
        return path
