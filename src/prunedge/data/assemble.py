"""From a listing to a Dataset: decode (all that can't be read is known here), group, split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunedge.data.cache import Decoded, decode_all
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.decode import Progress, appearance
from prunedge.data.gray_range import Shade, choose_range, known_survey, refuse_idle_range, survey
from prunedge.data.groups import group_ids, groups_of
from prunedge.data.records import SPLITS, Listing
from prunedge.data.sides import Fold, check_splits, refuse_impossible_shares, sides_of
from prunedge.edge.image.read import COLOURS, DeepGreys, Greys, parse_range
from prunedge.edge.image.size import Resize, Size
from prunedge.errors import DataError
from prunedge.utils.advice import option

log = logging.getLogger(__name__)

_NAMED = 5  # images of a set that can't be read at all


@dataclass(frozen=True)
class LoadOptions:
    """How images become a Dataset: the arguments of `prunedge.data.load`.

    `shares` are those of val and test; `range` is `LOW:HIGH` or two numbers.
    """

    size: Size
    resize: Resize
    seed: int
    shares: tuple[float, float]
    fold: Fold | None
    group_by: str | None
    skip_unreadable: bool
    range: str | tuple[float, float] | None
    cache_dir: Path | str | None
    progress: Progress | None


@dataclass(frozen=True)
class _Split:
    """Decoded images, the indices of those that can be read, and the side of each of these.

    `greys` is the range of deep greys, `extremes` the lowest and highest of them; None without any.
    """

    decoded: Decoded
    kept: list[int]
    sides: list[str]
    greys: Greys | None = None
    extremes: tuple[float, float] | None = None

    def on(self, side: str) -> tuple[int, ...]:
        """The indices of the images on a side."""
        pairs = zip(self.kept, self.sides, strict=True)
        return tuple(index for index, its_side in pairs if its_side == side)


def assemble(listing: Listing, options: LoadOptions) -> Dataset:
    """The Dataset of listed images.

    Raises DataError for options that can't be met, for images that can't be read (all are named at
    once, unless they may be skipped), and for splits that can't be trained on.
    """
    refuse_impossible_shares(options.shares, options.fold, options.seed)
    span = parse_range(options.range) if isinstance(options.range, str) else options.range
    sources = groups_of(listing, options.group_by)
    split = _split(listing, sources, options, span)
    _warn_of_colours(listing, split.decoded)

    label_of = {name: label for label, name in enumerate(listing.classes)}
    samples = [
        Sample(record.path, label_of[record.label], source)
        for record, source in zip(listing.records, sources, strict=True)
    ]
    splits = {}
    for side in SPLITS:
        rows = split.on(side)
        splits[side] = Split(
            tuple(samples[row] for row in rows),
            options.size,
            split.decoded.cache,
            rows,
            split.greys,
            options.resize,
        )
    check_splits(listing, list(splits.values()))

    unreadable = sorted(split.decoded.unreadable)
    return Dataset(
        listing.root,
        listing.classes,
        **splits,
        size=options.size,
        resize=options.resize,
        fingerprint=_fingerprint(listing, split, appearance(options.size, options.resize)),
        skipped=tuple(listing.records[index].path for index in unreadable),
        greys=split.greys,
        extremes=split.extremes,
    )


def _split(
    listing: Listing,
    sources: Sequence[str | None],
    options: LoadOptions,
    span: tuple[float, float] | None,
) -> _Split:
    """Decode all images and share them out, by way of a survey of their greys where they are
    deep.
    """
    paths = [record.path for record in listing.records]
    shades = known_survey(paths, options.cache_dir)
    if shades is None:
        try:
            decoded = _decode(paths, options)
        except DeepGreys:
            shades = survey(paths, options.cache_dir, options.progress)
    if shades is not None:
        return _split_deep(listing, sources, options, shades, span)

    refuse_idle_range(span, listing.where)
    kept = _readable(listing, decoded.unreadable, options.skip_unreadable)
    return _Split(decoded, kept, _sides(listing, sources, options, kept, decoded.digests))


def _split_deep(
    listing: Listing,
    sources: Sequence[str | None],
    options: LoadOptions,
    shades: Sequence[Shade | str],
    span: tuple[float, float] | None,
) -> _Split:
    """The same of images with deep greys.

    The split can't wait for the pixels: these depend on the range of greys, and that on which
    images are trained on.
    """
    unreadable = {index: shade for index, shade in enumerate(shades) if isinstance(shade, str)}
    kept = _readable(listing, unreadable, options.skip_unreadable)
    digests = [shade.digest if isinstance(shade, Shade) else "" for shade in shades]
    sides = _sides(listing, sources, options, kept, digests)

    labels = [listing.classes.index(record.label) for record in listing.records]
    training = [index for index, side in zip(kept, sides, strict=True) if side == "train"]
    greys = choose_range(shades, labels, training, span, listing.where)
    deep = [shade for shade in shades if isinstance(shade, Shade) and shade.is_deep]
    least = min(shade.least for shade in deep)
    most = max(shade.most for shade in deep)
    decoded = _decode([record.path for record in listing.records], options, greys)
    return _Split(decoded, kept, sides, greys, (least, most))


def _decode(paths: Sequence[Path], options: LoadOptions, greys: Greys | None = None) -> Decoded:
    return decode_all(
        paths,
        options.size,
        greys,
        resize=options.resize,
        folder=options.cache_dir,
        progress=options.progress,
    )


def _sides(
    listing: Listing,
    sources: Sequence[str | None],
    options: LoadOptions,
    kept: Sequence[int],
    digests: Sequence[str],
) -> list[str]:
    groups = group_ids(sources, digests)
    return sides_of(listing, kept, groups, options.shares, options.fold, options.seed)


def _readable(listing: Listing, unreadable: Mapping[int, str], skip: bool) -> list[int]:
    """Indices of the images that can be read. Raises DataError with all the others, unless they
    may be skipped and are not all.
    """
    count = len(listing.records)
    lines = [
        f"{listing.records[index].name} ({reason})" for index, reason in sorted(unreadable.items())
    ]
    if lines and len(lines) == count:
        named = ", ".join(lines[:_NAMED]) + (" ..." if count > _NAMED else "")
        raise DataError(
            f"none of {count} images can be read: {named}",
            where=listing.where,
            remedy="replace them, or name others",
        )
    if lines and not skip:
        remedy = f"replace or remove them, or go on without them: {option('skip_unreadable', True)}"
        raise DataError(
            f"{len(lines)} of {count} images can't be read: {', '.join(lines)}",
            where=listing.where,
            remedy=remedy,
        )
    for line in lines:
        log.warning("skipped an unreadable image: %s", line)
    return [index for index in range(count) if index not in unreadable]


def _warn_of_colours(listing: Listing, decoded: Decoded) -> None:
    """Pillow drops the lower half of deep colours: better said than found out."""
    count = sum(look is not None and look.depth == COLOURS for look in decoded.looks)
    if count:
        text = (
            "%s: %d images have colours of 16 bits, of which only the upper 8 are read; "
            "`prunedge check` says what is left"
        )
        log.warning(text, listing.where, count)


def _fingerprint(listing: Listing, split: _Split, seen: str) -> str:
    """Stands for pixels, labels and splits; not for where the files lie nor when they were
    written. `seen` is the images' `appearance`.
    """
    digest = hashlib.sha256(f"{seen} {listing.classes}".encode())
    for index, side in zip(split.kept, split.sides, strict=True):
        record = listing.records[index]
        line = f"\n{record.name}\t{record.label}\t{side}\t{split.decoded.digests[index]}"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
