"""`prunedge patches`: labelled patches from photographs and damage masks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prunedge.cli.options import Flag
from prunedge.edge.tasks import tasks_of_masks
from prunedge.utils.advice import command, option
from prunedge.utils.wording import counted, first_of


def patches(
    photos: Path,
    masks: Path,
    *,
    out: Path,
    size: str = "224",
    stride: int | None = None,
    min_damage: float | None = None,
    keep_masks: Flag = False,
    damaged: str = "damaged",
    intact: str = "intact",
    threshold: int | None = None,
    unmasked: Literal["error", "skip", "intact"] = "error",
    intact_per_damaged: float | None = None,
    group_by: str | None = None,
    seed: int = 0,
    json: Flag = False,
) -> None:
    """Cut photographs into patches, labelled by masks of their damage, that never part a photograph
    between splits.

    Example: `prunedge patches photos/ masks/ --out cracks/ --size 224 --min-damage 0.01`

    Parameters
    ----------
    photos
        The folder of photographs.
    masks
        The folder of masks: bright is damage; each of its photograph's name (or name_mask) and
        size. Or annotations: COCO, YOLO, LabelMe, CVAT, Label Studio.
    out
        The folder to make: patches and a manifest that names the photograph of each.
    size
        Pixels of a patch: 224, or 128x384 (height x width).
    stride
        Pixels from one patch to the next; the size, unless given.
    min_damage
        Share of a patch that must be damaged for it to count as damaged; patches with less, but
        some, are left out. 0.01, unless given; with --keep-masks none is left out then.
    keep_masks
        Keep each patch's part of the mask beside it, for --task segmentation.
    damaged
        Label of damaged patches.
    intact
        Label of the others.
    threshold
        Mask values above this (0 to 255) are damage; 127, unless the mask holds class numbers.
    unmasked
        What a photograph without a mask is: an error, skipped, or intact.
    intact_per_damaged
        Keep at most this many intact patches for each damaged one.
    group_by
        A regular expression on a photograph's path: photographs of one group are one source.
    seed
        Decides which intact patches are kept.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, tell
    from prunedge.data import cut_patches

    with progress("cutting", quiet=json) as advance:
        report = cut_patches(
            photos,
            masks,
            out,
            size=size,
            stride=stride,
            min_damage=min_damage,
            keep_masks=keep_masks,
            damaged=damaged,
            intact=intact,
            threshold=threshold,
            unmasked=unmasked,
            intact_per_damaged=intact_per_damaged,
            group_by=group_by,
            seed=seed,
            progress=advance,
        )
    if json:
        print_json(report.to_json())
        return
    made = " and ".join(f"{n:,} {label}" for label, n in report.counts.items())
    tell(
        f"{made} patches of {_by(size)} pixels from {counted(report.photos, 'photograph')}: "
        f"{report.manifest}"
    )
    left_out = {
        "too faintly damaged": report.faint,
        "intact beyond the wanted ratio": report.surplus,
    }
    for why, n in left_out.items():
        if n:
            tell(f"left out: {counted(n, 'patch', 'patches')} {why}")
    for why, names in {
        "smaller than a patch": report.small,
        "without a mask": report.unmasked,
    }.items():
        if names:
            tell(f"left out: {counted(len(names), 'photograph')} {why}: {first_of(names)}")
    words = (option("task"), tasks_of_masks()[0]) if report.has_masks else ()
    tell(f"next: {command('check', out, *words)}")


def _by(size: str) -> str:
    """A size as `128x384`, whatever way it was given."""
    return size if "x" in size.lower() else f"{size}x{size}"
