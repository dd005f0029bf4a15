"""Shards: tar files of images with their labels beside them (WebDataset), read at any place, in
any order, by several threads.

A shard is indexed once, headers and labels alone; the index is kept in the cache. A shard behind a
URL is fetched whole, once, before its images are decoded; the copy is deleted when the decoded
images are in the cache, and a single image is asked for by its bytes. Nothing is unpacked onto
the disk, and nothing unpickled: of a sample only the image, its mask, `.cls` and `.json` are ever
read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from prunedge.data.paths import SHARD, cache_folder, is_url, written
from prunedge.data.records_cache import cached, keep_cached
from prunedge.data.webdataset import remote
from prunedge.data.webdataset.tar_index import Member, index
from prunedge.errors import DataError
from prunedge.utils import files
from prunedge.utils.files import make_folder
from prunedge.utils.machine import unusable_cache

log = logging.getLogger(__name__)

VERSION = 2  # of the index; a change makes old ones useless


@dataclass(frozen=True)
class Shard:
    """An indexed shard: its path or URL, a text that changes with its content, its images by
    name, and where a fetched copy lies. `masks` has where the bytes of each mask begin, and how
    many they are.
    """

    place: str
    stamp: str
    images: dict[str, Member]
    copy: Path
    masks: dict[str, tuple[int, int]]

    def span(self, name: str) -> tuple[int, int] | None:
        """Where the bytes of an image or a mask begin, and how many they are; None where there is
        none of this name.
        """
        image = self.images.get(name)
        return self.masks.get(name) if image is None else (image.offset, image.size)


# The shards of this process by place: paths of images name their shard, but not its index.
_open: dict[str, Shard] = {}


def open_shard(place: str, home: Path | str | None = None) -> Shard:
    """The shard at a path or URL as it is now; its index is made, or found in the cache folder
    `home`. Raises DataError, MachineError.
    """
    size, version = remote.about(place) if is_url(place) else _about(place)
    stamp = f"{os.path.abspath(place) if not is_url(place) else place}\t{version}"
    folder = cache_folder(home) / "shards"
    name = hashlib.sha256(f"{VERSION} {stamp}".encode(errors="surrogateescape")).hexdigest()[:32]
    record = folder / f"{name}.json"
    copy = folder / f"{name}.tar"
    known = _open.get(place)
    if known is not None and (known.stamp, known.copy) == (stamp, copy):
        return known
    try:
        make_folder(folder)
        with FileLock(folder / f"{name}.lock"):
            kept = cached(record)
            if kept is None:
                images = _index(place, copy, size)
                keep_cached(record, images)
            else:
                images = {image: Member.of(values) for image, values in kept.items()}
    except OSError as error:
        raise unusable_cache(error, folder) from None
    masks = {}
    for member in images.values():
        if member.mask is not None:
            masks[member.mask.name] = (member.mask.offset, member.mask.size)
    _open[place] = Shard(place, stamp, images, copy, masks)
    return _open[place]


def read_member(path: Path | str) -> bytes | None:
    """The bytes of an image or a mask in a shard, or None when this is the path of a file of its
    own.

    Raises FileNotFoundError when the shard has no such member, DataError when it has changed or
    can't be read any more.
    """
    member = _find(path)
    if member is None:
        return None
    shard, name = member
    span = shard.span(name)
    if span is None:
        raise FileNotFoundError(written(path))
    offset, size = span
    try:
        with open(shard.copy if is_url(shard.place) else shard.place, "rb") as file:
            if not is_url(shard.place) and not shard.stamp.endswith(
                "\t" + _version(os.fstat(file.fileno()))
            ):
                raise _changed(shard.place)
            file.seek(offset)
            return file.read(size)
    except FileNotFoundError:
        if not is_url(shard.place):
            raise
    return remote.read(shard.place, offset, offset + size) if size else b""


def stamp_of(path: Path) -> str | None:
    """What changes with an image or a mask in a shard, or None when this is the path of a file of
    its own.
    """
    member = _find(path)
    if member is None:
        return None
    shard, name = member
    span = shard.span(name)
    offset = "missing" if span is None else span[0]
    return f"{shard.stamp}\t{name}\t{offset}"


def fetch_all(paths: Iterable[Path]) -> None:
    """Copy the shards of these images that lie behind URLs into the cache, each in one go, as far
    as there is room.
    """
    for shard in _remote(paths):
        with FileLock(shard.copy.with_suffix(".lock")):
            size, version = remote.about(shard.place)
            if not _is_whole(shard.copy, size):
                if not shard.stamp.endswith(f"\t{version}"):
                    raise _changed(shard.place)
                _fetch(shard.place, shard.copy, size)


def drop_copies(paths: Iterable[Path]) -> None:
    """Delete what `fetch_all` fetched for these images."""
    for shard in _remote(paths):
        shard.copy.unlink(missing_ok=True)


def _remote(paths: Iterable[Path]) -> list[Shard]:
    """The shards behind URLs that these paths lead into, each once."""
    shards = {}
    for path in paths:
        member = _find(path)
        if member is not None and is_url(member[0].place):
            shards[member[0].place] = member[0]
    return list(shards.values())


def _find(path: Path | str) -> tuple[Shard, str] | None:
    """The shard that a path leads into, and the rest of the path; None when no part of it is a
    shard.
    """
    text = str(path)
    if f"{SHARD}{os.sep}" not in text and f"{SHARD}/" not in text:
        return None
    text = written(path)
    end = text.find(f"{SHARD}/")
    while end >= 0:
        place, name = text[: end + len(SHARD)], text[end + len(SHARD) + 1 :]
        if place in _open:
            return _open[place], name
        if is_url(place) or Path(place).is_file():  # a folder may be called so, too
            return open_shard(place), name
        end = text.find(f"{SHARD}/", end + 1)
    return None


def _changed(place: str) -> DataError:
    return DataError(
        "the shard has changed since it was listed", where=place, remedy="load the data again"
    )


def _about(place: str) -> tuple[int, str]:
    try:
        status = os.stat(place)
    except OSError as error:
        raise DataError(
            f"can't be read: {error.strerror}",
            where=place,
            remedy="check the path; every shard must be there",
        ) from None
    return status.st_size, _version(status)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}"


def _index(place: str, copy: Path, size: int | None) -> dict[str, Member]:
    """Of a shard behind a URL, the copy's, which stays for the decoding; without room for one it is
    read through for the index alone.
    """
    if not is_url(place):
        with open(place, "rb") as file:
            return index(file, place)
    if _is_whole(copy, size) or _fetch(place, copy, size):
        with copy.open("rb") as file:
            return index(file, place)
    with remote.opened(place) as file:
        return index(file, place)


def _is_whole(copy: Path, size: int | None) -> bool:
    """Whether there is a copy of a shard, as long as the shard."""
    return copy.exists() and size in (None, copy.stat().st_size)


def _fetch(place: str, copy: Path, size: int | None) -> bool:
    """Copy a shard, whole or not at all; False when it would take more than half of what is
    free.
    """
    free = shutil.disk_usage(copy.parent).free
    if (size or 0) > free // 2:
        text = "no room in %s for a copy of %s (%.1f GB): its images are asked for one by one"
        log.warning(text, copy.parent, place, (size or 0) / 2**30)
        return False
    with files.written(copy) as temporary:
        remote.fetch(place, temporary, size)
    return True
