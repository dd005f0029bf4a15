"""Images that occur twice, to the pixel or nearly, on two sides of a split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from prunedge.data.dataset import Dataset, Split
from prunedge.data.decode import Progress, at_once
from prunedge.data.groups import joined

_SIDE = 32  # pixels of the grey thumbnail that confirms what the hash suspects
# correlation of fine structure; recompressed, resized and brightened copies stay above 0.95
_ALIKE = 0.9
MAX_DISTANCE = 6  # bits of 64 in which the hashes of copies differ
_BLOCK = 64  # images compared at once with a whole split


@dataclass(frozen=True)
class Duplicate:
    """An image that looks like one of an earlier split: both names and splits, the bits in which
    their hashes differ.
    """

    image: str
    split: str
    like: str
    like_split: str
    distance: int
    identical: bool


@dataclass(frozen=True)
class Conflict:
    """Images that are the same to the pixel, with the label of each."""

    images: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Twin:
    """A test image, by its `place` in the split, and the one of another split that it looks like:
    to the pixel where `is_identical`.
    """

    place: int
    image: Path
    like: Path
    split: str
    is_identical: bool


@dataclass(frozen=True)
class Looks:
    """Of each image of a set: perceptual hash (n,) uint64, fine structure (n, 1024) float16 of
    length 1, digest of the pixels.
    """

    hashes: np.ndarray
    structure: np.ndarray
    digests: tuple[bytes, ...]


def find_duplicates(
    data: Dataset, names: dict[Path, str], max_distance: int, progress: Progress | None = None
) -> tuple[tuple[Duplicate, ...], tuple[Conflict, ...]]:
    """For each image of val and test the one of an earlier split that is most like it, if any is
    like it; and the groups of images that are the same to the pixel but have different labels.

    A hash alone takes any two even surfaces for duplicates, so the fine structure (a thumbnail less
    its blurred self) must correlate too.
    """
    looks = {}
    done = 0
    total = sum(map(len, data.splits().values()))
    for side, split in data.splits().items():
        looks[side] = _look(split, done, total, progress)
        done += len(split)
    duplicates: dict[str, Duplicate] = {}
    for early, late in combinations(data.splits(), 2):
        for i, j, distance, identical in _pairs(looks[early], looks[late], max_distance):
            name = names[data.splits()[late].samples[j].path]
            like = names[data.splits()[early].samples[i].path]
            known = duplicates.get(name)
            if known is None or (identical, -distance) > (known.identical, -known.distance):
                duplicates[name] = Duplicate(name, late, like, early, distance, identical)
    ordered = sorted(
        duplicates.values(),
        key=lambda duplicate: (not duplicate.identical, duplicate.distance, duplicate.image),
    )
    return tuple(ordered), _conflicts(data, looks, names)


def twins_in_test(data: Dataset) -> list[Twin]:
    """The test images that look like one that trains or validates, in the split's order: each with
    the one that it is most like, a training image before others.
    """
    looks = {side: _look(split, 0, 0, None) for side, split in data.splits().items()}
    twins: dict[int, Twin] = {}
    for side in ("val", "train"):
        samples = data.splits()[side].samples
        for index, place, _, is_identical in _pairs(looks[side], looks["test"], MAX_DISTANCE):
            image = data.test.samples[place].path
            twins[place] = Twin(place, image, samples[index].path, side, is_identical)
    return [twins[place] for place in sorted(twins)]


def look_alikes(early: Split, late: Split, max_distance: int = MAX_DISTANCE) -> list[int]:
    """The places of the images of `late` that are like one of `early`, to the pixel or nearly."""
    pairs = _pairs(_look(early, 0, 0, None), _look(late, 0, 0, None), max_distance)
    return [place for _, place, _, _ in pairs]


def _look(split: Split, done: int, total: int, progress: Progress | None) -> Looks:
    def told(count: int, _: int, what: str) -> None:
        if progress is not None:
            progress(done + count, total, what)

    return look_at(lambda i: split.pixels([i])[0], len(split), told)


def look_at(
    pixels_of: Callable[[int], np.ndarray], count: int, progress: Progress | None = None
) -> Looks:
    """How so many images look; `pixels_of(i)` gives one, (H, W, 3) uint8."""
    hashes = np.empty(count, np.uint64)
    digests = []
    # The one record that is large: in halves 200 MB for 100,000 images, and as exact as
    # thumbnails of eight bits.
    structure = np.empty((count, _SIDE * _SIDE), np.float16)

    def work(i: int) -> tuple[int, np.ndarray, bytes]:
        pixels = pixels_of(i)
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        number = int(str(imagehash.phash(image)), 16)
        return (
            number,
            _structure(image),
            hashlib.blake2b(pixels.tobytes(), digest_size=12).digest(),
        )

    for i, (number, fine, digest) in enumerate(at_once(work, range(count))):
        hashes[i] = number
        structure[i] = fine
        digests.append(digest)
        if progress is not None:
            progress(i + 1, count, "comparing images")
    return Looks(hashes, structure, tuple(digests))


def _structure(image: Image.Image) -> np.ndarray:
    """(1024,) float32 of mean 0 and length 1 (or 0, for an even surface): a grey thumbnail less its
    blurred self.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32)
    window = np.pad(values, 2, mode="edge")
    blurred = np.lib.stride_tricks.sliding_window_view(window, (5, 5)).mean((2, 3))
    fine = (values - blurred).reshape(-1)
    fine -= fine.mean()
    return fine / max(float(np.linalg.norm(fine)), 1e-3)


def groups_alike(looks: Looks, max_distance: int = MAX_DISTANCE) -> list[int]:
    """The number of the first image of each one's group: images that look alike (`find_duplicates`
    says when) are in one group, and so are all that are alike to one of them.
    """
    alike = _all_alike(looks, max_distance)
    return joined(len(looks.hashes), ((i, j) for i, others in alike for j in others))


def _all_alike(looks: Looks, max_distance: int) -> Iterator[tuple[int, list[int]]]:
    """Each image with the earlier ones that it looks like."""
    by_digest: dict[bytes, int] = {}
    for start in range(0, len(looks.hashes), _BLOCK):
        block = looks.hashes[start : start + _BLOCK]
        distances = np.bitwise_count(looks.hashes[None, : start + len(block)] ^ block[:, None])
        for k, row in enumerate(distances):
            j = start + k
            near = np.flatnonzero(row[:j] <= max_distance)
            fine = looks.structure[j].astype(np.float32)
            alike = near[looks.structure[near].astype(np.float32) @ fine >= _ALIKE].tolist()
            same = by_digest.setdefault(looks.digests[j], j)
            if same != j:
                alike.append(same)
            if alike:
                yield j, alike


def _pairs(early: Looks, late: Looks, max_distance: int) -> list[tuple[int, int, int, bool]]:
    """(index in early, index in late, bits, identical) of the best match of each image of `late`
    that has one.
    """
    first = {digest: i for i, digest in reversed(list(enumerate(early.digests)))}
    pairs = []
    for start in range(0, len(late.hashes), _BLOCK):
        block = late.hashes[start : start + _BLOCK]
        distances = np.bitwise_count(early.hashes[None, :] ^ block[:, None])  # (block, early)
        for k, row in enumerate(distances):
            j = start + k
            if late.digests[j] in first:
                pairs.append((first[late.digests[j]], j, 0, True))
                continue
            near = np.flatnonzero(row <= max_distance)
            near = near[
                early.structure[near].astype(np.float32) @ late.structure[j].astype(np.float32)
                >= _ALIKE
            ]
            if len(near):
                best = near[np.argmin(row[near])]
                pairs.append((int(best), j, int(row[best]), False))
    return pairs


def _conflicts(
    data: Dataset, looks: dict[str, Looks], names: dict[Path, str]
) -> tuple[Conflict, ...]:
    same: dict[bytes, list[tuple[str, Any]]] = defaultdict(list)
    for side, split in data.splits().items():
        for sample, digest in zip(split.samples, looks[side].digests, strict=True):
            same[digest].append((names[sample.path], sample.target))
    conflicts = []
    for group in same.values():
        if len({target for _, target in group}) > 1:
            labels = [_label_of(data, target) for _, target in group]
            conflicts.append(Conflict(tuple(name for name, _ in group), tuple(labels)))
    return tuple(conflicts)


def _label_of(data: Dataset, target: Any) -> str:
    """A target in words: the strata that it counts in."""
    is_in = data.labelling.strata([target])[0] > 0
    names = [name for name, has in zip(data.labelling.strata_names, is_in, strict=True) if has]
    return " and ".join(names) or "none"
