"""What is wrong with a set of images, found before a model is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from prunedge.config import AnySize, plain_size
from prunedge.data.dataset import Dataset, Sample
from prunedge.data.decode import Progress, at_once, try_image
from prunedge.data.duplicates import Duplicate, find_duplicates
from prunedge.data.gray_range import MixedGreys, levels_in, levels_of
from prunedge.data.label_kinds import REMEDY, doubt
from prunedge.data.load import load
from prunedge.data.paths import written
from prunedge.data.stored import looks_of
from prunedge.edge.image.read import COLOURS, Depth
from prunedge.edge.image.size import Resize, Size
from prunedge.errors import DataError

SHOWN = 64  # training images whose grey levels are counted
COARSE = 64  # grey levels, below which it is worth asking whether the range is right
RARE = 50  # images of a class, below which a split says little about it
SKEWED = 3.0  # images of the largest class for one of the smallest


@dataclass(frozen=True)
class Sizes:
    """Width and height in pixels of the images as they are seen upright: the smallest, middle and
    largest by area.
    """

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    different: int
    enlarged: int  # how many are scaled up to the model's input, on a side at least


@dataclass(frozen=True)
class Levels:
    """The greys of the images: how many have which depth, and what the model sees of them.

    `least` and `most` are the lowest and highest stored value of all deep images, `range` what
    becomes black and white (`LOW:HIGH`); None where all have eight bits. `stored` and `seen` count
    the different values of a training image (the median), in its file and as the model sees it;
    of colours those of the richest.
    """

    depths: dict[str, int]
    least: float | None
    most: float | None
    range: str | None
    stored: int
    seen: int


@dataclass(frozen=True)
class CheckReport:
    """What a folder or manifest holds and what speaks against training on it.

    `counts` is images per split and class; `imbalance` the images of the largest class for one of
    the smallest; `majority` the share of test images in their largest class, the accuracy of a
    model that always answers that. `sources` is how many photographs or structures are known, None
    when none are; `leaks` the sources on two sides. `duplicates` are images of val and test that
    look like one of an earlier split; `conflicts` the same pixels with two labels. `problems` says
    all that matters in sentences.
    """

    data: str
    size: Size
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    imbalance: float
    majority: float
    sizes: Sizes
    modes: dict[str, int]
    formats: dict[str, int]
    levels: Levels
    unreadable: dict[str, str]
    sources: int | None
    leaks: dict[str, tuple[str, ...]]
    duplicates: tuple[Duplicate, ...]
    conflicts: tuple[tuple[str, ...], ...]
    masks: tuple[str, ...]
    fingerprint: str
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        return {**asdict(self), "size": plain_size(self.size)}


def check(
    data: Path | str,
    *,
    size: AnySize = 224,
    resize: Resize = "stretch",
    seed: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    group_by: str | None = None,
    range: str | tuple[float, float] | None = None,
    max_distance: int = 6,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Load the data just as training would, unreadable images left out, and report on it.

    Images of two splits look alike when their perceptual hashes (64 bits, imagehash.phash) differ
    in at most `max_distance` bits and their fine structure agrees as well. Decoded images stay in
    the cache for the training that follows. Raises DataError for what can't be loaded at all: no
    images, one class, an unusable manifest.
    """
    if not 0 <= max_distance <= 64:
        raise DataError(
            f"{max_distance} bits",
            where="--max-distance",
            remedy="give 0 (the same) to 64 (anything)",
        )
    load_with = partial(
        load,
        data,
        size=size,
        resize=resize,
        seed=seed,
        val=val,
        test=test,
        group_by=group_by,
        skip_unreadable=True,
        cache_dir=cache_dir,
        progress=progress,
    )
    mixed = None
    try:
        found = load_with(range=range)
    except MixedGreys as error:  # training refuses it, a check tells it with all the rest
        mixed, found = f"{error.what}: {error.remedy}", load_with(range=error.deep)
    names = {
        sample.path: _name(sample.path, found.root)
        for split in found.splits().values()
        for sample in split.samples
    }
    counts = {
        side: _per_class(split.samples, found.classes) for side, split in found.splits().items()
    }
    totals = [sum(count[name] for count in counts.values()) for name in found.classes]
    looks = [look for split in found.splits().values() for look in looks_of(split)]
    duplicates, same = find_duplicates(found, names, max_distance, progress)
    report = CheckReport(
        data=written(data),
        size=found.size,
        classes=found.classes,
        counts=counts,
        imbalance=max(totals) / max(min(totals), 1),
        majority=max(counts["test"].values()) / len(found.test),
        sizes=_sizes([(look.width, look.height) for look in looks], found.size, resize),
        modes=dict(Counter(look.mode for look in looks)),
        formats=dict(Counter(look.format for look in looks)),
        levels=_levels(found, Counter(look.depth for look in looks)),
        unreadable={
            _name(path, found.root): str(try_image(path, found.size, found.greys, resize))
            for path in found.skipped
        },
        sources=_count_sources(found),
        leaks=_leaks(found),
        duplicates=duplicates,
        conflicts=same,
        masks=_masks(list(names), names),
        fingerprint=found.fingerprint,
        problems=(),
    )
    return CheckReport(
        **{**vars(report), "problems": (*([mixed] if mixed else []), *_problems(report))}
    )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _per_class(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(sample.label for sample in samples)
    return {name: counts[i] for i, name in enumerate(classes)}


def _levels(found: Dataset, depths: Counter[Depth]) -> Levels:
    train = found.train
    least, most = found.extremes or (None, None)
    chosen = np.linspace(0, len(train) - 1, min(SHOWN, len(train))).astype(int).tolist()
    if found.greys is None and not depths[COLOURS]:
        shown = [levels_in(pixels) for pixels in train.pixels(chosen)]  # decoded already
        counts = [(levels, levels) for levels in shown]
    else:
        counts = [
            pair
            for pair in at_once(lambda i: levels_of(train.samples[i].path, found.greys), chosen)
            if pair is not None
        ]
    return Levels(
        depths={str(depth): count for depth, count in depths.items()},
        least=least,
        most=most,
        range=None if found.greys is None else str(found.greys),
        stored=int(median([stored for stored, _ in counts])) if counts else 0,
        seen=int(median([seen for _, seen in counts])) if counts else 0,
    )


def _sizes(shapes: Sequence[tuple[int, int]], size: Size, resize: Resize) -> Sizes:
    by_area = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    middle = (int(median(w for w, _ in shapes)), int(median(h for _, h in shapes)))
    return Sizes(
        by_area[0],
        middle,
        by_area[-1],
        len(set(shapes)),
        sum(_is_enlarged(*shape, size, resize) for shape in shapes),
    )


def _is_enlarged(width: int, height: int, size: Size, resize: Resize) -> bool:
    """Whether a side of an image is scaled up; padding never scales further than the longer one."""
    is_narrow = width < size.width
    is_low = height < size.height
    return (is_narrow and is_low) if resize == "pad" else (is_narrow or is_low)


def _count_sources(found: Dataset) -> int | None:
    known = {
        s.source for split in found.splits().values() for s in split.samples if s.source is not None
    }
    return len(known) or None


def _leaks(found: Dataset) -> dict[str, tuple[str, ...]]:
    """The sources that lie on more than one side, with the sides."""
    sides: dict[str, list[str]] = defaultdict(list)
    for side, split in found.splits().items():
        for source in sorted({s.source for s in split.samples if s.source is not None}):
            sides[source].append(side)
    return {source: tuple(where) for source, where in sides.items() if len(where) > 1}


def _masks(paths: Sequence[Path], names: dict[Path, str]) -> tuple[str, ...]:
    """Images that share folder and name with another but for the suffix: often the masks of the
    others.
    """
    stems = Counter((path.parent, path.stem) for path in paths)
    return tuple(names[path] for path in paths if stems[path.parent, path.stem] > 1)


def _problems(report: CheckReport) -> list[str]:
    """What the user should know, most serious first, each with its remedy."""
    smallest = {c: min(report.counts[side][c] for side in ("val", "test")) for c in report.classes}
    rare = [
        c
        for c in report.classes
        if sum(n[c] for n in report.counts.values()) < RARE or not smallest[c]
    ]
    same = sum(duplicate.identical for duplicate in report.duplicates)
    alike = len(report.duplicates) - same
    totals = {name: sum(count[name] for count in report.counts.values()) for name in report.classes}
    doubtful = doubt(totals)
    checks = (
        (doubtful, f"{doubtful}; {REMEDY}"),
        (
            report.unreadable,
            (
                f"{_many(report.unreadable)} can't be read: replace or remove them, or use "
                "--skip-unreadable"
            ),
        ),
        (
            report.leaks,
            (
                f"{_many(report.leaks, 'source')} on two sides of the given split: results "
                "will look too good; split anew"
            ),
        ),
        (
            same,
            (
                f"{_many(same)} of val and test also in an earlier split, to the pixel: remove "
                "them, or give them a source"
            ),
        ),
        (
            report.conflicts,
            f"{_many(report.conflicts)} found under different labels: decide on one",
        ),
        (
            alike,
            (
                f"{_many(alike)} of val and test look almost like one of an earlier split: if "
                "they show the same thing, use --group-by"
            ),
        ),
        (
            report.masks,
            (
                f"{_many(report.masks)} share their name with another: if half are masks, list "
                "the others in a manifest"
            ),
        ),
        (rare, f"few images of {', '.join(rare)}: their results will be noisy"),
        (
            report.levels.seen < COARSE and report.levels.stored >= 2 * report.levels.seen,
            (
                f"of the {report.levels.stored:,} grey levels of an image "
                f"{report.levels.seen:,} are left: is the range right? (--range)"
            ),
        ),
        (
            report.levels.depths.get(COLOURS),
            f"{_many(report.levels.depths.get(COLOURS, 0))} with colours of 16 bits, of which only "
            "the upper 8 are read "
            f"({report.levels.seen:,} levels in an image): save colours with 8 bits, or single "
            "greys with 16",
        ),
        (
            report.imbalance > SKEWED,
            (
                f"{report.imbalance:.1f} images of the largest class for one of the "
                "smallest: choose by --metric f1 or auroc"
            ),
        ),
    )
    return [text for found, text in checks if found]


def _many(found: int | Sized, noun: str = "image") -> str:
    n = found if isinstance(found, int) else len(found)
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
