"""The images of a run, as its page tells of them. Pure but for `data_card`, which reads the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunedge.report.text import twins_in_words
from prunedge.runs.data_record import NAME, DataRecord, SizesRecord
from prunedge.runs.run import Run
from prunedge.utils.wording import counted

SPLITS = ("train", "val", "test")


def data_card(run: Run) -> dict[str, Any] | None:
    """The table of the images and what is to be said beside it; None of a run that didn't count
    them.
    """
    record = run.read_as(NAME, DataRecord.model_validate)
    if record is None:
        return None
    lines = [*lines_of(record, run.config.data.group_by)]
    lines += twins_in_words(run.config, run.test())
    return {"heading": record.heading, "splits": SPLITS, "rows": rows_of(record), "lines": lines}


def rows_of(record: DataRecord) -> list[tuple[str, ...]]:
    """A row for each class, with its images in each split and in all; then all images, and their
    sources.
    """
    names = list(record.counts["train"])
    rows = []
    for name in names:
        rows.append(_row(name, [record.counts[split][name] for split in SPLITS]))
    if any(record.without.values()):
        rows.append(_row("none of them", [record.without[split] for split in SPLITS]))
    rows.append(_row("all images", [record.images[split] for split in SPLITS]))
    if record.sources is not None:
        numbers = [record.sources[split] for split in SPLITS]
        rows.append(("sources", *(f"{number:,}" for number in numbers), ""))
    return rows


def lines_of(record: DataRecord, group_by: str | None) -> list[str]:
    """How large the images are, which of them belong together, and how many can't be read."""
    lines = []
    if record.sizes is not None:
        lines.append(_sizes_in_words(record.sizes))
    if record.sources is None:
        lines.append("no sources are known, so that images of one photograph may lie on two sides")
    else:
        by = "" if group_by is None else f" (--group-by {group_by})"
        lines.append(f"images of one source lie on one side of the split{by}, unless it was given")
    if record.skipped:
        lines.append(f"{counted(record.skipped, 'image')} could not be read and were left out")
    return lines


def _row(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return (name, *(f"{number:,}" for number in numbers), f"{sum(numbers):,}")


def _sizes_in_words(sizes: SizesRecord) -> str:
    if sizes.different == 1:
        return f"all images have {_pixels(sizes.median)} pixels"
    return (
        f"the images have {_pixels(sizes.smallest)} to {_pixels(sizes.largest)} pixels, in the "
        f"middle {_pixels(sizes.median)}"
    )


def _pixels(size: Sequence[int]) -> str:
    return f"{size[0]:,} x {size[1]:,}"
