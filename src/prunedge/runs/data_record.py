"""data.json: what the images of a run are, counted when it began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from prunedge.data import Dataset
from prunedge.utils.records import Record

if TYPE_CHECKING:
    from prunedge.runs.run import Run

NAME = "data.json"
MOST_OPENED = 20_000  # images whose headers are read for their sizes, where no cache knows them

Pixels = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


class SizesRecord(Record):
    """Width and height of the smallest, the middle and the largest image, by area, and how many
    different sizes there are.
    """

    smallest: Pixels
    median: Pixels
    largest: Pixels
    different: PositiveInt


class DataRecord(Record):
    """The images of a run. `counts` are those per split and class (of other tasks: stratum, which
    `heading` names), `images` those per split, `without` those per split that show none of the
    classes. `sources` counts the photographs or structures of each split; None where none are
    known. `skipped` images could not be read. `sizes` is None where too many would have to be
    opened.
    """

    heading: str
    counts: dict[str, dict[str, NonNegativeInt]]
    images: dict[str, NonNegativeInt]
    without: dict[str, NonNegativeInt]
    sources: dict[str, NonNegativeInt] | None
    skipped: NonNegativeInt
    sizes: SizesRecord | None


def note_data(run: Run, data: Dataset) -> None:
    """Keep what the images are, unless the run knows it."""
    if not (run.path / NAME).exists():
        run.write(NAME, data_record(data).model_dump())


def data_record(data: Dataset) -> DataRecord:
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
    )


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
