"""Labelled patches from photographs and masks of their damage: planned from the masks, then cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Literal

from prunedge.config import AnySize, as_size
from prunedge.data.decode import Progress
from prunedge.data.mask_drawn import refuse_strangers
from prunedge.data.mask_listing import MaskOptions, look_at_all, reading_for
from prunedge.data.mask_sources import MaskedImages, images_of_folder
from prunedge.data.masks import Pair, damage_in
from prunedge.data.patch_files import MANIFEST, KeptMasks, refuse_full, write_patches
from prunedge.data.patch_grid import choose_patches, plan_patches
from prunedge.edge.image.size import LARGEST, SMALLEST, square
from prunedge.errors import DataError
from prunedge.utils.wording import counted, first_of

WHITE = 255  # the brightest pixel of a mask
MIN_DAMAGE = 0.01  # share of a patch, from which on it is labelled as damaged
Unmasked = Literal["error", "skip", "intact"]


@dataclass(frozen=True)
class PatchReport:
    """What was cut: where the manifest lies, photographs used, patches per label, and what was left
    out and why.

    `faint` patches have some damage, but less than asked for; `surplus` ones are intact and more
    than asked for; `small` are the photographs with a side shorter than a patch, `unmasked` those
    without a mask that were skipped. `has_masks`: each patch has its part of the mask.
    """

    manifest: Path
    photos: int
    counts: dict[str, int]
    faint: int
    surplus: int
    small: tuple[str, ...]
    unmasked: tuple[str, ...]
    has_masks: bool = False

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        return {**asdict(self), "manifest": str(self.manifest)}


def cut_patches(
    photos: Path | str,
    masks: Path | str,
    out: Path | str,
    *,
    size: AnySize = 224,
    stride: int | None = None,
    min_damage: float | None = None,
    keep_masks: bool = False,
    damaged: str = "damaged",
    intact: str = "intact",
    threshold: int | None = None,
    unmasked: Unmasked = "error",
    intact_per_damaged: float | None = None,
    group_by: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PatchReport:
    """Cut photographs into squares and label each by its mask; writes `out/patches/<label>/*.png`
    and `out/manifest.csv`.

    Patches keep the greys of their photographs: those of more than eight bits are written with as
    many (integers above sixteen bits and floats as TIFF).

    A mask has its photograph's name (any suffix; also name_mask, name_label, name_gt) and size, in
    the same folder or another; or `masks` are annotations (COCO, YOLO, LabelMe, CVAT, Label
    Studio), whose shapes are damage. Bright pixels are damage: above `threshold` (0 to 255), by
    default above 127, or above 0 where a lossless mask holds class numbers. Patches of `size`
    pixels (`224`, `"128x384"` or `(128, 384)`: height and width) lie `stride` apart (default: side
    by side) and reach every edge. One is `damaged` when at least the share `min_damage` of it is,
    `intact` when none is, and left out in between; it is 0.01 unless given. With `keep_masks` each
    patch has its part of the mask, in `out/masks/<label>/*.png` and in the manifest's column
    `mask`: for the task `segmentation`, to which a patch of little damage is as good as another, so
    none is left out unless `min_damage` is given. `intact_per_damaged` keeps at most that many
    intact patches for each damaged one, drawn by `seed`. Photographs without a mask are an error,
    skipped, or taken for intact (`unmasked`).

    The manifest's `source` is the photograph, or what `group_by` (a regular expression) finds in
    its path, so that no split parts its patches; x, y, size and damage say what each was. `out`
    appears whole or not at all. Raises DataError, which names every photograph that is unreadable
    or doesn't fit its mask at once.
    """
    if seed < 0:
        raise DataError(f"a seed of {seed}", where="--seed", remedy="give 0 or more")
    _check_numbers(
        size,
        1 if stride is None else stride,
        MIN_DAMAGE if min_damage is None else min_damage,
        threshold,
        intact_per_damaged,
        (damaged, intact),
    )
    shape = as_size(size)
    strides = shape if stride is None else square(stride)
    target = Path(out)
    refuse_full(target)

    images = images_of_folder(photos, masks)
    refuse_strangers(images, skips=unmasked == "skip")
    _refuse_idle(threshold, images, keep_masks=keep_masks)
    pairs, without_mask = _masked(images.pairs, unmasked, masks)
    sources = _sources(group_by, pairs)
    kept = _kept(images, pairs, progress) if keep_masks else None
    damage_of = partial(damage_in, threshold=threshold) if kept is None else kept.damage
    planned, small = plan_patches(pairs, sources, shape, strides, damage_of, progress)
    if small and not planned:
        raise DataError(
            f"none of {counted(len(small), 'photograph')} is as large as a patch of "
            f"{shape.height}x{shape.width} pixels (height x width)",
            where=photos,
            remedy="give a smaller --size",
        )
    if min_damage is None:
        min_damage = 0.0 if keep_masks else MIN_DAMAGE
    chosen, faint, surplus = choose_patches(planned, min_damage, intact_per_damaged, seed)

    n_damaged = sum(int((patches.shares > 0).sum()) for patches in chosen)
    counts = {damaged: n_damaged, intact: sum(map(len, chosen)) - n_damaged}
    needed = (damaged,) if keep_masks else (damaged, intact)
    if not all(counts[name] for name in needed):
        missing = " and ".join(f"no {name}" for name in needed if not counts[name])
        too_small = f", of which {len(small):,} are smaller than a patch" if small else ""
        raise DataError(
            f"{missing} patches in {counted(len(pairs), 'photograph')}{too_small}",
            where=photos,
            remedy="see the masks, --size, --min-damage",
        )
    write_patches(target, chosen, shape, (damaged, intact), kept, progress)
    used = sum(len(patches) > 0 for patches in chosen)
    manifest = target / MANIFEST
    return PatchReport(
        manifest, used, counts, faint, surplus, small, without_mask, has_masks=keep_masks
    )


def _refuse_idle(threshold: int | None, images: MaskedImages, *, keep_masks: bool) -> None:
    """DataError for a threshold where no grey is compared with it."""
    if threshold is None or (images.annotations is None and not keep_masks):
        return
    why = "annotations have no greys" if images.annotations is not None else "masks are kept"
    raise DataError(
        f"{why}, which a threshold says nothing of", where="--threshold", remedy="leave it out"
    )


def _kept(images: MaskedImages, pairs: Sequence[Pair], progress: Progress | None) -> KeptMasks:
    """What the masks of all photographs mean together. DataError that names those that can't be
    used.
    """
    masked = [pair for pair in pairs if pair.has_mask]
    looks, faults = look_at_all(masked, MaskOptions(progress=progress))
    if faults:
        lines = [f"{name} ({why})" for name, why in faults.items()]
        raise DataError(
            f"{len(faults)} of {counted(len(pairs), 'photograph')} can't be used: "
            f"{first_of(lines)}",
            where=images.where,
            remedy="each must be readable and have a mask of its size",
        )
    listed = [(pair, look) for pair, look in zip(masked, looks, strict=True) if look is not None]
    reading = reading_for(images, listed, None)
    has_names = images.classes is not None or not reading.are_greys
    return KeptMasks(reading, reading.classes if has_names else None)


def _check_numbers(
    size: AnySize,
    stride: int,
    min_damage: float,
    threshold: int | None,
    ratio: float | None,
    labels: tuple[str, str],
) -> None:
    is_a_folder = re.compile(r"[^/\\.\s\0][^/\\\0]*")
    wrong_names = [
        option
        for option, name in zip(("--damaged", "--intact"), labels, strict=True)
        if not is_a_folder.fullmatch(name) or len(name) > 100
    ]
    rules = (
        (
            not _is_size(size),
            "--size",
            f"patches of {size} pixels: sides of {SMALLEST} to {LARGEST:,}, as 224 or 128x384",
        ),
        (stride < 1, "--stride", f"a stride of {stride} pixels: at least 1"),
        (
            not 0 < min_damage <= 1,
            "--min-damage",
            f"a damaged share of {min_damage}: above 0 and at most 1",
        ),
        (
            threshold is not None and not 0 <= threshold < WHITE,
            "--threshold",
            f"a threshold of {threshold}: 0 to {WHITE - 1}, above which a mask's pixel is damage",
        ),
        (
            ratio is not None and not 0 < ratio < inf,
            "--intact-per-damaged",
            f"{ratio} intact patches for a damaged one: above 0, and finite",
        ),
        (
            labels[0] == labels[1],
            "--damaged, --intact",
            f"both labels are '{labels[0]}': two different names",
        ),
        (
            bool(wrong_names),
            ", ".join(wrong_names),
            "labels become folders: no slashes, no dots before them, 100 letters at most",
        ),
    )
    faults = [(option, text) for is_wrong, option, text in rules if is_wrong]
    if faults:
        where = ", ".join(option for option, _ in faults)
        raise DataError(
            "; ".join(text for _, text in faults), where=where, remedy="mend these values"
        )


def _is_size(size: AnySize) -> bool:
    try:
        as_size(size)
    except DataError:
        return False
    return True


def _masked(
    pairs: Sequence[Pair], unmasked: Unmasked, masks: Path | str
) -> tuple[list[Pair], tuple[str, ...]]:
    """The pairs to cut, and the names of those that were left out for want of a mask."""
    without_mask = [pair.name for pair in pairs if not pair.has_mask]
    if without_mask and unmasked == "error":
        remedy = "add them, or say what they are: --unmasked skip or --unmasked intact"
        names = first_of(without_mask)
        all_of_them = counted(len(pairs), "photograph has", "photographs have")
        what = f"{len(without_mask)} of {all_of_them} no mask: {names}"
        raise DataError(what, where=masks, remedy=remedy)
    if unmasked == "intact":
        return list(pairs), ()
    return [pair for pair in pairs if pair.has_mask], tuple(without_mask)


def _sources(group_by: str | None, pairs: Sequence[Pair]) -> dict[str, str]:
    """The source of each photograph by its name."""
    if group_by is None:
        return {pair.name: pair.name for pair in pairs}
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        remedy = r"give a pattern such as '(bridge\d+)'"
        raise DataError(
            f"'{group_by}' is no regular expression: {error}", where="--group-by", remedy=remedy
        ) from None
    sources = {}
    missed = []
    for pair in pairs:
        match = pattern.search(pair.name)
        if match is None:
            missed.append(pair.name)
        else:
            sources[pair.name] = (match[1] if pattern.groups else match[0]) or pair.name
    if missed:
        what = (
            f"'{group_by}' doesn't match {len(missed)} of {counted(len(pairs), 'photograph')}, "
            f"{missed[0]} first"
        )
        raise DataError(
            what,
            where="--group-by",
            remedy="it is searched in the path from PHOTOS, without suffix",
        )
    return sources
