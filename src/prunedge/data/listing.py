"""What a folder, a manifest or shards hold, before any image is opened: files, labels, sources,
and the user's own splits.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prunedge.data.coco import is_coco, list_coco
from prunedge.data.decode import Progress
from prunedge.data.manifest import EXTRA, is_manifest, labelled_lines
from prunedge.data.paths import is_url, written
from prunedge.data.records import LAYOUT, SPLIT_NAMES, Listing, Record, finish
from prunedge.data.webdataset.shard_records import are_shards, list_shards, shards_in
from prunedge.edge.folders import DEEPEST, walk
from prunedge.edge.image.read import SUFFIXES
from prunedge.errors import DataError, MachineError
from prunedge.utils.advice import command
from prunedge.utils.filetypes import TEXT, kind_of_file, kind_of_folder
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)


def list_data(
    data: Path | str, cache_dir: Path | str | None = None, progress: Progress | None = None
) -> Listing:
    """The images of a CSV manifest, of a folder with a `manifest.csv`, of class folders, of a COCO
    file, or of shards. Raises DataError.

    The index of shards is kept in the cache folder `cache_dir`.
    """
    text = written(data)
    if not str(data):
        raise DataError("no images are named", remedy=LAYOUT)
    if is_url(text):
        return list_shards(text, cache_dir=cache_dir, progress=progress)
    path = Path(text)
    if path.is_dir():
        return list_folder(path, cache_dir, progress)
    if are_shards(text):
        return list_shards(text, cache_dir=cache_dir, progress=progress)
    if not path.exists():
        raise DataError("no such file or folder", where=data, remedy=LAYOUT)
    _refuse_other_files(path)
    return list_coco(path) if is_coco(path) else list_manifest(path)


def _refuse_own_folders(root: Path) -> None:
    """DataError for a folder that prunedge made for something else: the images of an inspection
    are drawn over.
    """
    known = kind_of_folder(root)
    if known is None:
        return
    kind, remedy = known
    if kind == "a run":
        remedy = (
            f"{command('prune', '--from', root, '--out', f'{root}-pruned')} goes on from it, "
            f"{command('show', root)} shows it"
        )
    raise DataError(f"this is {kind}, not a folder of images", where=root, remedy=remedy)


def _refuse_other_files(file: Path) -> None:
    """DataError for a file that is no table of images, before its bytes are taken for lines of
    one.
    """
    try:
        kind = kind_of_file(file)
    except OSError as error:
        pass_on_reading(error, file)
        raise DataError(f"can't be read ({error.strerror})", where=file, remedy=LAYOUT) from None
    if kind is not None and kind != TEXT:
        raise DataError(f"this is {kind}, not a set of images", where=file, remedy=LAYOUT)


def list_folder(
    root: Path, cache_dir: Path | str | None = None, progress: Progress | None = None
) -> Listing:
    """The images of class folders, with or without train/val/test over them; a `manifest.csv`
    inside has the last word.

    A folder without images but with tar files holds shards.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=root, remedy=LAYOUT)
    manifest = root / "manifest.csv"
    if manifest.is_file() and is_manifest(manifest):
        log.info("%s: using manifest.csv", root)
        return list_manifest(manifest)
    shards = shards_in(root)
    if shards:
        if next(find_images(root), None) is None:
            return list_shards(str(root), cache_dir=cache_dir, progress=progress)
        names = ", ".join(Path(shard).name for shard in shards)
        log.warning("%s: left out beside the images: %s", root, names)

    deep: list[str] = []
    folders: dict[str, list[Path]] = {}
    empty = []
    for folder in _subfolders(root):
        images = list(find_images(folder, deep))
        if images:
            folders[folder.name] = images
        else:
            empty.append(folder.name)
    _tell_deep(root, deep)
    if empty:
        log.warning("%s: left out for holding no images: %s", root, ", ".join(empty))
    if not folders or (root / "inspection.json").is_file():
        _refuse_own_folders(root)
    if SPLIT_NAMES.keys() & {"train", "training"} & {name.lower() for name in folders}:
        return finish(root, list(_split_records(root, folders)))
    records = []
    for label, paths in folders.items():
        records += [_record(root, path, label) for path in paths]
    return finish(root, records)


def list_manifest(csv_file: Path, root: Path | None = None) -> Listing:
    """The images of a CSV with a header: path (or file), label, and if wanted source and split
    (train, val, test).

    In place of label there may be a column of 0 and 1 for each class, or columns of numbers. Paths
    are relative to `root`, by default the folder of the CSV. Commas, semicolons and tabs separate.
    Other columns are ignored. Raises DataError that counts the lines with a missing value or an
    unknown split, and names the first.
    """
    if not csv_file.is_file():
        raise DataError("no such manifest", where=csv_file, remedy=LAYOUT)
    base = csv_file.parent if root is None else root
    records = []
    faults = []
    labelled = labelled_lines(csv_file)
    for line, values in labelled.lines:
        if EXTRA in values:
            faults.append(f"line {line}: {values[EXTRA]}")
            continue
        name = values.get("path") or values.get("file")
        label = values.get("label")
        split = values.get("split") or None
        if "\0" in (name or "") + (label or ""):
            faults.append(f"line {line}: a NUL character")
        elif not name or label is None:
            faults.append(f"line {line}: no {'label' if name else 'path'}")
        elif split is not None and split.lower() not in SPLIT_NAMES:
            faults.append(f"line {line}: unknown split '{split}'")
        else:
            side = SPLIT_NAMES[split.lower()] if split else None
            source = values.get("source") or None
            path = _locate(base, name)
            records.append(Record(path, name.replace("\\", "/"), label, source, side))
    if faults:
        raise DataError(
            f"{counted(len(faults), 'line')} can't be used: {first_of(faults, between='; ')}",
            where=csv_file,
            remedy=(
                "give each line a path and a label, and no more cells than the header; splits "
                "are train, val, test"
            ),
        )
    twice = [
        str(path) for path, times in Counter(record.path for record in records).items() if times > 1
    ]
    if twice:
        raise DataError(
            f"{counted(len(twice), 'image is', 'images are')} listed twice: {first_of(twice)}",
            where=csv_file,
            remedy="list each once",
        )
    return finish(base, records, csv_file, held=labelled.held, columns=labelled.columns)


def _split_records(root: Path, folders: dict[str, list[Path]]) -> Iterator[Record]:
    """Records of train/<class>, val/<class>, test/<class>."""
    others = [name for name in folders if name.lower() not in SPLIT_NAMES]
    if others:
        remedy = "keep train, val and test apart from class folders"
        raise DataError(
            f"images in {', '.join(others)} beside a train folder", where=root, remedy=remedy
        )
    for name, paths in folders.items():
        loose = [path for path in paths if path.parent == root / name]
        if loose:
            raise DataError(
                f"{counted(len(loose), 'image lies', 'images lie')} in no class folder",
                where=root / name,
                remedy=LAYOUT,
            )
        for path in paths:
            label = path.relative_to(root / name).parts[0]
            yield _record(root, path, label, SPLIT_NAMES[name.lower()])


def _record(root: Path, path: Path, label: str, split: str | None = None) -> Record:
    return Record(path, path.relative_to(root).as_posix(), label, None, split)


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def find_images(folder: Path, deep: list[str] | None = None) -> Iterator[Path]:
    """Image files, sorted; linked folders are followed, each real folder once.

    Folders too deep to be meant (`prunedge.edge.folders`) are left out and put into `deep`, or told
    where there is no such list. Raises MachineError when a folder can't be read.
    """

    def failed(path: str, error: OSError) -> None:
        pass_on_reading(error, path)
        left_out.append(path)  # a path too long for the system, or one that went meanwhile

    left_out: list[str] = [] if deep is None else deep
    try:
        for level in walk(folder, links=True, failed=failed, too_deep=left_out.append):
            for name in level.files:
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    yield Path(level.path, name)
    except OSError as error:
        raise MachineError(
            f"the folder can't be read ({error.strerror})", where=folder, remedy="mend that"
        ) from None
    if deep is None:
        _tell_deep(folder, left_out)


def _tell_deep(root: Path, left_out: list[str]) -> None:
    if left_out:
        log.warning(
            "%s: folders more than %d levels down are left out: %s ...",
            root,
            DEEPEST,
            left_out[0][:200],
        )


def _locate(base: Path, name: str) -> Path:
    path = base / name
    # Manifests written on Windows name 'patches\\crack\\1.png'.
    return base / name.replace("\\", "/") if "\\" in name and not path.exists() else path
