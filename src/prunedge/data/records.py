"""The list of all images: what each is called, shows and comes from, before any is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunedge.data.paths import written
from prunedge.edge.tasks.base import Labels, Targets
from prunedge.errors import DataError

if TYPE_CHECKING:
    from prunedge.data.mask_reading import MaskReading
    from prunedge.data.masks import Pair

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
    "a COCO file (*.json), or shards (*.tar)"
)
FOLDER_NAMES = "folder names"  # what holds the labels of class folders


@dataclass(frozen=True)
class Record:
    """One listed image: its file, its name relative to the root (with slashes), and what the user
    said of it. `label` holds all labels of an image that has several
    (`prunedge.edge.tasks.base.SEPARATOR`).
    """

    path: Path
    name: str
    label: str
    source: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Masked:
    """The photographs of a listing with their masks, in its order, and how these are read."""

    pairs: tuple[Pair, ...]
    reading: MaskReading


@dataclass(frozen=True)
class Listing:
    """All images of a root, in an order that does not depend on the file system, and the labels
    that they have there. `masked` are their masks, where they have some.
    """

    root: Path
    records: tuple[Record, ...]
    labels: Labels
    masked: Masked | None = None

    @property
    def where(self) -> str:
        """The root, for messages."""
        return written(self.root)


def refuse_without_training(listing: Listing) -> None:
    """DataError where images come with splits, and none is for training."""
    given = {record.split for record in listing.records}
    if None not in given and "train" not in given:
        raise DataError(
            "a split is given, but no image is for training",
            where=listing.labels.where,
            remedy="mark some as train",
        )


@dataclass(frozen=True)
class LabelledImages:
    """All listed images, of each what is predicted of it and where it comes from (None: an image of
    its own). `labelling` says what the targets are.
    """

    listing: Listing
    labelling: Targets
    targets: Sequence[Any]
    sources: Sequence[str | None]

    @property
    def paths(self) -> list[Path]:
        """Where each lies."""
        return [record.path for record in self.listing.records]

    def strata(self, indices: Sequence[int]) -> np.ndarray:
        """(len(indices), k) int64: how often each of these counts in each stratum."""
        return self.labelling.strata([self.targets[index] for index in indices])


def finish(
    root: Path,
    records: Sequence[Record],
    where: Path | None = None,
    *,
    held: str = FOLDER_NAMES,
    columns: tuple[str, ...] = (),
) -> Listing:
    """Check what every layout must give: images, and a split for all of them or for none.

    `held` says what holds the labels, of which the task says what they are; `columns` names the
    numbers that each holds.
    """
    shown_as = written(where or root)
    if not records:
        raise DataError("no images found", where=shown_as, remedy=LAYOUT)
    given = {record.split for record in records}
    if None in given and len(given) > 1:
        without = [record.name for record in records if record.split is None]
        raise DataError(
            f"{len(without)} of {len(records)} images have no split, {without[0]} first",
            where=shown_as,
            remedy="fill in all or none",
        )
    images = tuple(records)
    return Listing(root, images, Labels(images, shown_as, held, LAYOUT, columns=columns))
