"""Labelled images of any origin as a model that is there already sees them: decoded, resized and
matched by its own notes, never by what these images would ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunedge.data.cache import Decoded, decode_all
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.decode import Progress, try_image
from prunedge.data.groups import groups_of
from prunedge.data.mask_array import Masks, masks_of, shown_targets
from prunedge.data.mask_listing import MaskOptions, list_images
from prunedge.data.mask_sources import refuse_unmasked
from prunedge.data.paths import written
from prunedge.data.records import SPLITS, Listing, Record
from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import DeepGreys, Greys, InChannels
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.tasks import DEFINITIONS, matched
from prunedge.edge.tasks.base import Labels, Targets, Unmatched
from prunedge.errors import DataError
from prunedge.utils.wording import counted

ALL = "all"
TEST = "test"
SIDES = (TEST, "val", "train", ALL)


@dataclass(frozen=True)
class Sight:
    """How a model sees images: what `Split` has of it. `targets` are what it knows; `tile` is the
    side of the squares that photographs with masks are cut into, None where they stay whole.
    """

    targets: Targets
    size: Size
    resize: Resize = "stretch"
    in_channels: InChannels = 3
    image_norm: ImageNorm = "imagenet"
    greys: Greys | None = None
    tile: int | None = None


@dataclass(frozen=True)
class JudgedImages:
    """Images that a model is judged on: `split`, which is the `side` of what was given.

    `unreadable` are the names of images that can't be read, each with the reason, `left_out` how
    many images have labels that the model doesn't know, by these (`class 'graffiti'`).
    """

    split: Split
    side: str
    unreadable: Mapping[str, str]
    left_out: Mapping[str, int]

    @property
    def sources(self) -> list[str | None]:
        """The photograph or structure that each image comes from."""
        return [sample.source for sample in self.split.samples]

    @property
    def missing(self) -> tuple[str, ...]:
        """The classes (degrees) that no image shows."""
        samples = self.split.samples
        return self.split.labelling.missing([sample.target for sample in samples])


def read_judged(
    data: Path | str,
    sight: Sight,
    *,
    masks: Path | str | None = None,
    side: str | None = None,
    group_by: str | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> JudgedImages:
    """The images of whatever `list_data` reads, with the labels that the model knows by name; where
    there are `masks`, photographs with these.

    `side` is `test`, `val` or `train` where images come with splits, or `all`; unless given, it is
    the test split where there is one, and otherwise all. Raises DataError where nothing is left to
    judge by.
    """
    refuse_unmasked(sight.targets.task, data, masks)
    how = MaskOptions(
        skips=True,
        tile=sight.tile,
        known=sight.targets.classes,
        cache_dir=cache_dir,
        progress=progress,
        is_wanted=DEFINITIONS[sight.targets.task].reads_masks,
    )
    listing = list_images(data, masks, how)
    chosen, records = _of_side(listing, side)
    if group_by is not None:
        groups = groups_of(replace(listing, records=tuple(records)), group_by)
        grouped = zip(records, groups, strict=True)
        records = [replace(record, source=source) for record, source in grouped]

    known, targets, left_out = _matched(listing, records, sight.targets)
    masked = _masks(listing, known, sight, cache_dir, progress)
    if masked is not None:
        targets = shown_targets(masked, known)
    decoded = _decoded(known, sight, cache_dir, progress)
    unreadable = {known[row].name: reason for row, reason in sorted(decoded.unreadable.items())}
    rows = [row for row in range(len(known)) if row not in decoded.unreadable]
    if not rows:
        name, reason = next(iter(unreadable.items()))
        raise DataError(
            f"none of {counted(len(known), 'image')} can be read: {name} ({reason}) ...",
            where=listing.where,
            remedy="replace them, or name others",
        )
    split = Split(
        samples=tuple(Sample(known[row].path, targets[row], known[row].source) for row in rows),
        labelling=sight.targets,
        size=sight.size,
        cache=decoded.cache,
        rows=tuple(rows),
        greys=sight.greys,
        resize=sight.resize,
        in_channels=sight.in_channels,
        image_norm=sight.image_norm,
        masks=masked,
    )
    return JudgedImages(split, chosen, unreadable, left_out)


def _masks(
    listing: Listing,
    records: Sequence[Record],
    sight: Sight,
    cache_dir: Path | str | None,
    progress: Progress | None,
) -> Masks | None:
    """The masks of these images as the model numbers its classes, where there are masks."""
    if listing.masked is None:
        return None
    pairs = zip(listing.records, listing.masked.pairs, strict=True)
    by_path = {record.path: pair for record, pair in pairs}
    masked = replace(listing.masked, pairs=tuple(by_path[record.path] for record in records))
    masks = masks_of(
        masked,
        sight.targets.classes,
        sight.size,
        sight.resize,
        folder=cache_dir,
        progress=progress,
    )
    return masks.counting_once()


def _decoded(
    records: Sequence[Record],
    sight: Sight,
    cache_dir: Path | str | None,
    progress: Progress | None,
) -> Decoded:
    """The images as the model sees them. DataError where it knows nothing of their greys."""
    paths = [record.path for record in records]
    try:
        return decode_all(
            paths,
            sight.size,
            sight.greys,
            resize=sight.resize,
            in_channels=sight.in_channels,
            folder=cache_dir,
            progress=progress,
        )
    except DeepGreys as error:
        raise DataError(
            "an image has greys of more than eight bits; the model learned from eight",
            where=error.where,
            remedy="save these images as those that it was trained on",
        ) from None


def own_judged(data: Dataset, side: str | None = None, group_by: str | None = None) -> JudgedImages:
    """A run's own images, on the sides that it has them on; those of its test split unless another
    is asked for. `group_by` says what comes from one photograph where the run doesn't.
    """
    unreadable = {}
    for path in data.skipped:
        reason = try_image(path, data.size, data.greys, data.resize, data.in_channels)
        unreadable[str(path)] = reason if isinstance(reason, str) else "it can be read again"
    chosen = side or TEST
    samples: list[Sample] = []
    rows: list[int] = []
    for name, split in data.splits().items():
        if chosen in (name, ALL):
            samples += split.samples
            rows += split.rows
    if group_by is not None:
        samples = _grouped(samples, data, group_by)
    whole = replace(data.test, samples=tuple(samples), rows=tuple(rows))
    return JudgedImages(whole, chosen, unreadable, {})


def _grouped(samples: Sequence[Sample], data: Dataset, group_by: str) -> list[Sample]:
    """The same images with sources by `group_by`."""
    where = written(data.root)
    names = [written(sample.path).removeprefix(where).lstrip("/") for sample in samples]
    records = []
    for sample, name in zip(samples, names, strict=True):
        # Labels of masks are no folders.
        label = "" if data.test.has_masks else name.partition("/")[0]
        records.append(Record(sample.path, name, label, sample.source))
    listing = Listing(data.root, tuple(records), Labels(records, where, "", ""))
    groups = groups_of(listing, group_by)
    return [replace(one, source=source) for one, source in zip(samples, groups, strict=True)]


def _of_side(listing: Listing, side: str | None) -> tuple[str, Sequence[Record]]:
    """The images of that side, and what it is called. DataError where there are none."""
    there = [name for name in SPLITS if any(record.split == name for record in listing.records)]
    chosen = side or (TEST if TEST in there else ALL)
    if chosen == ALL:
        return ALL, listing.records
    if chosen not in there:
        held = f"they have {', '.join(there)}" if there else "they come without splits"
        remedy = f"use --split {there[0]}, or --split {ALL}" if there else "leave --split out"
        raise DataError(
            f"there is no split {chosen} of these images: {held}",
            where=listing.where,
            remedy=remedy,
        )
    return chosen, [record for record in listing.records if record.split == chosen]


def _matched(
    listing: Listing, records: Sequence[Record], targets: Targets
) -> tuple[list[Record], list[Any], dict[str, int]]:
    """The images whose labels the model knows, their targets, and how many others there are by what
    it doesn't know. DataError where it knows none.
    """
    labels = replace(listing.labels, images=tuple(records))
    known = []
    found = []
    unknown: Counter[str] = Counter()
    for record, target in zip(records, matched(targets, labels), strict=True):
        if isinstance(target, Unmatched):
            unknown[target.what] += 1
        else:
            known.append(record)
            found.append(target)
    if not known:
        names = ", ".join(name for name, _ in unknown.most_common(3))
        raise DataError(
            f"nothing can be compared: the model knows {', '.join(targets.classes)}, and the "
            f"images have {names}",
            where=listing.where,
            remedy="call the labels as the model does",
        )
    return known, found, dict(unknown.most_common())
