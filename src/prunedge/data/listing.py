"""What a folder or a manifest holds, before any picture is opened: files, labels, sources, and splits where the user made them."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunedge.edge.pictures import SUFFIXES
from prunedge.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_LAYOUT = "expected DATA/<class>/*.jpg, DATA/train/<class>/*.jpg, or a CSV with the columns path,label"


@dataclass(frozen=True)
class Row:
    """One listed picture: its file, its name relative to the root (with slashes), and what the user said of it."""

    path: Path
    name: str
    label: str
    source: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Listing:
    """All pictures of a root, in an order that does not depend on the file system, and the names of their classes, sorted."""

    root: Path
    rows: tuple[Row, ...]
    classes: tuple[str, ...]


def list_data(data: Path) -> Listing:
    """The pictures of a CSV manifest, of a folder with a `manifest.csv`, or of class folders. Raises DataError."""
    if data.is_dir():
        return list_folder(data)
    if not data.exists():
        raise DataError("no such file or folder", where=data, remedy=_LAYOUT)
    return list_manifest(data)


def list_folder(root: Path) -> Listing:
    """The pictures of class folders, with or without train/val/test over them; a `manifest.csv` inside has the last word."""
    if not root.is_dir():
        raise DataError("no such folder", where=root, remedy=_LAYOUT)
    manifest = root / "manifest.csv"
    if manifest.is_file() and _has_columns(manifest):
        log.info("%s: using manifest.csv", root)
        return list_manifest(manifest)
    folders = {folder.name: list(find_pictures(folder)) for folder in _subfolders(root)}
    empty = [name for name, found in folders.items() if not found]
    if empty:
        log.warning("%s: left out for holding no pictures: %s", root, ", ".join(empty))
    folders = {name: found for name, found in folders.items() if found}
    if _SPLIT_NAMES.keys() & {"train", "training"} & {name.lower() for name in folders}:
        return _finish(root, list(_split_rows(root, folders)))
    rows = [_row(root, path, label) for label, found in folders.items() for path in found]
    return _finish(root, rows)


def list_manifest(csv_file: Path, root: Path | None = None) -> Listing:
    """The pictures of a CSV with a header: path (or file), label, and if wanted source and split (train, val, test).

    Paths are relative to `root`, by default the folder of the CSV. Commas, semicolons and tabs separate. Other
    columns are ignored. Raises DataError that names every line with a missing value or an unknown split at once.
    """
    if not csv_file.is_file():
        raise DataError("no such manifest", where=csv_file, remedy=_LAYOUT)
    base = csv_file.parent if root is None else root
    rows, faults = [], []
    for line, record in _records(csv_file):
        name, label = record.get("path") or record.get("file"), record.get("label")
        split = record.get("split") or None
        if not name or not label:
            faults.append(f"line {line}: no {'label' if name else 'path'}")
        elif split is not None and split.lower() not in _SPLIT_NAMES:
            faults.append(f"line {line}: unknown split '{split}'")
        else:
            side = _SPLIT_NAMES[split.lower()] if split else None
            rows.append(Row(_locate(base, name), name.replace("\\", "/"), label, record.get("source") or None, side))
    if faults:
        raise DataError("; ".join(faults), where=csv_file, remedy="give each line a path and a label; splits are train, val, test")
    twice = [str(path) for path, times in Counter(row.path for row in rows).items() if times > 1]
    if twice:
        raise DataError(f"{len(twice)} pictures are listed twice: {', '.join(twice)}", where=csv_file, remedy="list each once")
    return _finish(base, rows, where=csv_file)


def _finish(root: Path, rows: Sequence[Row], where: Path | None = None) -> Listing:
    """Check what every layout must give: two classes, and a split for all pictures or for none."""
    place = where or root
    classes = _sorted_labels({row.label for row in rows})
    if not rows:
        raise DataError("no pictures found", where=place, remedy=_LAYOUT)
    if len(classes) < 2:
        raise DataError(f"only one class, '{classes[0]}'", where=place, remedy=f"at least two are needed; {_LAYOUT}")
    given = {row.split for row in rows}
    if None in given and len(given) > 1:
        bare = [row.name for row in rows if row.split is None]
        raise DataError(
            f"{len(bare)} of {len(rows)} pictures have no split, {bare[0]} first",
            where=place,
            remedy="fill in all or none",
        )
    if None not in given and "train" not in given:
        raise DataError("a split is given, but no picture is for training", where=place, remedy="mark some as train")
    return Listing(root, tuple(rows), classes)


def _split_rows(root: Path, folders: dict[str, list[Path]]) -> Iterator[Row]:
    """Rows of train/<class>, val/<class>, test/<class>."""
    others = [name for name in folders if name.lower() not in _SPLIT_NAMES]
    if others:
        remedy = "keep train, val and test apart from class folders"
        raise DataError(f"pictures in {', '.join(others)} beside a train folder", where=root, remedy=remedy)
    for name, found in folders.items():
        loose = [path for path in found if path.parent == root / name]
        if loose:
            raise DataError(f"{len(loose)} pictures lie in no class folder", where=root / name, remedy=_LAYOUT)
        for path in found:
            yield _row(root, path, path.relative_to(root / name).parts[0], _SPLIT_NAMES[name.lower()])


def _row(root: Path, path: Path, label: str, split: str | None = None) -> Row:
    return Row(path, path.relative_to(root).as_posix(), label, None, split)


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def find_pictures(folder: Path) -> Iterator[Path]:
    """Picture files at any depth, sorted; linked folders are followed, each real folder once."""
    seen = set()
    for parent, below, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(parent, name)


def _locate(base: Path, name: str) -> Path:
    path = base / name
    # Manifests written on Windows name 'patches\\crack\\1.png'.
    return base / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def _has_columns(csv_file: Path) -> bool:
    try:
        next(_records(csv_file), None)
    except DataError:
        return False
    return True


def _records(csv_file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values by lower-case column name. Raises DataError when it is no such CSV."""
    try:
        with csv_file.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            if "label" not in columns or not {"path", "file"} & set(columns):
                remedy = "the first line must name the columns: path,label and, if wanted, source,split"
                raise DataError(f"no columns path and label among '{header.strip()[:80]}'", where=csv_file, remedy=remedy)
            reader = csv.reader(file, delimiter=delimiter)
            for values in reader:
                if any(value.strip() for value in values):
                    yield reader.line_num + 1, dict(zip(columns, map(str.strip, values), strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't read the manifest: {error}", where=csv_file, remedy="save it as CSV in UTF-8") from None


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Sorted as numbers when all are, so that class 10 comes after class 9."""
    return tuple(sorted(labels, key=lambda label: (int(label), label) if label.isdecimal() else (-1, label)))
