"""The images of shards: one tar file, a pattern, or a folder of them, on disk or behind a URL."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from prunedge.data.decode import Progress, at_once
from prunedge.data.paths import SHARD, expand, has_braces, is_url, written
from prunedge.data.records import SPLIT_NAMES, Listing, Record, finish
from prunedge.data.webdataset import remote
from prunedge.data.webdataset.shards import open_shard
from prunedge.data.webdataset.tar_index import Member, packed
from prunedge.edge.tasks import tasks_of_masks
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.files import require_regular
from prunedge.utils.wording import counted, first_of

log = logging.getLogger(__name__)

CLASSES = "classes.txt"
_PACKED = re.compile(r"\.(?:tar\.(gz|bz2|xz|zst|lz4)|t(gz|bz2|xz|zst))$", re.IGNORECASE)
_REMEDY = "name one .tar file, several as train-{000000..000012}.tar, or a folder of them"


def are_shards(data: str) -> bool:
    """Whether DATA, which is no folder, names shards."""
    return (
        is_url(data)
        or data.endswith(SHARD)
        or _PACKED.search(data) is not None
        or _is_pattern(data)
    )


def shards_in(folder: Path) -> list[str]:
    """The tar files of a folder and of its folders train, val and test, packed ones too, sorted."""
    folders = [folder]
    for path in folder.iterdir():
        if path.is_dir() and path.name.lower() in SPLIT_NAMES:
            folders.append(path)
    return sorted(str(path) for each in folders for path in each.iterdir() if _is_shard(path))


def _is_shard(path: Path) -> bool:
    """Whether this is a tar file, packed or not, that nobody hides."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.name.endswith(SHARD) or _PACKED.search(path.name) is not None


def list_shards(
    data: str, *, cache_dir: Path | str | None = None, progress: Progress | None = None
) -> Listing:
    """The images of one shard, of a pattern with braces, or of a folder, by path or URL.

    A label is what `.cls` or `.json` says; an integer counts the lines of a `classes.txt` beside
    the shards, from 0, where there is one. The split is what `.json` says, else the shards' folders
    or the beginning of their names (train, val, test), if all of them do. Raises DataError.
    """
    opened = open_shards(data, cache_dir=cache_dir, progress=progress)
    names = None if opened.lines is None else [line for line in opened.lines if line]
    records: list[Record] = []
    strangers: dict[str, str] = {}
    unlabelled = []
    for image, about, _ in opened.images:
        if about.label is None:
            unlabelled.append(image.name)
            continue
        label = about.label if names is None else _named(about.label, names)
        if label is None:
            strangers.setdefault(about.label, image.name)
        records.append(replace(image, label=label or ""))
    if unlabelled:
        raise DataError(
            f"{counted(len(unlabelled), 'sample has', 'samples have')} a mask and no label: "
            f"{first_of(unlabelled)}",
            where=data,
            remedy=f"learn from the masks: {option('task', tasks_of_masks()[0])}",
        )
    if strangers:
        label, image_name = next(iter(strangers.items()))
        count = counted(len(strangers), "label is", "labels are")
        what = f"{count} not in {CLASSES}: '{label}' of {image_name} first"
        raise DataError(
            what,
            where=data,
            remedy=(
                f"{CLASSES} has one class in each line, class 0 first; add the missing ones, "
                "or remove it"
            ),
        )
    return finish(opened.root, records, where=Path(data), held=".cls or .json")


@dataclass(frozen=True)
class OpenedShards:
    """Shards whose samples are known: the folder that all lie in, each image as a record without
    label, with what is said of it and the path of its mask, and the lines of the `classes.txt`
    beside them, where there is one.
    """

    root: Path
    images: list[tuple[Record, Member, Path | None]]
    lines: list[str] | None


def open_shards(
    data: str, *, cache_dir: Path | str | None = None, progress: Progress | None = None
) -> OpenedShards:
    """The samples of one shard, of a pattern with braces, or of a folder, by path or URL. Raises
    DataError.
    """
    root, paths = _paths(data)
    for path in paths:
        kind = _PACKED.search(path)
        if kind is not None:
            raise packed(path, kind[1] or kind[2])
    missing = [path for path in paths if not is_url(path) and not Path(path).is_file()]
    if missing:
        what = (
            f"{len(missing)} of {counted(len(paths), 'shard')} can't be found, {missing[0]} first"
        )
        raise DataError(
            what, where=data, remedy="check the pattern and the files; every shard must be there"
        )
    shards = []
    for i, shard in enumerate(at_once(lambda path: open_shard(path, cache_dir), paths)):
        shards.append(shard)
        if progress is not None:
            progress(i + 1, len(paths), "reading shards")
    names = [shard.place[len(root) :].lstrip("/") for shard in shards]
    splits = _splits(names, data)
    images = []
    for shard, name, side in zip(shards, names, splits, strict=True):
        folder = Path(shard.place)
        for image, about in shard.images.items():
            split = about.split or side
            record = Record(folder / image, f"{name}/{image}", "", about.source, split)
            mask = None if about.mask is None else folder / about.mask.name
            images.append((record, about, mask))
    return OpenedShards(Path(root), images, _classes(root, paths))


def _paths(data: str) -> tuple[str, list[str]]:
    """The folder that all shards lie in, and the shards."""
    if not is_url(data):
        data = os.path.abspath(data)
    if _is_pattern(data):
        root = Path(data.partition("{")[0] + "_").parent
        paths = expand(data)
    elif data.endswith(SHARD) or _PACKED.search(data):
        root = Path(data).parent
        paths = [data]
    else:
        root = Path(data)
        inside = remote.shards_below(data) if is_url(data) else shards_in(root)
        start = len(data.rstrip("/")) + 1
        paths = [path for path in inside if _is_at_hand(path[start:])]
    if not paths:
        raise DataError("no shards found", where=data, remedy=_REMEDY)
    # Each path of an image goes through `Path`; so does its shard, or they would not be the same
    # text.
    return written(root), [written(Path(path)) for path in paths]


def _is_pattern(data: str) -> bool:
    """Whether the braces in DATA stand for several places; those of a name that is there are a part
    of it.
    """
    return has_braces(data) and (is_url(data) or not Path(data).exists())


def _is_at_hand(name: str) -> bool:
    """Whether a shard of a folder lies in it or in one of the splits' folders."""
    folder, _, _ = name.rpartition("/")
    return not folder or folder.lower() in SPLIT_NAMES


def _splits(names: list[str], data: str) -> list[str | None]:
    """The split of each shard, if all say one: by the folder that it lies in, or by how its name
    begins.
    """
    splits = [_split(name) for name in names]
    if all(splits):
        return splits
    if any(splits):
        log.warning(
            "%s: %s says no split, so those in other shards' names are not used",
            data,
            names[splits.index(None)],
        )
    return [None] * len(names)


def _split(name: str) -> str | None:
    folders, _, file = name.lower().rpartition("/")
    first = re.match(r"[a-z]+(?=[-_.\d])", file)
    words = (*folders.split("/"), first[0] if first else "")
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _classes(root: str, paths: list[str]) -> list[str] | None:
    """The lines of classes.txt in the root, or beside the first shard."""
    for folder in dict.fromkeys((root, paths[0].rpartition("/")[0])):
        path = f"{folder}/{CLASSES}"
        text = remote.beside(path) if is_url(path) else _read(Path(path))
        if text is not None:
            return [line.strip() for line in text.splitlines()]
    return None


def _read(file: Path) -> str | None:
    require_regular(file, DataError)
    try:
        return file.read_text(encoding="utf-8-sig") if file.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"can't be read: {error}", where=file, remedy="save it as text in UTF-8"
        ) from None


def _named(label: str, classes: list[str]) -> str | None:
    """A label, or each of several, as classes.txt names it; None when it doesn't."""
    if label in classes or not label:
        return label
    names = []
    for part in map(str.strip, label.split(SEPARATOR)):
        if part not in classes and not (part.isdecimal() and int(part) < len(classes)):
            return None
        names.append(part if part in classes else classes[int(part)])
    return SEPARATOR.join(names)
