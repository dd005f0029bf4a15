"""Shards behind URLs: what fsspec knows of a file, the whole of it, or a part. Every mishap is one
DataError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from prunedge.data.paths import SHARD
from prunedge.errors import DataError, MachineError
from prunedge.utils.machine import pass_on

_BLOCK_BYTES = 8 * 2**20
# What tells two versions of a file apart, by the names that file systems give it.
_VERSION = (
    "size",
    "ETag",
    "etag",
    "md5Hash",
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)


def about(url: str) -> tuple[int | None, str]:
    """Size in bytes, where the store tells it, and a text that changes with the file."""
    system, path = _store(url)
    with _mended(url):
        system.invalidate_cache()
        info = system.info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError
    version = [f"{key}={info[key]}" for key in _VERSION if info.get(key) is not None]
    return info.get("size"), "\t".join(version)


def fetch(url: str, target: Path, size: int | None) -> None:
    """The whole file, read once from beginning to end. Raises DataError when it is not as long as
    it should be.
    """
    system, path = _store(url)
    with _mended(url):
        system.get_file(path, str(target))
    if size is not None and target.stat().st_size != size:
        raise DataError(
            f"{target.stat().st_size:,} of {size:,} bytes arrived",
            where=url,
            remedy="give the same command again",
        )


def read(url: str, start: int, end: int) -> bytes:
    """The bytes from `start` up to `end`. Raises DataError when the store gives others, as web
    servers without ranges do.
    """
    system, path = _store(url)
    with _mended(url):
        data = system.cat_file(path, start=start, end=end)
    if len(data) != end - start:
        raise DataError(
            "the store gives no parts of files",
            where=url,
            remedy="copy the shards to a disk, or to a store that does",
        )
    return data


@contextlib.contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """The file, to be read forwards in large blocks; what goes wrong while it is read is a
    DataError too.
    """
    system, path = _store(url)
    with (
        _mended(url),
        system.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead") as file,
    ):
        yield file


def shards_below(url: str) -> list[str]:
    """The URLs of the shards in a folder and in the folders right below it, sorted."""
    system, path = _store(url)
    with _mended(url):
        system.invalidate_cache()
        names = [name for name in system.find(path, maxdepth=2) if name.endswith(SHARD)]
    # What stands before the store's own path (a scheme, several of them) is the same for all.
    return sorted(url.rstrip("/") + name[len(path.rstrip("/")) :] for name in names)


def beside(url: str) -> str | None:
    """A small text file, or None where there is none."""
    system, path = _store(url)
    try:
        return system.cat_file(path).decode("utf-8-sig")
    except (
        FileNotFoundError,
        PermissionError,
    ):  # S3 refuses to say that a file is missing to those who may not list
        return None
    except Exception as error:
        raise DataError(
            f"can't be read: {error}", where=url, remedy="save it as text in UTF-8"
        ) from None


class StoreError(DataError, MachineError):
    """A store that doesn't answer as it should: no fault of the images in it."""


def _store(url: str) -> tuple[Any, str]:
    import fsspec  # for images on disk nobody should wait for it

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        pass_on(error)
        missing = (
            getattr(error.__cause__, "name", None) or getattr(error, "name", None) or ""
        ).partition(".")[0]
        remedy = f"pip install {missing}" if missing else "install what it names"
        raise DataError(
            f"a package for such URLs is missing: {error}", where=url, remedy=remedy
        ) from None
    except OSError as error:
        remedy = (
            "install what it names (hdfs:// needs Java and Hadoop), or copy the shards to "
            "where they can be read"
        )
        raise StoreError(f"the store can't be opened: {error}", where=url, remedy=remedy) from None
    except ValueError as error:
        remedy = "give a path, or a URL that fsspec knows: s3://, gs://, https://"
        raise DataError(f"no file system for this URL: {error}", where=url, remedy=remedy) from None


@contextlib.contextmanager
def _mended(url: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        # A web server that doesn't answer, for one.
        why = f": {error.__cause__}" if error.__cause__ else ""
        remedy = "check the URL; of a pattern every shard must be there"
        raise DataError(f"no such file or folder{why}", where=url, remedy=remedy) from None
    except Exception as error:  # each store has errors of its own, and they have no common parent
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise StoreError(
            f"can't be read: {text}",
            where=url,
            remedy="check the URL, the network and your right to read it",
        ) from None
