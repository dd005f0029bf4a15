"""Where images lie: files, URLs, patterns of several shards, and images inside of a shard.

An image inside of a shard has a path as if the shard were a folder,
`shards/train-000.tar/0017.jpg`, also behind a URL. `Path` drops one of the slashes in `s3://`;
`written` puts it back.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from prunedge.errors import DataError

SHARD = ".tar"
MOST_SHARDS = 100_000

_SCHEME = re.compile(r"(^|::)([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_LOCAL = re.compile(r"^(?:file|local):/+")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def cache_folder(folder: Path | str | None = None) -> Path:
    """The folder of what prunedge keeps from one run for the next: `folder`, or $PRUNEDGE_CACHE, or
    ~/.cache/prunedge.
    """
    return Path(folder or os.environ.get("PRUNEDGE_CACHE") or Path.home() / ".cache" / "prunedge")


def is_url(place: object) -> bool:
    """Whether this text names something by URL."""
    return "://" in str(place)


def written(place: Path | str) -> str:
    """A path or URL as it is written: with both slashes of a URL, and a `file://` URL as the path
    that it is.
    """
    text = _SCHEME.sub(r"\1\2://", place.as_posix()) if isinstance(place, Path) else place
    return _LOCAL.sub("/", text)


def absolute(place: Path | str, base: Path | None = None) -> str:
    """The same place from everywhere: URLs and the braces of patterns stay, relative paths are
    joined to `base` (the current folder).
    """
    text = written(place)
    if is_url(text):
        return text
    path = (base or Path()) / text
    # A shard's name says what it is, and links are often called otherwise than what they lead to.
    return (
        os.path.abspath(path)
        if has_braces(text) or text.endswith(SHARD)
        else os.path.realpath(path)
    )


def has_braces(text: str) -> bool:
    """Whether this is a pattern of several places."""
    return "{" in text or "}" in text


def expand(pattern: str) -> list[str]:
    """What a pattern stands for, in order: `{000..012}` is each number, as wide as the wider end;
    `{a,b}` is each word.

    Raises DataError when braces don't match or hold something else, and beyond 100,000 places.
    """
    parts = _BRACES.split(pattern)  # text, braces' inside, text, ...
    remedy = "write numbers as {000..012} and words as {a,b}, without braces in braces"
    if any(has_braces(text) for text in parts[::2]):
        raise DataError("braces that don't match", where=pattern, remedy=remedy)
    choices = []
    total = 1
    for inside in parts[1::2]:
        if ends := _RANGE.fullmatch(inside):
            first, last = int(ends[1]), int(ends[2])
            width = (
                max(map(len, ends.groups()))
                if any(end.startswith("0") for end in ends.groups())
                else 0
            )
            numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
            words: list[str] | map[str] = map(f"{{:0{width}d}}".format if width else str, numbers)
            total *= len(numbers)
        elif "," in inside:
            words = inside.split(",")
            total *= len(words)
        else:
            raise DataError(
                f"'{{{inside}}}' is neither a range nor a choice", where=pattern, remedy=remedy
            )
        if total > MOST_SHARDS:
            raise DataError(
                f"more than {MOST_SHARDS:,} shards",
                where=pattern,
                remedy="put more images into each shard",
            )
        choices.append(words)
    return [
        "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    ]
