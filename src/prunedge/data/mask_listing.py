"""Photographs and their masks as listed images: what each shows is read from its mask."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from prunedge.data.cache import fingerprint
from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.listing import list_data
from prunedge.data.mask_look import MaskLook, look_at_mask
from prunedge.data.mask_reading import (
    MaskReading,
    known_reading,
    names_beside,
    reading_of,
    told,
)
from prunedge.data.mask_values import photo_size
from prunedge.data.masks import Pair, pair_up
from prunedge.data.paths import cache_folder
from prunedge.data.records import SPLIT_NAMES, Listing, Masked, Record, finish
from prunedge.data.records_cache import cached, keep_cached
from prunedge.data.tiles import boxes_of, tile_path
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.files import is_address
from prunedge.utils.machine import pass_on_reading, unusable_cache
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)

UNMASKED = "an image without damage needs a mask, too, all black"


@dataclass(frozen=True)
class MaskOptions:
    """How masks are listed: those that can't be used are left out (`skips`), or all named in one
    error. `tile` is the side in pixels of the squares that photographs are cut into, which share
    `overlap` of themselves (None: they stay whole). `known` are the classes of a model that is to
    be judged by them, None where masks say themselves which there are.
    """

    skips: bool = False
    tile: int | None = None
    overlap: float = 0.0
    known: Sequence[str] | None = None
    cache_dir: Path | str | None = None
    progress: Progress | None = None


def list_images(data: Path | str, masks: Path | str | None, options: MaskOptions) -> Listing:
    """The images of whatever `list_data` reads; where there is a folder of masks, photographs with
    these.
    """
    if masks is None:
        return list_data(data, options.cache_dir, options.progress)
    return list_masked(data, masks, options)


def list_masked(data: Path | str, masks: Path | str, options: MaskOptions) -> Listing:
    """The photographs of a folder, each with its mask in another (`pair_up`).

    Folders train, val and test at the top of it are splits. Tiles come from their photograph, so
    that no split parts them. Raises DataError that names the first
    photographs without a mask, and masks that can't be read, are of another size than their
    photograph or have numbers that no class has.
    """
    if not str(masks):
        raise DataError("no folder", where=option("masks"), remedy="name the one of the masks")
    for place, what in ((data, "photographs"), (masks, "masks")):
        if is_address(place):
            raise DataError(f"{what} behind a URL", where=place, remedy="copy them into a folder")
    photos = Path(data)
    folder = Path(masks)
    pairs = _masked(pair_up(photos, folder), folder, skips=options.skips)
    count = len(pairs)
    pairs, faults = _cut(pairs, options)
    looks, others = _looks(pairs, options)
    faults |= others
    if faults:
        _refuse_or_tell(faults, folder, count, skips=options.skips)

    listed = [(pair, look) for pair, look in zip(pairs, looks, strict=True) if look is not None]
    reading = _reading(folder, listed, options.known)
    _warn_of_turned(listed)
    is_split = all(pair.name.split("/")[0].lower() in SPLIT_NAMES for pair, _ in listed)
    records = []
    for pair, look in listed:
        name = pair.photo.relative_to(photos).as_posix()
        split = SPLIT_NAMES[name.split("/")[0].lower()] if is_split else None
        record = Record(pair.photo, name, reading.shown(look), None, split)
        if pair.box is not None:
            path = tile_path(pair.photo, pair.box)
            record = replace(record, path=path, name=f"{name}/{path.name}", source=name)
        records.append(record)
    listing = finish(photos, records, held=f"masks in {folder}")
    labels = replace(listing.labels, mask_classes=reading.classes)
    masked = Masked(tuple(pair for pair, _ in listed), reading)
    return replace(listing, labels=labels, masked=masked)


def _cut(pairs: Sequence[Pair], options: MaskOptions) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of all tiles, where photographs are cut, and why others can't be, by their
    names.
    """
    if options.tile is None:
        return list(pairs), {}
    tiles = []
    faults = {}
    for pair in pairs:
        try:
            width, height = photo_size(pair.photo)
        except Exception as error:  # a damaged photograph may raise anything
            pass_on_reading(error, pair.photo)
            faults[pair.name] = reason(error, pair.photo)
            continue
        for box in boxes_of(width, height, options.tile, options.overlap):
            tiles.append(replace(pair, box=box))
    return tiles, faults


def _masked(pairs: Sequence[Pair], masks: Path, *, skips: bool) -> list[Pair]:
    """The pairs that have a mask. DataError where others have none, unless these are left out."""
    without = {pair.name: "no mask" for pair in pairs if pair.mask is None}
    if len(without) == len(pairs):
        raise DataError(
            f"none of {counted(len(pairs), 'photograph')} has a mask here: {first_of([*without])}",
            where=masks,
            remedy="call each as its photograph (crack1.jpg, crack1.png)",
        )
    if without and not skips:
        photographs = counted(len(pairs), "photograph has", "photographs have")
        raise DataError(
            f"{len(without):,} of {photographs} no mask: {first_of([*without])}",
            where=masks,
            remedy=f"{UNMASKED}; or go on without these: {option('skip_unreadable', True)}",
        )
    for name in without:
        log.warning("skipped a photograph without a mask: %s", name)
    return [pair for pair in pairs if pair.mask is not None]


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


def _looks(
    pairs: Sequence[Pair], options: MaskOptions
) -> tuple[list[MaskLook | None], dict[str, str]]:
    """What each mask, or tile of one, holds; None where it can't be used, and why, by their names.
    Read once, and kept in the cache folder.
    """
    files: dict[Path, None] = {}
    for pair in pairs:
        files |= dict.fromkeys(path for path in (pair.photo, pair.mask) if path is not None)
    use = f"looks at masks {options.tile} {options.overlap}"
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
            looks.append(MaskLook(**{**record, "values": tuple(record["values"])}))
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


def _reading(
    masks: Path, listed: Sequence[tuple[Pair, MaskLook]], known: Sequence[str] | None
) -> MaskReading:
    """How the masks are read: by the names beside them, or else those of the model's classes. What
    tiles of one mask hold counts together: some show nothing but an edge.
    """
    whole: dict[Path, MaskLook] = {}
    for pair, look in listed:
        assert pair.mask is not None
        before = whole.get(pair.mask)
        whole[pair.mask] = look if before is None else before.joined(look)
    looks = [(file.relative_to(masks).as_posix(), look) for file, look in whole.items()]

    names = names_beside(masks)
    if names is not None or known is None:
        reading = reading_of(looks, names, masks, is_said=names is not None)
    else:
        reading = known_reading(looks, known, masks)
    log.info("%s", told(looks, reading))
    return reading
