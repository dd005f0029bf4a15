"""Planned patches as files: cut from their photographs, each in a format that keeps its values."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from prunedge.config import plain_size
from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.manifest import MASK
from prunedge.data.mask_look import values_of
from prunedge.data.mask_reading import NAMES, MaskReading
from prunedge.data.mask_values import WHITE, photo_size
from prunedge.data.masks import Pair, read_photo
from prunedge.data.patch_grid import Patches
from prunedge.edge.image.read import is_deep
from prunedge.edge.image.size import Size
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import DataError
from prunedge.utils.files import behind_links, make_folder, write_text, written_folder
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import counted, first_of

COLUMNS = ("path", "label", "source", "x", "y", "size", "damage")
PATCHES = "patches"
MASKS = "masks"
MANIFEST = "manifest.csv"
# What palettes of class numbers show: black, then colours that are told apart, then greys.
_COLOURS = (0, 0, 0, 230, 60, 40, 60, 130, 230, 250, 190, 40, 70, 180, 90, 170, 90, 200)


@dataclass(frozen=True)
class KeptMasks:
    """How the masks of patches are written: what their values mean, and the names of the classes
    beside them, None where black and white say it all.
    """

    reading: MaskReading
    names: tuple[str, ...] | None

    def numbers(self, pair: Pair) -> np.ndarray:
        """The class of each pixel of a photograph, (height, width) uint8; all of the first where it
        has no mask. Raises what `values_of` does.
        """
        if not pair.has_mask:
            width, height = photo_size(pair.photo)
            return np.zeros((height, width), np.uint8)
        table = self.reading.table(self.reading.classes)
        return table[values_of(pair).values]

    def damage(self, pair: Pair) -> np.ndarray:
        """Where a mask shows another class than the first, (height, width) bool."""
        numbers = self.numbers(pair)
        return (numbers > 0) & (numbers != IGNORE)

    def image(self, numbers: np.ndarray) -> Image.Image:
        """A part of these as a mask's file: white damage, or numbers with a palette."""
        if self.reading.are_greys:
            return Image.fromarray((numbers == 1) * np.uint8(WHITE))
        image = Image.fromarray(numbers)
        image.putpalette([*_COLOURS, *(value // 3 for value in range(len(_COLOURS), 3 * 256))])
        return image


def refuse_full(target: Path) -> None:
    """DataError where a folder holds something already."""
    target = behind_links(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(
            "there is something already",
            where=target,
            remedy="give a folder that is empty or not there yet",
        )


def write_patches(
    target: Path,
    chosen: Sequence[Patches],
    size: Size,
    labels: tuple[str, str],
    kept: KeptMasks | None,
    progress: Progress | None,
) -> None:
    """Cut into a folder beside `target` that takes its name when all is done; the masks as well,
    where they are `kept`.
    """
    columns = COLUMNS if kept is None else (*COLUMNS, MASK)
    with written_folder(behind_links(target), "set of patches") as temporary:
        refuse_full(target)  # another process may have been faster
        with (temporary / MANIFEST).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            unreadable = []
            cut = at_once(lambda patches: _cut(patches, temporary, size, labels, kept), chosen)
            for index, records in enumerate(cut):
                if isinstance(records, str):
                    unreadable.append(records)
                else:
                    writer.writerows(records)
                if progress is not None:
                    progress(index + 1, len(chosen), "cutting patches")
        if unreadable:
            raise DataError(
                f"{counted(len(unreadable), 'photograph')} can't be read: {first_of(unreadable)}",
                remedy="replace or remove them",
            )
        if kept is not None and kept.names is not None:
            # Beside the manifest, and where `--masks` looks.
            for folder in (temporary, temporary / MASKS):
                write_text(folder / NAMES, "\n".join((*kept.names, "")))


def _cut(
    patches: Patches, out: Path, size: Size, labels: tuple[str, str], kept: KeptMasks | None
) -> list[tuple[object, ...]] | str:
    """Write the patches of one photograph; their records of the manifest, or why it can't be
    read.
    """
    if not len(patches):
        return []
    try:
        photo = read_photo(patches.pair.photo)
        numbers = None if kept is None else kept.numbers(patches.pair)
    except Exception as error:  # a damaged file can make a decoder raise anything
        pass_on_reading(error, patches.pair.photo)
        return f"{patches.pair.name} ({reason(error, patches.pair.photo)})"

    records: list[tuple[object, ...]] = []
    for (x, y), share in zip(patches.corners.tolist(), patches.shares.tolist(), strict=True):
        label = labels[0] if share else labels[1]
        patch, suffix = storable(photo.crop((x, y, x + size.width, y + size.height)))
        place = f"{label}/{patches.pair.name}_{x}_{y}"
        name = f"{PATCHES}/{place}{suffix}"
        make_folder((out / name).parent)
        patch.save(out / name)
        about = (name, label, patches.source, x, y, plain_size(size), round(share, 5))
        if kept is None or numbers is None:
            records.append(about)
            continue
        mask = f"{MASKS}/{place}.png"
        make_folder((out / mask).parent)
        part = numbers[y : y + size.height, x : x + size.width]
        kept.image(np.ascontiguousarray(part)).save(out / mask)
        records.append((*about, mask))
    return records


def storable(patch: Image.Image) -> tuple[Image.Image, str]:
    """A patch in a mode that keeps every value, and the suffix of a format for it."""
    if patch.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(patch).astype(np.uint16)), ".png"
    return patch, ".tif" if is_deep(patch) else ".png"
