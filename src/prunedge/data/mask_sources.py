"""Where photographs and their masks come from: a folder of masks or annotations beside one of
photographs, shards that hold both, or a manifest that names both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunedge.data.annotations.draw import DrawnMask
from prunedge.data.annotations.forms import find_annotations
from prunedge.data.annotations.match import match
from prunedge.data.annotations.shapes import Annotations, Drawing, classes_of, numbers_of
from prunedge.data.decode import Progress
from prunedge.data.listing import find_images
from prunedge.data.manifest import EXTRA, MASK, masked_lines, names_masks
from prunedge.data.mask_reading import names_beside, names_in
from prunedge.data.masks import NO_PHOTOGRAPHS, Pair, names_within, pair_up
from prunedge.data.paths import is_url, written
from prunedge.data.records import SPLIT_NAMES, Record
from prunedge.data.webdataset.shard_records import are_shards, open_shards, shards_in
from prunedge.edge.tasks import refusal_of_masks
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.files import is_address
from prunedge.utils.wording import counted, first_of

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class MaskedImages:
    """Photographs, each with its mask if it has one, before any is opened: records without label,
    and pairs in the same order.

    `where` is the place of the masks, `held` says what holds them. `classes` are named beside
    masks, or by annotations; None where nobody names them. `splits_by_folder`: folders train, val
    and test at the top are splits. `strangers` are annotated images of which no photograph is
    there.
    """

    root: Path
    records: Sequence[Record]
    pairs: Sequence[Pair]
    where: Path
    held: str
    classes: tuple[str, ...] | None
    annotations: Annotations | None = None
    splits_by_folder: bool = False
    strangers: tuple[str, ...] = ()


def refuse_unmasked(task: str, data: Path | str, masks: Path | str | None) -> None:
    """DataError where a task, by its name, can't go with masks, or learns from them and nobody says
    where they are.
    """
    refusal = refusal_of_masks(task, masks)
    if refusal is not None and not (masks is None and holds_masks(data)):
        raise DataError(refusal, where=data)


def holds_masks(data: Path | str) -> bool:
    """Whether masks may lie in the data themselves: shards, and manifests with a column of them."""
    return _holds_shards(data) or _manifest_in(data) is not None


def _holds_shards(data: Path | str) -> bool:
    """Whether these are shards: by their names, or a folder with shards and no images beside
    them.
    """
    text = written(data)
    if is_url(text) or are_shards(text):
        return True
    folder = Path(text)
    return folder.is_dir() and bool(shards_in(folder)) and next(find_images(folder), None) is None


def _manifest_in(data: Path | str) -> Path | None:
    """The manifest with a column of masks that this is, or that lies in this folder."""
    if is_url(written(data)):
        return None
    place = Path(data)
    file = place / MANIFEST if place.is_dir() else place
    return file if file.is_file() and file.suffix == ".csv" and names_masks(file) else None


def images_with_masks(
    data: Path | str,
    masks: Path | str | None,
    root: Path | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> MaskedImages | None:
    """The photographs of a folder with what lies at `masks`; without it those of shards, or of a
    manifest with a column of masks, whose paths are relative to `root` (by default its folder).
    None where there are no masks. Raises DataError.
    """
    if masks is not None:
        return images_of_folder(data, masks)
    manifest = _manifest_in(data)
    if manifest is not None:
        return _of_manifest(manifest, root or manifest.parent)
    if _holds_shards(data):
        return _of_shards(written(data), cache_dir, progress)
    return None


def images_of_folder(data: Path | str, masks: Path | str) -> MaskedImages:
    """The photographs of a folder, with a folder of masks, or annotations. Raises DataError."""
    if not str(masks):
        raise DataError("no folder", where=option("masks"), remedy="name the one of the masks")
    for place, what in ((data, "photographs"), (masks, "masks")):
        if is_address(place):
            raise DataError(f"{what} behind a URL", where=place, remedy="copy them into a folder")
    photos = Path(data)
    where = Path(masks)
    annotations = None
    if photos.is_dir():
        annotations = find_annotations(where, photos)
    if annotations is not None:
        return _annotated(photos, where, annotations)
    pairs = pair_up(photos, where)
    return MaskedImages(
        root=photos,
        records=_records(photos, pairs),
        pairs=pairs,
        where=where,
        held=f"masks in {where}",
        classes=names_beside(where),
        splits_by_folder=True,
    )


def _annotated(photos: Path, where: Path, annotations: Annotations) -> MaskedImages:
    """The photographs of a folder, with the annotations of each."""
    files = list(find_images(photos))
    if not files:
        raise DataError("no photographs", where=photos, remedy=NO_PHOTOGRAPHS)
    matched = match(annotations, files, photos)
    classes = classes_of(annotations)
    numbers = numbers_of(classes)
    names = names_within(photos, files)
    sound = Drawing(None, ())
    pairs = []
    for file in files:
        drawing = matched.drawings.get(file)
        if drawing is None and annotations.takes_rest_for_sound and matched.drawings:
            drawing = sound
        drawn = None if drawing is None else DrawnMask(drawing, numbers)
        pairs.append(Pair(names[file], file, None, drawn=drawn))
    pairs.sort(key=lambda pair: pair.name)
    return MaskedImages(
        root=photos,
        records=_records(photos, pairs),
        pairs=pairs,
        where=where,
        held=f"{annotations.form} annotations in {where}",
        classes=classes,
        annotations=annotations,
        splits_by_folder=True,
        strangers=matched.strangers,
    )


def _records(photos: Path, pairs: Sequence[Pair]) -> list[Record]:
    records = []
    for pair in pairs:
        records.append(Record(pair.photo, pair.photo.relative_to(photos).as_posix(), ""))
    return records


def _of_shards(data: str, cache_dir: Path | str | None, progress: Progress | None) -> MaskedImages:
    """The images of shards with the masks beside them."""
    opened = open_shards(data, cache_dir=cache_dir, progress=progress)
    records = []
    pairs = []
    for record, _, mask in opened.images:
        records.append(record)
        pairs.append(Pair(record.name, record.path, mask))
    names = None if opened.lines is None else names_in(opened.lines, f"{data}: classes.txt")
    return MaskedImages(opened.root, records, pairs, Path(data), "masks in shards", names)


def _of_manifest(file: Path, root: Path) -> MaskedImages:
    """The images of a manifest that names the mask of each."""
    records = []
    pairs = []
    faults = []
    for line, cells in masked_lines(file):
        split = cells.get("split") or None
        if EXTRA in cells:
            faults.append(f"line {line}: {cells[EXTRA]}")
        elif not cells["path"] or "\0" in cells["path"] + cells[MASK]:
            faults.append(f"line {line}: no path")
        elif split is not None and split.lower() not in SPLIT_NAMES:
            faults.append(f"line {line}: unknown split '{split}'")
        else:
            side = SPLIT_NAMES[split.lower()] if split else None
            name = cells["path"].replace("\\", "/")
            record = Record(root / name, name, "", cells.get("source") or None, side)
            mask = root / cells[MASK].replace("\\", "/") if cells[MASK] else None
            records.append(record)
            pairs.append(Pair(name, record.path, mask))
    if faults:
        raise DataError(
            f"{counted(len(faults), 'line')} can't be used: {first_of(faults, between='; ')}",
            where=file,
            remedy="give each line a path and a mask; splits are train, val, test",
        )
    for what, paths in (
        ("image", [pair.photo for pair in pairs]),
        ("mask", [pair.mask for pair in pairs if pair.mask is not None]),
    ):
        twice = [str(path) for path, times in Counter(paths).items() if times > 1]
        if twice:
            raise DataError(
                f"{counted(len(twice), f'{what} is', f'{what}s are')} listed twice: "
                f"{first_of(twice)}",
                where=file,
                remedy="list each once",
            )
    names = names_beside(file.parent)
    return MaskedImages(root, records, pairs, file, f"column {MASK}", names)
