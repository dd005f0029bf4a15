"""The images of a run, as its page tells of them. Pure but for `data_card`, which reads the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunedge.report.twins_text import twins_in_words, twins_of_training
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
    lines += twins_in_words(run.config, run.test()) or twins_of_training(run)
    return {
        "heading": record.heading,
        "columns": columns_of(record),
        "rows": rows_of(record),
        "lines": lines,
        "twins": record.twins if record.twins is not None and record.twins.count else None,
    }


def columns_of(record: DataRecord) -> tuple[str, ...]:
    """The splits; behind test its images without those that look like one of another split, where
    there are any of these.
    """
    others = ("test without twins",) if _has_twins(record) else ()
    return (*SPLITS, *others, "all")


def rows_of(record: DataRecord) -> list[tuple[str, ...]]:
    """A row for each class, with its images in each of `columns_of`; then all images, and their
    sources.
    """
    names = list(record.counts["train"])
    twins = record.twins if _has_twins(record) else None
    rows = []
    for name in names:
        others = None if twins is None else twins.without[name]
        rows.append(_row(name, [record.counts[split][name] for split in SPLITS], others))
    if any(record.without.values()):
        others = None if twins is None else twins.none
        rows.append(_row("none of them", [record.without[split] for split in SPLITS], others))
    others = None if twins is None else twins.images
    rows.append(_row("all images", [record.images[split] for split in SPLITS], others))
    if record.sources is not None:
        numbers = [record.sources[split] for split in SPLITS]
        blank = [""] * (len(rows[0]) - 1 - len(SPLITS))
        rows.append(("sources", *(f"{number:,}" for number in numbers), *blank))
    return rows


def _has_twins(record: DataRecord) -> bool:
    return record.twins is not None and record.twins.count > 0


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
    if record.twins is not None and not record.twins.count:
        lines.append("no test image looks like one that trains or validates")
    return lines


def _row(name: str, numbers: Sequence[int], others: int | None) -> tuple[str, ...]:
    """A row of the splits' numbers, those without twins (None where there are none), and all."""
    cells = [f"{number:,}" for number in numbers]
    if others is not None:
        cells.append(f"{others:,}")
    return (name, *cells, f"{sum(numbers):,}")


def _sizes_in_words(sizes: SizesRecord) -> str:
    if sizes.different == 1:
        return f"all images have {_pixels(sizes.median)} pixels"
    return (
        f"the images have {_pixels(sizes.smallest)} to {_pixels(sizes.largest)} pixels, in the "
        f"middle {_pixels(sizes.median)}"
    )


def _pixels(size: Sequence[int]) -> str:
    return f"{size[0]:,} x {size[1]:,}"
