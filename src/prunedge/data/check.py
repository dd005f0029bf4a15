"""What is wrong with a set of images, found before a model is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Unpack

import numpy as np

from prunedge.config import IMAGE_KEYS
from prunedge.config.keyword_types import DataKeywords
from prunedge.config.keywords import with_keywords
from prunedge.data.all_grey import is_all_grey
from prunedge.data.check_report import (
    TINY,
    Balancing,
    CheckReport,
    Levels,
    Sizes,
    problems_of,
    totals_of,
)
from prunedge.data.dataset import Dataset, Sample, Split
from prunedge.data.decode import Progress, at_once, try_image
from prunedge.data.duplicates import MAX_DISTANCE, find_duplicates
from prunedge.data.gray_range import MixedGreys, levels_of
from prunedge.data.load import TEST, VAL, load
from prunedge.data.paths import written
from prunedge.data.stored import looks_of
from prunedge.edge.image.read import COLOURS, Depth
from prunedge.edge.image.size import Resize, Size
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.damage import damage_among
from prunedge.errors import DataError

SHOWN = 64  # training images whose grey levels are counted


@with_keywords(IMAGE_KEYS)
def check(
    data: Path | str,
    *,
    max_distance: int = MAX_DISTANCE,
    val: float = VAL,
    test: float = TEST,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[DataKeywords],
) -> CheckReport:
    """Load the data just as training would, unreadable images left out, and report on it.

    The other arguments are those of `load`. Images of two splits look alike when their perceptual
    hashes (64 bits, imagehash.phash) differ in at most `max_distance` bits and their fine structure
    agrees as well. Decoded images stay in the cache for the training that follows. Raises DataError
    for what can't be loaded at all: no images, one class, an unusable manifest.
    """
    if not 0 <= max_distance <= 64:
        raise DataError(
            f"{max_distance} bits",
            where="--max-distance",
            remedy="give 0 (the same) to 64 (anything)",
        )
    settings["skip_unreadable"] = True
    load_with = partial(load, data, val=val, test=test, cache_dir=cache_dir, progress=progress)
    mixed = None
    try:
        dataset = load_with(**settings)
    except MixedGreys as error:  # training refuses it, a check tells it with all the rest
        mixed = f"{error.what}: {error.remedy}"
        settings["range"] = error.deep
        dataset = load_with(**settings)

    report = _report(data, dataset, max_distance, progress)
    doubt = dataset.labelling.doubt(totals_of(report))
    problems = problems_of(report, doubt, _balancing(dataset))
    return replace(report, problems=problems if mixed is None else (mixed, *problems))


def _report(
    data: Path | str, dataset: Dataset, max_distance: int, progress: Progress | None
) -> CheckReport:
    """The report, without its problems."""
    names: dict[Path, str] = {}
    looks = []
    counts = {}
    without = {}
    several = {}
    for side, split in dataset.splits().items():
        names |= {sample.path: _name(sample.path, dataset.root) for sample in split.samples}
        looks += looks_of(split)
        counts[side] = split.counts()
        without[side], several[side] = split.in_none_and_several()
    strata = dataset.labelling.strata_names
    totals = [sum(count[name] for count in counts.values()) for name in strata]
    duplicates, conflicts = find_duplicates(dataset, names, max_distance, progress)
    return CheckReport(
        data=written(data),
        size=dataset.size,
        classes=strata,
        counts=counts,
        images={side: len(split) for side, split in dataset.splits().items()},
        without=without,
        several=several,
        imbalance=max(totals) / max(min(totals), 1),
        majority=_largest_share(dataset.test),
        heading=dataset.labelling.heading,
        baseline=dataset.labelling.baseline([sample.target for sample in dataset.test.samples]),
        sizes=sizes_of([(look.width, look.height) for look in looks], dataset.size, dataset.resize),
        modes=dict(Counter(look.mode for look in looks)),
        formats=dict(Counter(look.format for look in looks)),
        levels=_levels(dataset, Counter(look.depth for look in looks)),
        is_all_grey=is_all_grey(dataset, most=None),
        unreadable=_unreadable(dataset),
        sources=_count_sources(dataset),
        leaks=_leaks(dataset),
        duplicates=duplicates,
        conflicts=conflicts,
        masks=_masks(list(names), names),
        fingerprint=dataset.fingerprint,
        problems=(),
    )


def _balancing(dataset: Dataset) -> Balancing:
    """What the task of these images has for rare classes."""
    definition = DEFINITIONS[dataset.spec.name]
    usual, *others = definition.metrics.values()
    metrics = [] if usual.is_macro else [metric.name for metric in others if metric.is_macro]
    rare_metrics = []
    for name in definition.rare_metrics:
        if not definition.metrics[name].of_damage or damage_among(
            dataset.classes, dataset.damage.classes
        ):
            rare_metrics.append(name)
    return Balancing(metrics, rare_metrics, next(iter(definition.balances), None))


def _largest_share(split: Split) -> float:
    """The share of a split's images that are labelled as most are."""
    times = Counter(sample.target for sample in split.samples)
    return max(times.values()) / len(split)


def _unreadable(dataset: Dataset) -> dict[str, str]:
    """Why each skipped image can't be read, by its name."""
    reasons = {}
    for path in dataset.skipped:
        reason = try_image(path, dataset.size, dataset.greys, dataset.resize, dataset.in_channels)
        reasons[_name(path, dataset.root)] = str(reason)
    return reasons


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _levels(dataset: Dataset, depths: Counter[Depth]) -> Levels:
    least, most = dataset.extremes or (None, None)
    stored = seen = None
    if dataset.greys is not None or depths[COLOURS]:
        stored, seen = _counted_levels(dataset)
    return Levels(
        depths={str(depth): count for depth, count in depths.items()},
        least=least,
        most=most,
        range=None if dataset.greys is None else str(dataset.greys),
        stored=stored,
        seen=seen,
    )


def _counted_levels(dataset: Dataset) -> tuple[int, int]:
    """How many levels a training image has in its file, and how many are left of them."""
    train = dataset.train
    chosen = np.linspace(0, len(train) - 1, min(SHOWN, len(train))).astype(int).tolist()
    paths = [train.samples[index].path for index in chosen]
    counts = []
    for pair in at_once(lambda path: levels_of(path, dataset.greys), paths):
        if pair is not None:
            counts.append(pair)
    if not counts:
        return 0, 0
    return (
        int(median([stored for stored, _ in counts])),
        int(median([seen for _, seen in counts])),
    )


def sizes_of(shapes: Sequence[tuple[int, int]], size: Size, resize: Resize) -> Sizes:
    """The sizes (width, height) of all images, beside the one that the model sees."""
    by_area = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    middle = (int(median(w for w, _ in shapes)), int(median(h for _, h in shapes)))
    enlarged = sum(_is_enlarged(*shape, size, resize) for shape in shapes)
    tiny = sum(min(shape) < TINY for shape in shapes)
    return Sizes(by_area[0], middle, by_area[-1], len(set(shapes)), enlarged, tiny)


def _is_enlarged(width: int, height: int, size: Size, resize: Resize) -> bool:
    """Whether a side of an image is scaled up; padding never scales further than the longer one."""
    is_narrow = width < size.width
    is_low = height < size.height
    return (is_narrow and is_low) if resize == "pad" else (is_narrow or is_low)


def sources_of(samples: Sequence[Sample]) -> set[str]:
    """The photographs or structures that these images come from."""
    return {sample.source for sample in samples if sample.source is not None}


def _count_sources(dataset: Dataset) -> int | None:
    sources = set()
    for split in dataset.splits().values():
        sources |= sources_of(split.samples)
    return len(sources) or None


def _leaks(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The sources that lie on more than one side, with the sides."""
    sides: dict[str, list[str]] = defaultdict(list)
    for side, split in dataset.splits().items():
        for source in sorted(sources_of(split.samples)):
            sides[source].append(side)
    return {source: tuple(names) for source, names in sides.items() if len(names) > 1}


def _masks(paths: Sequence[Path], names: dict[Path, str]) -> tuple[str, ...]:
    """Images that share folder and name with another but for the suffix: often the masks of the
    others.
    """
    stems = Counter((path.parent, path.stem) for path in paths)
    return tuple(names[path] for path in paths if stems[path.parent, path.stem] > 1)
