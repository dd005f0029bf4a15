"""What is in a shard: its samples by the rules of WebDataset, from the headers of the tar file and
the labels alone.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from prunedge.data.records import SPLIT_NAMES
from prunedge.edge.image.read import SUFFIXES
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.errors import DataError
from prunedge.utils.wording import first_of

_TEXTS = {
    "cls": 1_000,
    "json": 1_000_000,
}  # what says something of an image, with the bytes that it may have
_MASK = "mask."  # before the suffix of a mask
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}


class Place(NamedTuple):
    """A member of a shard: its name, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


class Member(NamedTuple):
    """An image in a shard: where its bytes begin, how many they are, and what the members of the
    same key say of it. Without a label it has a mask.
    """

    offset: int
    size: int
    label: str | None
    source: str | None
    split: str | None
    mask: Place | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Member:
        """One that was kept as JSON."""
        offset, size, label, source, split, mask = values
        place = None if mask is None else Place(*mask)
        return cls(offset, size, label, source, split, place)


def index(file: IO[bytes], where: str) -> dict[str, Member]:
    """The images of a tar file by name, in its order. `file` can seek; `where` is its name for
    errors.

    A sample is all members whose names are alike up to the first dot of their last part; what is
    called `mask.png` there, or `mask` with another suffix of an image, is its mask. Raises
    DataError for a tar file that is packed, damaged or cut short, and with every sample (the first
    five by name) that lacks an image, or both a label and a mask.
    """
    head = file.read(6)
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            raise packed(where, kind)
    images: dict[str, list[Place]] = {}
    masks: dict[str, list[Place]] = {}
    texts: dict[str, dict[str, bytes]] = {}
    faults = []
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps 1 KB of each
                name = PurePosixPath(member.name)
                stem, _, kind = name.name.partition(".")
                kind = kind.lower()
                plain = kind.removeprefix(_MASK)
                if not stem or member.isdir():
                    continue
                if kind not in _TEXTS and f".{plain}" not in SUFFIXES:
                    continue
                key = str(name.with_name(stem))
                if not member.isreg() or member.issparse():
                    faults.append(f"{name} is a link or a file with holes")
                elif kind not in _TEXTS:
                    found = images if plain == kind else masks
                    place = Place(str(name), member.offset_data, member.size)
                    found.setdefault(key, []).append(place)
                elif member.size > _TEXTS[kind]:
                    faults.append(f"{name} has more than {_TEXTS[kind]:,} bytes")
                else:
                    file.seek(member.offset_data)
                    texts.setdefault(key, {})[kind] = file.read(member.size)
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
    except (
        Exception
    ) as error:  # a damaged header can make tarfile raise anything, and so can a store
        if isinstance(error, DataError):
            raise
        raise _broken(str(error) or type(error).__name__, where) from None
    if (
        end.strip(b"\0") or len(end) < tarfile.BLOCKSIZE
    ):  # tarfile takes a damaged header, or none, for the end
        raise _broken(f"it has no end after {tar.offset:,} bytes", where)
    members = {}
    for key in {**images, **masks, **texts}:
        try:
            image = _only(images.get(key, []), "image")
            mask = _only(masks[key], "mask") if key in masks else None
            about = _annotation(texts.get(key, {}), needs_label=mask is None)
            members[image.name] = Member(image.offset, image.size, *about, mask)
        except ValueError as error:
            faults.append(f"{key}: {error}")
    if faults:
        remedy = (
            "each sample needs one image and, of the same name, a .cls or a .json with `label`, or "
            "a .mask.png"
        )
        raise DataError(
            f"samples that can't be used: {first_of(faults, between='; ')}",
            where=where,
            remedy=remedy,
        )
    return members


def packed(where: str, kind: str) -> DataError:
    """The error for a compressed shard, in which no image can be found without unpacking all
    before it.
    """
    return DataError(
        f"the shard is compressed ({kind})",
        where=where,
        remedy="store it as a plain .tar; images are compressed already",
    )


def _broken(why: str, where: str) -> DataError:
    return DataError(
        f"the tar file is damaged or was cut short: {why}",
        where=where,
        remedy="write or copy the shard again",
    )


def _only(places: list[Place], what: str) -> Place:
    if not places:
        raise ValueError(f"no {what}")
    times = Counter(place.name for place in places)
    twice = [name for name, count in times.items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is there twice")
    if len(places) > 1:
        raise ValueError(f"several {what}s ({', '.join(place.name for place in places)})")
    return places[0]


def _annotation(
    texts: dict[str, bytes], *, needs_label: bool
) -> tuple[str | None, str | None, str | None]:
    """Label, source and split; `.cls` has the last word on the label. Raises ValueError."""
    about = {}
    if "json" in texts:
        try:
            about = json.loads(texts["json"])
        except (ValueError, RecursionError) as error:  # a huge number; brackets in brackets
            raise ValueError(f"its .json is damaged ({error})") from None
        if not isinstance(about, dict):
            raise ValueError("its .json is no object")
    label = texts["cls"].decode("utf-8-sig", "replace").strip() if "cls" in texts else _label(about)
    if label is None and needs_label:
        raise ValueError("no label")
    split = _text(about, "split")
    if split and split.lower() not in SPLIT_NAMES:
        raise ValueError(f"unknown split '{split}'")
    return label, _text(about, "source"), SPLIT_NAMES[split.lower()] if split else None


def _label(about: dict[str, object]) -> str | None:
    """The label, or several of a list as one text; None where there is none."""
    key = "class" if about.get("label") in (None, "") else "label"
    value = about.get(key)
    if isinstance(value, list):
        labels = [_named(label, key) or "" for label in value]
        if any(SEPARATOR in label for label in labels):
            raise ValueError(f"a label of `{key}` in its .json holds a {SEPARATOR}")
        return SEPARATOR.join(labels)
    if isinstance(value, dict):
        raise ValueError(
            f"`{key}` in its .json looks like a table ({json.dumps(value)[:40]}), and no label"
        )
    return _named(value, key)


def _named(label: object, key: str) -> str | None:
    """A label as text. What a number is, a class or something to estimate, is the task's to say."""
    return repr(label) if isinstance(label, float) else _text({key: label}, key)


def _text(about: dict[str, object], key: str) -> str | None:
    value = about.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"`{key}` in its .json is neither text nor an integer")
    return str(value)
