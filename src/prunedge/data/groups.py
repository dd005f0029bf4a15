"""Where each image comes from: the photograph or structure that must not lie on two sides of a
split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prunedge.data.records import Listing, Record
from prunedge.data.tiles import tile_of
from prunedge.errors import DataError
from prunedge.utils.advice import option
from prunedge.utils.wording import counted

SIMILAR = "similar"  # images that look alike


def groups_of(listing: Listing, group_by: str | None) -> tuple[str | None, ...]:
    """The source of each record: by `group_by` where it is given, else what the manifest says, else
    None (an image of its own).

    `group_by` is `parent` (the name of the folder that the image lies in), or a regular expression
    that is searched in the relative path; its first group, or the whole match, is the source. By
    `similar`, which needs the decoded images (`similar_sources`), it is what the manifest says.
    Tiles have the source of their photograph: its folder and its path count, never their own.
    Raises DataError when it is no regular expression, when it misses an image, or when `parent` is
    the class folder.
    """
    sources = _sources(listing, group_by)
    _assert_whole(listing, sources)
    return sources


def _sources(listing: Listing, group_by: str | None) -> tuple[str | None, ...]:
    if group_by in (None, SIMILAR):
        return tuple(record.source for record in listing.records)
    listing = replace(listing, records=tuple(map(_photograph, listing.records)))
    if group_by == "parent":
        return _parents(listing)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        remedy = r"give 'parent' or a pattern such as '(IMG_\d+)'"
        raise DataError(
            f"'{group_by}' is no regular expression: {error}",
            where=option("group_by"),
            remedy=remedy,
        ) from None
    sources = tuple(_match(pattern, record) for record in listing.records)
    missed = []
    for record, source in zip(listing.records, sources, strict=True):
        if not source:
            missed.append(record.name)
    if missed:
        images = counted(len(listing.records), "image")
        what = f"'{group_by}' doesn't match {len(missed):,} of {images}, {missed[0]} first"
        raise DataError(
            what,
            where=option("group_by"),
            remedy="it is searched in the path relative to DATA, with slashes",
        )
    return sources


def similar_sources(
    names: Sequence[str], sources: Sequence[str | None], groups: Sequence[int]
) -> tuple[str | None, ...]:
    """The sources, with those of images that look alike made one: `groups` holds a number for each
    image, equal where they do. An image that is like no other and has no source stays without.
    """
    first: dict[tuple[str, object], int] = {}
    pairs = []
    for i, keys in enumerate(zip(sources, groups, strict=True)):
        for kind, key in zip(("source", "group"), keys, strict=True):
            if key is not None:
                pairs.append((first.setdefault((kind, key), i), i))
    found = joined(len(names), pairs)
    sizes = Counter(found)
    merged: list[str | None] = []
    for i, place in enumerate(found):
        is_alone = sizes[place] == 1
        merged.append(sources[i] if is_alone else sources[place] or f"like {names[place]}")
    return tuple(merged)


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The first of each one's part, of so many that `pairs` tie together, directly or by way of
    others.
    """
    first = list(range(count))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return [root(i) for i in range(count)]


def group_ids(sources: Sequence[str | None], digests: Sequence[str]) -> np.ndarray:
    """An integer per image, (n,) int64, equal for images that must stay together.

    Images without a source stay together when they are the same to the pixel. Sources are not
    merged for that: one black patch in every photograph would tie all photographs together.
    """
    numbers: dict[tuple[str, str], int] = {}
    ids = []
    for source, digest in zip(sources, digests, strict=True):
        name = ("pixels", digest) if source is None else ("source", source)
        ids.append(numbers.setdefault(name, len(numbers)))
    return np.array(ids, np.int64)


def _photograph(record: Record) -> Record:
    """The record of the photograph that a tile is cut from; any other record as it is."""
    tile = tile_of(record.path)
    if tile is None:
        return record
    return replace(record, path=tile[0], name=record.name.removesuffix(f"/{record.path.name}"))


def _assert_whole(listing: Listing, sources: Sequence[str | None]) -> None:
    """Whatever groups them, no two tiles of one photograph may come from different sources."""
    known: dict[Path, str | None] = {}
    for record, source in zip(listing.records, sources, strict=True):
        tile = tile_of(record.path)
        if tile is not None:
            assert source is not None, record.name
            assert known.setdefault(tile[0], source) == source, record.name


def _parents(listing: Listing) -> tuple[str, ...]:
    # The same photograph can have patches in each class folder, so its name alone counts, not the
    # path to it.
    parents = tuple(record.path.parent.name for record in listing.records)
    in_class_folders = 0
    for parent, record in zip(parents, listing.records, strict=True):
        in_class_folders += parent == record.label
    if in_class_folders:
        what = (
            f"the parent folder of {in_class_folders} images is their class folder, not a "
            "photograph"
        )
        raise DataError(
            what,
            where=option("group_by", "parent"),
            remedy="give a regular expression on the file name, such as '(IMG_\\d+)'",
        )
    return parents


def _match(pattern: re.Pattern[str], record: Record) -> str:
    match = pattern.search(record.name)
    if match is None:
        return ""
    return (match[1] if pattern.groups else match[0]) or ""
