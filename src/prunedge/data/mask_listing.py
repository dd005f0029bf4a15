"""Photographs and their masks as listed images: what each shows is read from its mask."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from prunedge.data.annotations.draw import DrawnNotes
from prunedge.data.cache import fingerprint
from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.listing import list_data
from prunedge.data.mask_drawn import drawn_reading, refuse_strangers, tell_drawn, unannotated
from prunedge.data.mask_look import MaskLook, look_at_mask
from prunedge.data.mask_reading import MaskReading, known_reading, reading_of, told
from prunedge.data.mask_sources import MaskedImages, images_with_masks
from prunedge.data.mask_values import photo_size
from prunedge.data.masks import Pair
from prunedge.data.paths import cache_folder
from prunedge.data.records import SPLIT_NAMES, Listing, Masked, Record, finish
from prunedge.data.records_cache import cached, keep_cached
from prunedge.data.tiles import boxes_of, tile_path
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.machine import pass_on_reading, unusable_cache
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)

SAME_NAME = "call each as its photograph (crack1.jpg, crack1.png)"

Place = tuple[Record, Pair]


@dataclass(frozen=True)
class MaskOptions:
    """How masks are listed: those that can't be used are left out (`skips`), or all named in one
    error. `tile` is the side in pixels of the squares that photographs are cut into, which share
    `overlap` of themselves (None: they stay whole). `known` are the classes of a model that is to
    be judged by them, None where masks say themselves which there are. `is_wanted`: where nobody
    says where masks lie, the data themselves have some.
    """

    skips: bool = False
    tile: int | None = None
    overlap: float = 0.0
    known: Sequence[str] | None = None
    cache_dir: Path | str | None = None
    progress: Progress | None = None
    is_wanted: bool = False


def list_images(
    data: Path | str, masks: Path | str | None, options: MaskOptions, root: Path | None = None
) -> Listing:
    """The images of whatever `list_data` reads; where there are masks, photographs with these.
    `root` is what a manifest's paths are relative to.
    """
    images = None
    if masks is not None or options.is_wanted:
        images = images_with_masks(data, masks, root, options.cache_dir, options.progress)
    if images is None:
        return list_data(data, options.cache_dir, options.progress)
    return list_masked(images, options)


def list_masked(images: MaskedImages, options: MaskOptions) -> Listing:
    """Photographs, each with its mask.

    Folders train, val and test at the top of a folder are splits. Tiles come from their
    photograph, so that no split parts them. Raises DataError that names the first
    photographs without a mask, and masks that can't be read, are of another size than their
    photograph or have numbers that no class has.
    """
    refuse_strangers(images, skips=options.skips)
    places = _masked(images, skips=options.skips)
    count = len(places)
    places, faults = _cut(places, options)
    looks, others = look_at_all([pair for _, pair in places], options)
    faults |= others
    if faults:
        _refuse_or_tell(faults, images.where, count, skips=options.skips)

    listed = []
    for (record, pair), look in zip(places, looks, strict=True):
        if look is not None:
            listed.append((record, pair, look))
    seen = [(pair, look) for _, pair, look in listed]
    reading = reading_for(images, seen, options.known)
    _warn_of_turned(seen)
    records = []
    for record, pair, look in listed:
        record = replace(record, label=reading.shown(look))
        if pair.box is not None:
            path = tile_path(pair.photo, pair.box)
            source = record.source or record.name
            record = replace(record, path=path, name=f"{record.name}/{path.name}", source=source)
        records.append(record)
    if images.splits_by_folder:
        records = _split_by_folder(records)
    listing = finish(images.root, records, held=images.held)
    labels = replace(listing.labels, mask_classes=reading.classes)
    return replace(listing, labels=labels, masked=Masked(tuple(pair for pair, _ in seen), reading))


def _split_by_folder(records: Sequence[Record]) -> list[Record]:
    """The records with the splits that the folders at the top say, where all of them are some."""
    names = [record.name.split("/")[0].lower() for record in records]
    if not all(name in SPLIT_NAMES for name in names):
        return list(records)
    return [
        replace(record, split=SPLIT_NAMES[name])
        for record, name in zip(records, names, strict=True)
    ]


def _cut(places: Sequence[Place], options: MaskOptions) -> tuple[list[Place], dict[str, str]]:
    """All tiles, where photographs are cut, and why others can't be, by their names."""
    if options.tile is None:
        return list(places), {}
    tiles = []
    faults = {}
    for record, pair in places:
        try:
            width, height = photo_size(pair.photo)
        except Exception as error:  # a damaged photograph may raise anything
            pass_on_reading(error, pair.photo)
            faults[pair.name] = reason(error, pair.photo)
            continue
        for box in boxes_of(width, height, options.tile, options.overlap):
            tiles.append((record, replace(pair, box=box)))
    return tiles, faults


def _masked(images: MaskedImages, *, skips: bool) -> list[Place]:
    """The images that have a mask. DataError where others have none, unless these are left out."""
    places = list(zip(images.records, images.pairs, strict=True))
    without = [pair.name for _, pair in places if not pair.has_mask]
    has_files = images.annotations is None
    noun = "a mask" if has_files else "an annotation"
    if len(without) == len(places):
        raise DataError(
            f"none of {counted(len(places), 'photograph')} has {noun} here: {first_of(without)}",
            where=images.where,
            remedy=SAME_NAME if has_files else "name each by its photograph's path",
        )
    if without and not skips:
        photographs = counted(len(places), "photograph has", "photographs have")
        remedy = unannotated(images)
        raise DataError(
            f"{len(without):,} of {photographs} no {noun.split()[1]}: {first_of(without)}",
            where=images.where,
            remedy=f"{remedy}; or go on without these: {option('skip_unreadable', True)}",
        )
    for name in without:
        log.warning("skipped a photograph without %s: %s", noun, name)
    return [(record, pair) for record, pair in places if pair.has_mask]


def _refuse_or_tell(faults: Mapping[str, str], masks: Path, count: int, *, skips: bool) -> None:
    lines = [f"{name} ({why})" for name, why in faults.items()]
    if not skips or len(faults) == count:
        remedy = "mend or remove them"
        if len(faults) < count:
            remedy += f", or go on without them: {option('skip_unreadable', True)}"
        raise DataError(
            f"{len(faults):,} of {counted(count, 'mask')} can't be used: {first_of(lines)}",
            where=masks,
            remedy=remedy,
        )
    for line in lines:
        log.warning("skipped a mask that can't be used: %s", line)


def look_at_all(
    pairs: Sequence[Pair], options: MaskOptions
) -> tuple[list[MaskLook | None], dict[str, str]]:
    """What each mask, or tile of one, holds; None where it can't be used, and why, by their names.
    Read once, and kept in the cache folder.
    """
    files: dict[Path, None] = {}
    drawn = hashlib.sha256()
    for pair in pairs:
        files |= dict.fromkeys(path for path in (pair.photo, pair.mask) if path is not None)
        if pair.drawn is not None:
            drawn.update(pair.drawn.digest.encode())
    use = f"looks at masks {options.tile} {options.overlap} {drawn.hexdigest()[:32]}"
    file = cache_folder(options.cache_dir) / f"{fingerprint([*files], use)}.json"
    known = cached(file)
    if known is None:
        known = _looked(pairs, options.progress)
        try:
            with FileLock(file.with_suffix(".lock")):
                keep_cached(file, known)
        except OSError as error:
            raise unusable_cache(error, file.parent) from None
    looks: list[MaskLook | None] = []
    faults = {}
    for pair, record in zip(pairs, known, strict=True):
        if isinstance(record, str):
            faults[pair.name] = record
            looks.append(None)
        else:
            values = tuple(record["values"])
            notes = DrawnNotes(**record["notes"])
            looks.append(MaskLook(**{**record, "values": values, "notes": notes}))
    return looks, faults


def _looked(pairs: Sequence[Pair], progress: Progress | None) -> list[str | dict[str, object]]:
    records: list[str | dict[str, object]] = []
    for look in at_once(_look_or_reason, pairs):
        records.append(look if isinstance(look, str) else asdict(look))
        if progress is not None:
            progress(len(records), len(pairs), "reading masks")
    return records


def _look_or_reason(pair: Pair) -> MaskLook | str:
    """What a mask holds, or in a few words why it can't be used."""
    try:
        photo_size(pair.photo)
    except Exception as error:  # a damaged photograph, of which decoding says what is wrong
        pass_on_reading(error, pair.photo)
        return MaskLook((0,), is_numbered=False, is_lossy=False)
    try:
        return look_at_mask(pair)
    except Exception as error:  # a damaged file can make a decoder raise anything
        pass_on_reading(error, pair.mask or pair.photo)
        return reason(error, pair.mask)


def _warn_of_turned(listed: Sequence[tuple[Pair, MaskLook]]) -> None:
    """Say how many masks may lie otherwise than their photographs."""
    photographs = list(dict.fromkeys(pair.photo for pair, _ in listed))
    turned = list(dict.fromkeys(pair.photo for pair, look in listed if look.may_be_turned))
    if turned:
        log.warning(
            "%s of %s turned or mirrored by their EXIF, and nothing tells whether their masks were "
            "drawn so: they are read as the photographs are seen (%s)",
            f"{len(turned):,}",
            counted(len(photographs), "photograph is", "photographs are"),
            first_of([path.name for path in turned]),
        )


def reading_for(
    images: MaskedImages, listed: Sequence[tuple[Pair, MaskLook]], known: Sequence[str] | None
) -> MaskReading:
    """How the masks are read: by the names beside them or of their annotations, or else those of
    the model's classes.
    """
    if images.annotations is not None and images.classes is not None:
        tell_drawn(images.annotations, images.classes, listed)
        return drawn_reading(images.classes, known)
    looks = _looks_of_files(images.where, listed)
    names = images.classes
    if names is not None or known is None:
        reading = reading_of(looks, names, images.where, is_said=names is not None)
    else:
        reading = known_reading(looks, known, images.where)
    log.info("%s", told(looks, reading))
    return reading


def _looks_of_files(
    where: Path, listed: Sequence[tuple[Pair, MaskLook]]
) -> list[tuple[str, MaskLook]]:
    """What each mask's file holds, by its name. What tiles of one mask hold counts together: some
    show nothing but an edge.
    """
    whole: dict[Path, MaskLook] = {}
    for pair, look in listed:
        assert pair.mask is not None
        before = whole.get(pair.mask)
        whole[pair.mask] = look if before is None else before.joined(look)
    looks = []
    for file, look in whole.items():
        name = file.relative_to(where).as_posix() if file.is_relative_to(where) else file.name
        looks.append((name, look))
    return looks
