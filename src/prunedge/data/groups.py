"""Where each image comes from: the photograph or structure that must not lie on two sides of a
split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from prunedge.data.records import Listing, Row
from prunedge.errors import DataError
from prunedge.utils.advice import option


def sources(listing: Listing, group_by: str | None) -> tuple[str | None, ...]:
    """The source of each row: by `group_by` where it is given, else what the manifest says, else
    None (an image of its own).

    `group_by` is `parent` (the name of the folder that the image lies in) or a regular expression
    that is searched in the relative path; its first group, or the whole match, is the source.
    Raises DataError when it is no regular expression, when it misses an image, or when `parent` is
    the class folder.
    """
    if group_by is None:
        return tuple(row.source for row in listing.rows)
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
    found = [_match(pattern, row) for row in listing.rows]
    missed = [row.name for row, source in zip(listing.rows, found, strict=True) if not source]
    if missed:
        what = f"'{group_by}' doesn't match {len(missed)} of {len(found)} images, {missed[0]} first"
        raise DataError(
            what,
            where=option("group_by"),
            remedy="it is searched in the path relative to DATA, with slashes",
        )
    return tuple(found)


def group_ids(found: Sequence[str | None], digests: Sequence[str]) -> np.ndarray:
    """An integer per image, (n,) int64, equal for images that must stay together.

    Images without a source stay together when they are the same to the pixel. Sources are not
    merged for that: one black patch in every photograph would tie all photographs together.
    """
    names = [
        ("source", s) if s is not None else ("pixels", d)
        for s, d in zip(found, digests, strict=True)
    ]
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def _parents(listing: Listing) -> tuple[str, ...]:
    parents = tuple(row.path.parent.name for row in listing.rows)
    # The same photograph can have patches in each class folder, so its name alone counts, not the
    # path to it.
    own = Counter(parent == row.label for parent, row in zip(parents, listing.rows, strict=True))
    if own[True]:
        what = f"the parent folder of {own[True]} images is their class folder, not a photograph"
        raise DataError(
            what,
            where=option("group_by", "parent"),
            remedy="give a regular expression on the file name, such as '(IMG_\\d+)'",
        )
    return parents


def _match(pattern: re.Pattern[str], row: Row) -> str:
    found = pattern.search(row.name)
    if found is None:
        return ""
    return (found.group(1) if pattern.groups else found.group(0)) or ""
