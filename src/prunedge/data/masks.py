"""Photographs and the masks of their damage: which belongs to which, and what a mask says."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunedge.data.annotations.draw import DrawnMask
from prunedge.data.decode import MOST_MEGAPIXELS
from prunedge.data.listing import find_images
from prunedge.data.mask_values import MOST_CLASSES, drawn_values, mask_values
from prunedge.edge.image.photograph import Photo, open_photo
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import DataError
from prunedge.utils.files import real_path
from prunedge.utils.wording import first_of

_TAG = re.compile(r"[_\-. ](mask|masks|label|labels|gt|seg|annotation)$", re.IGNORECASE)
LOSSY = {".jpg", ".jpeg", ".webp"}
HALF = 127
NO_PHOTOGRAPHS = "expected .jpg, .png, .tif or .bmp files"  # what to do where there are none


@dataclass(frozen=True)
class Pair:
    """A photograph, its mask if it has one, and a name for both: the path from the folder of
    photographs, without suffix. `box` (left, top, right, bottom) is the part of both that is meant;
    None: all. A mask that annotations hold is `drawn`, and has no file.
    """

    name: str
    photo: Path
    mask: Path | None
    box: tuple[int, int, int, int] | None = None
    drawn: DrawnMask | None = None

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask, in a file or drawn."""
        return self.mask is not None or self.drawn is not None


def pair_up(photos: Path, masks: Path) -> list[Pair]:
    """Every photograph with its mask, sorted by name.

    A mask has its photograph's path within the folder, or else its name alone, and may end in
    _mask, _label, _gt, _seg. When both lie in one folder, that ending tells them apart, or else a
    mask is the lossless one of two files (crack1.jpg, crack1.png). Raises DataError when a folder
    is missing, holds no images, or it can't be told which is which, and when several photographs
    have one mask.
    """
    for folder in (photos, masks):
        if not folder.is_dir():
            raise DataError(
                "no such folder",
                where=folder,
                remedy="give a folder of photographs and one of their masks",
            )
    if real_path(photos) == real_path(masks):
        pairs = _within(photos)
    else:
        # Masks may lie below the photographs: photos/masks.
        images = [path for path in find_images(photos) if not path.is_relative_to(masks)]
        pairs = _across(photos, images, masks)
    if not pairs:
        raise DataError("no photographs", where=photos, remedy=NO_PHOTOGRAPHS)
    return sorted(pairs, key=lambda pair: pair.name)


def damage(mask: Path, photo: Path, threshold: int | None) -> np.ndarray:
    """Where a mask says damage, (height, width) bool, for its photograph as it is seen upright.

    Above `threshold` (of 255, whatever the mask's depth) when it is given; else above 127, or above
    0 in a lossless mask that holds class numbers (a palette, or no value above 32). Raises what
    `mask_values` does.
    """
    held = mask_values(mask, photo)
    if threshold is None:
        is_numbers = held.is_numbered or (
            mask.suffix.lower() not in LOSSY and held.values.max(initial=0) <= MOST_CLASSES
        )
        threshold = 0 if is_numbers else HALF
    return held.values > threshold


def damage_in(pair: Pair, threshold: int | None) -> np.ndarray:
    """The same of a photograph's mask. Of one that is drawn all shapes are damage, but for those of
    the background and what is ignored. Raises what `mask_values` and `drawn_values` do.
    """
    if pair.drawn is None:
        assert pair.mask is not None
        return damage(pair.mask, pair.photo, threshold)
    values = drawn_values(pair.drawn, pair.photo).values
    return (values > 0) & (values != IGNORE)


def read_photo(photo: Path) -> Photo:
    """The photograph upright, greys as its file keeps them; decoded by what an inspection decodes
    with. Raises DataError.
    """
    return open_photo(photo, MOST_MEGAPIXELS, as_stored=True)


def _within(folder: Path) -> list[Pair]:
    """Pairs of photographs and masks that lie side by side."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in find_images(folder):
        groups[_key(path, folder)].append(path)
    pairs, unclear = [], []
    for name, files in groups.items():
        is_mask = [_TAG.search(path.stem) is not None for path in files]
        if not any(is_mask) and len(files) == 2:
            is_mask = [path.suffix.lower() not in LOSSY for path in files]
        photos = [path for path, masked in zip(files, is_mask, strict=True) if not masked]
        masks = [path for path, masked in zip(files, is_mask, strict=True) if masked]
        if len(photos) != 1 or len(masks) > 1:
            unclear.append(" and ".join(path.name for path in files))
        else:
            pairs.append(Pair(name, photos[0], masks[0] if masks else None))
    if unclear:
        remedy = "put photographs and masks in folders of their own"
        raise DataError(
            f"can't tell photographs from masks: {first_of(unclear, between='; ')}",
            where=folder,
            remedy=remedy,
        )
    return pairs


def _across(folder: Path, photos: list[Path], masks: Path) -> list[Pair]:
    """Pairs of photographs and masks in two folders."""
    by_path: dict[str, Path] = {}
    for path in find_images(masks):
        by_path[_key(path, masks)] = path
    stems = Counter(Path(key).name for key in by_path)
    by_stem = {Path(key).name: path for key, path in by_path.items() if stems[Path(key).name] == 1}
    names = names_within(folder, photos)
    pairs = []
    for path in photos:
        key = path.relative_to(folder).with_suffix("").as_posix()
        pairs.append(Pair(names[path], path, by_path.get(key) or by_stem.get(path.stem)))
    _refuse_shared(pairs, folder, masks)
    return pairs


def names_within(folder: Path, photos: Sequence[Path]) -> dict[Path, str]:
    """A name for each photograph of a folder: its path without suffix, as far as that tells
    photographs apart.
    """
    plain = Counter(path.relative_to(folder).with_suffix("").as_posix() for path in photos)
    names = {}
    for path in photos:
        relative = path.relative_to(folder)
        key = relative.with_suffix("").as_posix()
        names[path] = key if plain[key] == 1 else relative.as_posix().replace(".", "_")
    return names


def _refuse_shared(pairs: Sequence[Pair], photos: Path, masks: Path) -> None:
    """DataError where several photographs have one mask: it shows the damage of one at most."""
    photographs: dict[Path, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.mask is not None:
            photographs[pair.mask].append(pair.photo.relative_to(photos).as_posix())
    shared = []
    for mask, names in photographs.items():
        if len(names) > 1:
            name = mask.relative_to(masks).as_posix()
            shared.append(f"{len(names)} photographs share the mask {name}: {first_of(names)}")
    if shared:
        raise DataError(
            first_of(shared, between="; "),
            where=masks,
            remedy="give each its own, at the path that its photograph has in its folder",
        )


def _key(path: Path, folder: Path) -> str:
    relative = path.relative_to(folder).with_suffix("")
    return relative.with_name(_TAG.sub("", relative.name) or relative.name).as_posix()
