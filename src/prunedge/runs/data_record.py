"""data.json: what the images of a run are, counted when it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from prunedge.data import Dataset
from prunedge.data.paths import written
from prunedge.utils.records import Record

if TYPE_CHECKING:
    from prunedge.data.duplicates import Twin
    from prunedge.runs.run import Run

NAME = "data.json"
MOST_OPENED = 20_000  # images whose headers are read for their sizes, where no cache knows them
MOST_COMPARED = 20_000  # images whose looks are compared, which takes a millisecond each
MOST_TWINS = 20  # that are named

Pixels = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


class SizesRecord(Record):
    """Width and height of the smallest, the middle and the largest image, by area, and how many
    different sizes there are.
    """

    smallest: Pixels
    median: Pixels
    largest: Pixels
    different: PositiveInt


class TwinRecord(Record):
    """A test image that looks like one of another split (to the pixel where `is_identical`), both
    by their names below the images' folder.
    """

    image: str
    like: str
    split: Literal["train", "val"]
    is_identical: bool


class TwinsInTestRecord(Record):
    """How many test images look like one that trains or validates, and the first of them; `without`
    are the test images of each class without them, `none` those of no class, `images` all of these.
    """

    count: NonNegativeInt
    first: list[TwinRecord]
    without: dict[str, NonNegativeInt]
    none: NonNegativeInt
    images: NonNegativeInt


class DataRecord(Record):
    """The images of a run. `counts` are those per split and class (of other tasks: stratum, which
    `heading` names), `images` those per split, `without` those per split that show none of the
    classes. `sources` counts the photographs or structures of each split; None where none are
    known. `skipped` images could not be read. `sizes` is None where too many would have to be
    opened, `twins` where there are too many to compare.
    """

    heading: str
    counts: dict[str, dict[str, NonNegativeInt]]
    images: dict[str, NonNegativeInt]
    without: dict[str, NonNegativeInt]
    sources: dict[str, NonNegativeInt] | None
    skipped: NonNegativeInt
    sizes: SizesRecord | None
    twins: TwinsInTestRecord | None = None


def note_data(run: Run, data: Dataset, twins: Callable[[], Sequence[Twin] | None]) -> None:
    """Keep what the images are, unless the run knows it; `twins` looks for them (`twins_of`)."""
    if not (run.path / NAME).exists():
        run.write(NAME, data_record(data, twins()).model_dump())


def twins_of(data: Dataset) -> list[Twin] | None:
    """The test images that look like one of another split; None where there are too many images to
    compare.
    """
    if sum(map(len, data.splits().values())) > MOST_COMPARED:
        return None
    # Hashing takes a second to import.
    from prunedge.data.duplicates import twins_in_test

    return twins_in_test(data)


def without_twins(data: Dataset, twins: Sequence[Twin]) -> list[int]:
    """The places of the other test images."""
    return sorted(set(range(len(data.test))) - {twin.place for twin in twins})


def data_record(data: Dataset, twins: Sequence[Twin] | None = None) -> DataRecord:
    """What these images are."""
    # Half a second to import.
    from prunedge.data.check import sources_of

    splits = data.splits()
    sources = None
    known = {name: sources_of(split.samples) for name, split in splits.items()}
    if any(known.values()):
        sources = {name: len(names) for name, names in known.items()}
    return DataRecord(
        heading=data.labelling.heading,
        counts={name: split.counts() for name, split in splits.items()},
        images={name: len(split) for name, split in splits.items()},
        without={name: split.in_none_and_several()[0] for name, split in splits.items()},
        sources=sources,
        skipped=len(data.skipped),
        sizes=_sizes(data),
        twins=None if twins is None else _twins(data, twins),
    )


def _twins(data: Dataset, twins: Sequence[Twin]) -> TwinsInTestRecord:
    others = data.test.at(without_twins(data, twins))
    first = []
    for twin in twins[:MOST_TWINS]:
        record = TwinRecord(
            image=_name(data, twin.image),
            like=_name(data, twin.like),
            split="train" if twin.split == "train" else "val",
            is_identical=twin.is_identical,
        )
        first.append(record)
    return TwinsInTestRecord(
        count=len(twins),
        first=first,
        without=others.counts(),
        none=others.in_none_and_several()[0],
        images=len(others),
    )


def _name(data: Dataset, path: Path) -> str:
    """An image's name below the folder of all images."""
    return written(path.relative_to(data.root) if path.is_relative_to(data.root) else path)


def _sizes(data: Dataset) -> SizesRecord | None:
    """The sizes of all images, as they are stored."""
    # Half a second to import.
    from prunedge.data.check import sizes_of
    from prunedge.data.stored import looks_of

    splits = list(data.splits().values())
    is_cached = all(split.cache is not None for split in splits)
    if not is_cached and sum(map(len, splits)) > MOST_OPENED:
        return None
    shapes = []
    for split in splits:
        shapes += [(look.width, look.height) for look in looks_of(split)]
    if not shapes:
        return None
    sizes = sizes_of(shapes, data.size, data.resize)
    return SizesRecord(
        smallest=list(sizes.smallest),
        median=list(sizes.median),
        largest=list(sizes.largest),
        different=sizes.different,
    )
