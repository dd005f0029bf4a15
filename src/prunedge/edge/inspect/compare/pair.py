"""Two photographs of one place: laid on each other, and their damage compared region by region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from prunedge.edge.inspect.compare.changes import Change, compare_maps
from prunedge.edge.inspect.compare.damage_maps import DamageMap, read_map
from prunedge.edge.inspect.compare.registration import (
    LONGEST,
    Registration,
    moved,
    register,
    same_file,
)
from prunedge.edge.inspect.kept import KeptInspection, Record
from prunedge.edge.inspect.measure import can_measure
from prunedge.edge.inspect.photographs import Photographs, small_copy

SCALES_DIFFER = 0.1  # between what both say and what the registration says
WELL_COVERED = 0.95  # of the old photograph
UNMEASURED = "lengths and widths need scikit-image: pip install 'prunedge[measure]'"


@dataclass(frozen=True)
class Pair:
    """What became of one place. `changes` are in pixels of the old photograph, of which one is
    `mm_per_pixel` where both scales are known and agree; `labels` are their classes. `old_map` and
    `new_map` are as the old photograph has them, `old_copy` and `new_copy` small copies (RGB) of
    the photographs. `size` and `new_size` are their widths and heights.
    """

    old: str
    new: str
    size: tuple[int, int]
    registration: Registration
    changes: tuple[Change, ...]
    labels: tuple[str, ...]
    mm_per_pixel: float | None
    notes: tuple[str, ...]
    old_map: DamageMap
    new_map: DamageMap
    new_size: tuple[int, int]
    old_copy: Image.Image
    new_copy: Image.Image


def compare_pair(old: Photographs, new: Photographs, names: tuple[str, str]) -> Pair:
    """Compare two photographs by their names in either inspection.

    DataError where one is gone, where they can't be laid on each other, or where what was found in
    them is damaged.
    """
    old_record, new_record = old.inspection.images[names[0]], new.inspection.images[names[1]]
    old_photo, new_photo = old.open(names[0]), new.open(names[1])
    old_copy, new_copy = small_copy(old_photo, LONGEST), small_copy(new_photo, LONGEST)
    size, new_size = (old_photo.width, old_photo.height), (new_photo.width, new_photo.height)
    is_same = old_record["sha256"] == new_record["sha256"]
    registration = same_file(size) if is_same else register(old_copy, new_copy, size, new_size)

    zoom = _zoom(registration.matrix, new_size)
    steps = (_step(old.inspection, old_record), _step(new.inspection, new_record) * zoom)
    is_of_lines = old.inspection.is_of_pixels and new.inspection.is_of_pixels
    old_map = read_map(old.inspection, names[0])
    changes, new_map = compare_maps(
        old_map,
        read_map(new.inspection, names[1]),
        registration,
        max(steps),
        is_measured=is_of_lines and can_measure(),
    )
    scale, notes = _scale(old_record, new_record, zoom)
    if is_same:
        notes.append("both inspections looked at the same file")
    if registration.overlap < WELL_COVERED:
        notes.append(f"the new photograph shows {registration.overlap:.0%} of the old one")
    if is_of_lines and not can_measure():
        notes.append(UNMEASURED)
    return Pair(
        old=names[0],
        new=names[1],
        size=size,
        registration=registration,
        changes=tuple(changes),
        labels=tuple(_label(change, old_record, new_record) for change in changes),
        mm_per_pixel=scale,
        notes=tuple(notes),
        old_map=old_map,
        new_map=new_map,
        new_size=new_size,
        old_copy=old_copy,
        new_copy=new_copy,
    )


def _zoom(matrix: np.ndarray, size: tuple[int, int]) -> float:
    """How many pixels of the old photograph one of the new one is, in its middle."""
    x, y = size[0] / 2, size[1] / 2
    corner, right, below = moved(matrix, np.array([(x, y), (x + 1, y), (x, y + 1)]))
    area = float(np.linalg.det(np.stack([right - corner, below - corner])))
    return abs(area) ** 0.5


def _step(inspection: KeptInspection, record: Record) -> float:
    """By how many pixels a photograph's regions may lie elsewhere with nothing having changed: as
    far as one patch lies from the next, since it is patches that are damaged or not.
    """
    if inspection.is_of_pixels:
        return 0.0
    patch = float(max(record["patch"]))
    if record["patches"] == 1:
        return patch
    return patch * (1 - float(inspection.about["settings"]["overlap"]))


def _scale(old: Record, new: Record, zoom: float) -> tuple[float | None, list[str]]:
    """The millimetres of a pixel of the old photograph, where both scales are known and agree with
    the registration; and what is to be said of them.
    """
    before, after = old.get("mm_per_pixel"), new.get("mm_per_pixel")
    if not before or not after:
        return None, []
    by_registration = after / zoom
    if abs(by_registration / before - 1) > SCALES_DIFFER:
        note = (
            f"no millimetres: the old photograph's pixel is {before:.4g} mm by its own scale, and "
            f"{by_registration:.4g} mm by the new one's ({after:.4g} mm) as they lie on each other"
        )
        return None, [note]
    return float(before), []


def _label(change: Change, old: Record, new: Record) -> str:
    """The class of a place: the largest region's, in both inspections where they differ."""
    labels = []
    for numbers, record in ((change.old, old), (change.new, new)):
        regions = [record["regions"][number - 1] for number in numbers]
        if regions:
            labels.append(max(regions, key=lambda region: region["area"])["label"])
    return " -> ".join(dict.fromkeys(labels))
