"""Planned patches as files: cut from their photographs, each in a format that keeps its values."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prunedge.config import plain_size
from prunedge.data.decode import Progress, at_once, reason
from prunedge.data.masks import read_photo
from prunedge.data.patch_grid import Patches
from prunedge.edge.image.read import is_deep
from prunedge.edge.image.size import Size
from prunedge.errors import DataError
from prunedge.utils.files import behind_links, make_folder, written_folder
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import counted, first_of

COLUMNS = ("path", "label", "source", "x", "y", "size", "damage")


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
    progress: Progress | None,
) -> None:
    """Cut into a folder beside `target` that takes its name when all is done."""
    with written_folder(behind_links(target), "set of patches") as temporary:
        refuse_full(target)  # another process may have been faster
        with (temporary / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            unreadable = []
            cut = at_once(lambda patches: _cut(patches, temporary, size, labels), chosen)
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


def _cut(
    patches: Patches, out: Path, size: Size, labels: tuple[str, str]
) -> list[tuple[object, ...]] | str:
    """Write the patches of one photograph; their records of the manifest, or why it can't be
    read.
    """
    if not len(patches):
        return []
    try:
        photo = read_photo(patches.pair.photo)
    except Exception as error:  # a damaged file can make a decoder raise anything
        pass_on_reading(error, patches.pair.photo)
        return f"{patches.pair.name} ({reason(error, patches.pair.photo)})"

    records: list[tuple[object, ...]] = []
    for (x, y), share in zip(patches.corners.tolist(), patches.shares.tolist(), strict=True):
        label = labels[0] if share else labels[1]
        patch, suffix = storable(photo.crop((x, y, x + size.width, y + size.height)))
        name = f"patches/{label}/{patches.pair.name}_{x}_{y}{suffix}"
        make_folder((out / name).parent)
        patch.save(out / name)
        records.append((name, label, patches.source, x, y, plain_size(size), round(share, 5)))
    return records


def storable(patch: Image.Image) -> tuple[Image.Image, str]:
    """A patch in a mode that keeps every value, and the suffix of a format for it."""
    if patch.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(patch).astype(np.uint16)), ".png"
    return patch, ".tif" if is_deep(patch) else ".png"
