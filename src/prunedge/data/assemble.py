"""From a listing to a Dataset: decode (all that can't be read is known here), group, split."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.config import IMAGE_KEYS, RunConfig, as_size, settings
from prunedge.config.keyword_types import DataKeywords
from prunedge.data.cache import Decoded, decode_all
from prunedge.data.cached_array import read_pixels
from prunedge.data.copies import joined
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.decode import Progress, decode, seen_as
from prunedge.data.gray_range import Shade, choose_range, known_survey, refuse_idle_range, survey
from prunedge.data.groups import SIMILAR, group_ids, groups_of, similar_sources
from prunedge.data.mask_array import Masks, masks_of, shown_targets
from prunedge.data.records import SPLITS, LabelledImages, Listing, refuse_without_training
from prunedge.data.sides import Fold, check_splits, refuse_impossible_shares, sides_of
from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import COLOURS, DeepGreys, Greys, InChannels, parse_range
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.tasks import DEFINITIONS, targets_of, with_task_of_masks
from prunedge.edge.tasks.base import Targets, TaskSpec
from prunedge.edge.tasks.damage import damage_classes
from prunedge.edge.tasks.decision import DamageSpec, damage_named
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.arguments import require
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """How images become a Dataset: the arguments of `prunedge.data.load`.

    `masks` is the folder of the images' masks, `tile` and `overlap` how both are cut. `task` is the
    task's name, `order` names its labels from the lowest up, `damage` those that are damage, with
    commas between them; `costs` is what a miss and a false alarm cost. `shares` are those of val
    and test; `range` is `LOW:HIGH` or two numbers.
    """

    masks: Path | str | None
    tile: int | None
    overlap: float
    task: str
    order: str | None
    damage: str | None
    costs: str | None
    size: Size
    resize: Resize
    in_channels: InChannels
    image_norm: ImageNorm
    seed: int
    shares: tuple[float, float]
    fold: Fold | None
    group_by: str | None
    skip_unreadable: bool
    range: str | tuple[float, float] | None
    cache_dir: Path | str | None
    progress: Progress | None

    @classmethod
    def of(
        cls,
        given: DataKeywords,
        shares: tuple[float, float],
        cache_dir: Path | str | None,
        progress: Progress | None,
    ) -> LoadOptions:
        """The options that keywords ask for; what they don't say is as in a run's config."""
        for name, share in zip(("val", "test"), shares, strict=True):
            require(name, share, (int, float), "a share of the images, from 0 to 1")
        # What says so itself, and takes more than a file can hold, is left out.
        plain = {key: value for key, value in given.items() if key not in ("size", "range")}
        RunConfig.make("images", data="given", model="given", **plain)
        values: dict[str, Any] = {key: settings()[key].default for key in IMAGE_KEYS}
        values.update(with_task_of_masks(given))
        folds = values.pop("folds")
        number = values.pop("fold")
        return cls(
            shares=shares,
            size=as_size(values.pop("size")),
            fold=None if folds is None else Fold(number, folds),
            cache_dir=cache_dir,
            progress=progress,
            **values,
        )


@dataclass(frozen=True)
class _Split:
    """Decoded images, the indices of those that can be read, and the side of each of these.

    `sources` are those of all images. `greys` is the range of deep greys, `extremes` the lowest and
    highest of them; None without any.
    """

    decoded: Decoded
    kept: list[int]
    sides: list[str]
    sources: Sequence[str | None]
    greys: Greys | None = None
    extremes: tuple[float, float] | None = None

    def on(self, side: str) -> tuple[int, ...]:
        """The indices of the images on a side."""
        pairs = zip(self.kept, self.sides, strict=True)
        return tuple(index for index, its_side in pairs if its_side == side)


def assemble(listing: Listing, options: LoadOptions) -> Dataset:
    """The Dataset of listed images.

    Raises DataError for options that can't be met, for labels that are none of the task's, for
    images that can't be read (the first are named at once, unless they may be skipped), and for
    splits that can't be trained on.
    """
    refuse_without_training(listing)
    if DEFINITIONS[options.task].has_several:
        listing = joined(listing)
    labelling = targets_of(options.task, listing.labels, options.order)
    damage = _damage(listing, labelling, options)
    refuse_impossible_shares(options.shares, options.fold, options.seed)
    span = parse_range(options.range) if isinstance(options.range, str) else options.range
    masks = _masks(listing, labelling, options)
    images = LabelledImages(
        listing=listing,
        labelling=labelling,
        targets=_targets(listing, labelling, masks),
        sources=groups_of(listing, options.group_by),
    )
    split = _split(images, options, span)
    _warn_of_colours(listing, split.decoded)
    labelling = _scaled(images, split.on("train"))

    samples = []
    for path, target, source in zip(images.paths, images.targets, split.sources, strict=True):
        samples.append(Sample(path, target, source))
    splits = {}
    judging = None if masks is None else masks.counting_once()
    for side in SPLITS:
        rows = split.on(side)
        splits[side] = Split(
            samples=tuple(samples[row] for row in rows),
            labelling=labelling,
            size=options.size,
            cache=split.decoded.cache,
            rows=rows,
            greys=split.greys,
            resize=options.resize,
            in_channels=options.in_channels,
            image_norm=options.image_norm,
            masks=masks if side == "train" else judging,
            damage=damage,
        )
    check_splits(listing, list(splits.values()))

    unreadable = sorted(split.decoded.unreadable)
    return Dataset(
        root=listing.root,
        labelling=labelling,
        **splits,
        size=options.size,
        resize=options.resize,
        in_channels=options.in_channels,
        image_norm=options.image_norm,
        fingerprint=_fingerprint(
            images,
            split,
            masks,
            seen_as(options.size, options.resize, options.image_norm, options.in_channels),
        ),
        skipped=tuple(listing.records[index].path for index in unreadable),
        greys=split.greys,
        extremes=split.extremes,
    )


def _masks(listing: Listing, labelling: Targets, options: LoadOptions) -> Masks | None:
    """The masks of the images, where they have some."""
    if listing.masked is None:
        return None
    return masks_of(
        listing.masked,
        labelling.classes,
        options.size,
        options.resize,
        folder=options.cache_dir,
        progress=options.progress,
    )


def _targets(listing: Listing, labelling: Targets, masks: Masks | None) -> list[Any]:
    """What is predicted of each image. DataError where masks have lost all damage at their size."""
    if masks is None:
        return [labelling.target(record) for record in listing.records]
    targets = shown_targets(masks, listing.records)
    if not any(targets):
        raise DataError(
            f"none of {counted(len(targets), 'mask')} shows damage at {masks.size} px",
            where=listing.where,
            remedy=f"take larger images ({option('size')}), or tiles ({option('tile')})",
        )
    return targets


def _damage(listing: Listing, labelling: Targets, options: LoadOptions) -> DamageSpec:
    """What the user says of damage. DataError where it names classes that aren't there, or all."""
    said = damage_named(options.damage, options.costs)
    if not said.classes:
        return said
    decoder = DEFINITIONS[labelling.task].decoder
    spec = TaskSpec(name=labelling.task, classes=labelling.classes, size=options.size)
    try:
        may_be_all = decoder(spec).allows_none
        classes = damage_classes(labelling.classes, said.classes, may_be_all=may_be_all)
    except DataError as error:
        raise DataError(error.what, where=listing.labels.where, remedy=error.remedy) from None
    return said.model_copy(update={"classes": classes})


def _scaled(images: LabelledImages, training: Sequence[int]) -> Targets:
    """What the targets are, with the scales of the training images, whose indices these are."""
    labelling = images.labelling
    if not training:
        return labelling  # which is refused with the other splits
    try:
        scales = labelling.scales_of([images.targets[index] for index in training])
    except DataError as error:
        where = images.listing.labels.where
        raise DataError(error.what, where=where, remedy=error.remedy) from None
    return labelling.scaled(scales)


def _split(
    images: LabelledImages, options: LoadOptions, span: tuple[float, float] | None
) -> _Split:
    """Decode all images and share them out, by way of a survey of their greys where they are
    deep.
    """
    listing = images.listing
    paths = images.paths
    shades = known_survey(paths, options.cache_dir)
    if shades is None:
        try:
            decoded = _decode(paths, options)
        except DeepGreys:
            shades = survey(paths, options.cache_dir, options.progress)
    if shades is not None:
        return _split_deep(images, options, shades, span)

    refuse_idle_range(span, listing.where)
    kept = _readable(listing, decoded.unreadable, options.skip_unreadable)
    _tell_skipped(listing, decoded.unreadable)
    images = replace(images, sources=_sources(images, decoded, kept, options))
    sides = _sides(images, options, kept, decoded.digests)
    return _Split(decoded, kept, sides, images.sources)


def _split_deep(
    images: LabelledImages,
    options: LoadOptions,
    shades: Sequence[Shade | str],
    span: tuple[float, float] | None,
) -> _Split:
    """The same of images with deep greys.

    The split can't wait for the pixels: these depend on the range of greys, and that on which
    images are trained on.
    """
    listing = images.listing
    if options.group_by == SIMILAR:
        raise DataError(
            "images are compared as they are decoded, and greys of more than eight bits are only "
            "decoded when it is known which of them train",
            where=option("group_by", SIMILAR),
            remedy="give a pattern on the file names, or save them with eight bits",
        )
    unreadable = {index: shade for index, shade in enumerate(shades) if isinstance(shade, str)}
    kept = _readable(listing, unreadable, options.skip_unreadable)
    digests = [shade.digest if isinstance(shade, Shade) else "" for shade in shades]
    sides = _sides(images, options, kept, digests)

    training = [index for index, side in zip(kept, sides, strict=True) if side == "train"]
    greys = choose_range(images, shades, training, span)
    _tell_skipped(listing, unreadable)
    deep = [shade for shade in shades if isinstance(shade, Shade) and shade.is_deep]
    least = min(shade.least for shade in deep)
    most = max(shade.most for shade in deep)
    decoded = _decode(images.paths, options, greys)
    return _Split(decoded, kept, sides, images.sources, greys, (least, most))


def _sources(
    images: LabelledImages, decoded: Decoded, kept: Sequence[int], options: LoadOptions
) -> tuple[str | None, ...]:
    """Where each image comes from; those that look alike come from one place, where that was asked
    for.
    """
    if options.group_by != SIMILAR:
        return tuple(images.sources)
    # Hashing takes a second to import, and hardly any data needs it.
    from prunedge.data.duplicates import groups_alike, look_at

    def pixels_of(place: int) -> np.ndarray:
        row = kept[place]
        if decoded.cache is not None:
            return read_pixels(decoded.cache, [row])[0]
        path = images.paths[row]
        return decode([path], options.size, None, options.resize, options.in_channels)[0]

    alike = groups_alike(look_at(pixels_of, len(kept), options.progress))
    names = [images.listing.records[row].name for row in kept]
    own = [images.sources[row] for row in kept]
    merged = similar_sources(names, own, alike)
    sources = list(images.sources)
    for row, source in zip(kept, merged, strict=True):
        sources[row] = source
    count = len(names) - len(set(alike))
    log.info(
        "%s: %s like another one, and lie on its side",
        images.listing.where,
        counted(count, "image looks", "images look"),
    )
    return tuple(sources)


def _decode(paths: Sequence[Path], options: LoadOptions, greys: Greys | None = None) -> Decoded:
    return decode_all(
        paths,
        options.size,
        greys,
        resize=options.resize,
        in_channels=options.in_channels,
        folder=options.cache_dir,
        progress=options.progress,
    )


def _sides(
    images: LabelledImages, options: LoadOptions, kept: Sequence[int], digests: Sequence[str]
) -> list[str]:
    groups = group_ids(images.sources, digests)
    return sides_of(images, kept, groups, options.shares, options.fold, options.seed)


def _readable(listing: Listing, unreadable: Mapping[int, str], skip: bool) -> list[int]:
    """Indices of the images that can be read. Raises DataError with the first of the others,
    unless they may be skipped and are not all.
    """
    count = len(listing.records)
    lines = [
        f"{listing.records[index].name} ({reason})" for index, reason in sorted(unreadable.items())
    ]
    if lines and len(lines) == count:
        raise DataError(
            f"none of {counted(count, 'image')} can be read: {first_of(lines)}",
            where=listing.where,
            remedy="replace them, or name others",
        )
    if lines and not skip:
        remedy = f"replace or remove them, or go on without them: {option('skip_unreadable', True)}"
        raise DataError(
            f"{len(lines):,} of {counted(count, 'image')} can't be read: {first_of(lines)}",
            where=listing.where,
            remedy=remedy,
        )
    return [index for index in range(count) if index not in unreadable]


def _tell_skipped(listing: Listing, unreadable: Mapping[int, str]) -> None:
    """Say which images are left out."""
    for index, reason in sorted(unreadable.items()):
        log.warning("skipped an unreadable image: %s (%s)", listing.records[index].name, reason)


def _warn_of_colours(listing: Listing, decoded: Decoded) -> None:
    """Pillow drops the lower half of deep colours: better said than found out."""
    count = sum(look is not None and look.depth == COLOURS for look in decoded.looks)
    if count:
        text = (
            "%s: %s colours of 16 bits, of which only the upper 8 are read; "
            "`prunedge check` says what is left"
        )
        log.warning(text, listing.where, counted(count, "image has", "images have"))


def _fingerprint(images: LabelledImages, split: _Split, masks: Masks | None, seen: str) -> str:
    """Stands for pixels, labels, masks and splits; not for where the files lie nor when they were
    written. `seen` is how a model sees the images (`seen_as`).
    """
    digest = hashlib.sha256(f"{seen} {images.labelling.classes}".encode())
    for index, side in zip(split.kept, split.sides, strict=True):
        record = images.listing.records[index]
        line = f"\n{record.name}\t{record.label}\t{side}\t{split.decoded.digests[index]}"
        if masks is not None:
            line += f"\t{masks.digests[index]}"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
