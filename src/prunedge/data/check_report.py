"""What a check finds: the report, and the problems in it as sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

from prunedge.config import plain_size
from prunedge.data.duplicates import Conflict, Duplicate
from prunedge.edge.image.read import COLOURS
from prunedge.edge.image.size import Size
from prunedge.utils.wording import counted, first_of

TINY = 8  # pixels of a side, below which an image shows next to nothing
COARSE = 64  # grey levels, below which it is worth asking whether the range is right
RARE = 50  # images of a class, below which a split says little about it
SKEWED = 3.0  # images of the largest class for one of the smallest
LARGE = 0.8  # share of the training images of one class, from which on accuracy says little
RARER = 10.0  # images of the largest class for one of the smallest, which then needs weight


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
    tiny: int  # how many have a side of less than TINY pixels


@dataclass(frozen=True)
class Levels:
    """The greys of the images: how many have which depth, and what the model sees of them.

    `least` and `most` are the lowest and highest stored value of all deep images, `range` what
    becomes black and white (`LOW:HIGH`); None where all have eight bits. `stored` and `seen` count
    the different values of a training image (the median), in its file and as the model sees it;
    of colours those of the richest. Both are None where nothing can be lost: all have eight bits.
    """

    depths: dict[str, int]
    least: float | None
    most: float | None
    range: str | None
    stored: int | None
    seen: int | None


@dataclass(frozen=True)
class CheckReport:
    """What a folder or manifest holds and what speaks against training on it.

    `classes` are what splits balance: of other tasks than classification their strata. `counts` is
    images per split and class, `images` those per split; `without` and `several` are those per
    split that show none of the classes, and more than one; `imbalance` the images of the largest
    class for one of the smallest; `majority` the share of test images that are labelled as most
    are: for classification the accuracy of a model that always answers the largest class.
    `heading` is what one of `classes` is called, `baseline` what always giving the same answer
    scores on the test split, in words. `is_all_grey`: all images are grey, and a model is shown
    them as three equal channels. `sources` is how many photographs or structures are known,
    None when none are; `leaks` the sources on two sides. `duplicates` are images of val and test
    that look like one of an earlier split; `conflicts` the same pixels with two labels. `problems`
    says all that matters in sentences.
    """

    data: str
    size: Size
    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    images: dict[str, int]
    without: dict[str, int]
    several: dict[str, int]
    imbalance: float
    majority: float
    heading: str
    baseline: str
    sizes: Sizes
    modes: dict[str, int]
    formats: dict[str, int]
    levels: Levels
    is_all_grey: bool
    unreadable: dict[str, str]
    sources: int | None
    leaks: dict[str, tuple[str, ...]]
    duplicates: tuple[Duplicate, ...]
    conflicts: tuple[Conflict, ...]
    masks: tuple[str, ...]
    fingerprint: str
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON's types."""
        return {**asdict(self), "size": plain_size(self.size)}


@dataclass(frozen=True)
class Balancing:
    """What a task has for rare classes: metrics that weigh all classes alike (none where it is
    judged by such a one anyway), those for a class that has next to all images, and what gives
    rare ones more weight (`--balance`; None where nothing does).
    """

    metrics: Sequence[str] = ()
    rare_metrics: Sequence[str] = ()
    balance: str | None = None


def problems_of(report: CheckReport, doubt: str | None, has: Balancing) -> tuple[str, ...]:
    """What the user should know, most serious first, each with its remedy; `doubt` is the task's
    about the labels, `has` what the task has for rare classes.
    """
    problems = [
        *([] if doubt is None else [doubt]),
        *_about_files(report),
        *_about_splits(report),
        *_about_classes(report),
        *_about_greys(report),
        *_about_balance(report, has),
    ]
    return tuple(problems)


def totals_of(report: CheckReport) -> dict[str, int]:
    """Images of each class in all splits."""
    totals = dict.fromkeys(report.classes, 0)
    for counts in report.counts.values():
        for name, count in counts.items():
            totals[name] += count
    return totals


def _about_files(report: CheckReport) -> list[str]:
    """What can't be read, or shows nothing."""
    problems = []
    if report.unreadable:
        problems.append(
            f"{_many(report.unreadable)} can't be read: replace or remove them, or train with "
            "--skip-unreadable"
        )
    if report.sizes.tiny:
        tiny = counted(report.sizes.tiny, "image has", "images have")
        problems.append(
            f"{tiny} a side of less than {TINY} pixels, which shows next to nothing: are these "
            "the right files?"
        )
    return problems


def _about_splits(report: CheckReport) -> list[str]:
    """What lies on two sides, or has two labels."""
    same = sum(duplicate.identical for duplicate in report.duplicates)
    alike = len(report.duplicates) - same
    problems = []
    if report.leaks:
        problems.append(
            f"{_many(report.leaks, 'source')} on two sides of the given split: results will look "
            "too good; split anew"
        )
    if same:
        problems.append(
            f"{_many(same)} of val and test also in an earlier split, to the pixel: remove them, "
            "or give them a source"
        )
    if report.conflicts:
        problems.append(f"{_many(report.conflicts)} found under different labels: decide on one")
    if alike:
        problems.append(
            f"{_many(alike)} of val and test look almost like one of an earlier split: if they "
            "show the same thing, --group-by similar keeps them on one side"
        )
    return problems


def _about_classes(report: CheckReport) -> list[str]:
    """Masks that are taken for images, and classes with few images."""
    problems = []
    if report.masks:
        problems.append(
            f"{counted(len(report.masks), 'image shares', 'images share')} a name with another: if "
            "half are masks, list the others in a manifest"
        )
    rare = []
    for name, total in totals_of(report).items():
        judged_by = min(report.counts[side][name] for side in ("val", "test"))
        if total < RARE or not judged_by:
            rare.append(name)
    if rare:
        problems.append(f"few images of {first_of(rare)}: their results will be noisy")
    return problems


def _about_greys(report: CheckReport) -> list[str]:
    levels = report.levels
    if levels.stored is None or levels.seen is None:
        return []
    problems = []
    if levels.seen < COARSE and levels.stored >= 2 * levels.seen:
        problems.append(
            f"of the {levels.stored:,} grey levels of an image {levels.seen:,} are left: is the "
            "range right? (--range)"
        )
    colours = levels.depths.get(COLOURS, 0)
    if colours:
        problems.append(
            f"{_many(colours)} with colours of 16 bits, of which only the upper 8 are read "
            f"({levels.seen:,} levels in an image): save colours with 8 bits, or single greys "
            "with 16"
        )
    return problems


def balance_line(report: CheckReport) -> str:
    """How common the commonest class is, and how many images of the rarest each split has."""
    commonest, rarest = _ends(report)
    counts = ", ".join(f"{side} {count[rarest]:,}" for side, count in report.counts.items())
    share = _share(report, commonest)
    return f"{share:.1%} of the training images {commonest}; rarest {rarest}: {counts}"


def _about_balance(report: CheckReport, has: Balancing) -> list[str]:
    commonest, _ = _ends(report)
    if len(report.classes) < 2:  # masks of one kind of damage
        share = _share(report, commonest)
        if has.balance is None or share > 1 - LARGE:
            return []
        return [
            f"few images show {commonest} ({share:.1%} of the training images): train with "
            f"--balance {has.balance}"
        ]
    is_rare = report.imbalance >= RARER or _share(report, commonest) > LARGE
    if has.balance is not None and is_rare:
        advice = f"train with --balance {has.balance}"
        if has.rare_metrics:
            advice += f" and choose by --metric {' or '.join(has.rare_metrics)}"
        return [f"a class is rare ({balance_line(report)}): {advice}"]
    if report.imbalance <= SKEWED or not has.metrics:
        return []
    return [
        f"{report.imbalance:.1f} images of the largest class for one of the smallest: choose by "
        f"--metric {' or '.join(has.metrics)}"
    ]


def _ends(report: CheckReport) -> tuple[str, str]:
    """The commonest and the rarest class of all images."""
    totals = totals_of(report)
    return max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)


def _share(report: CheckReport, name: str) -> float:
    """The share of the training images that count in a class."""
    return report.counts["train"][name] / max(report.images["train"], 1)


def _many(things: int | Sized, noun: str = "image") -> str:
    return counted(things if isinstance(things, int) else len(things), noun)
