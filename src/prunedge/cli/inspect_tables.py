"""What `prunedge inspect` prints: the regions of a photograph, or the worst of many photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunedge.edge.inspect.levels import level_text
from prunedge.edge.inspect.measure_words import size_with_uncertainty
from prunedge.edge.inspect.widths import counts_in_words
from prunedge.utils.wording import counted, figure

if TYPE_CHECKING:
    from rich.table import Table

    from prunedge.edge.inspect.runner import InspectionOutcome

SHOWN = 15  # regions or photographs in a table


def print_inspection_json(
    about: Mapping[str, Any], outcome: InspectionOutcome, folder: Path | None
) -> None:
    """Everything as one document; `about` is what was inspected, with what."""
    from prunedge.cli.console import print_json

    skipped = [{"name": name, "reason": why} for name, why in outcome.skipped]
    print_json(
        {
            **about,
            "images": outcome.records,
            "skipped": skipped,
            "images_per_second": outcome.images_per_second,
            "out": str(folder) if folder else None,
        }
    )


def print_inspection(
    outcome: InspectionOutcome, folder: Path | None, classes: Sequence[str] = ()
) -> None:
    """The damage, how many photographs were looked at, and how many regions there are of each of
    these classes of width.
    """
    from prunedge.cli.console import out

    records = outcome.records
    damaged = [record for record in records if record["regions"]]
    if any(record.get("numbers") for record in records):
        out.print(_numbers(records))
    if len(records) == 1 and damaged:
        out.print(_regions(records[0]))
    elif damaged:
        out.print(_worst(damaged))
    patches = sum(record["patches"] for record in records)
    reused = f", {outcome.reused:,} of them by an earlier run" if outcome.reused else ""
    out.print(
        f"{counted(len(records), 'image')} inspected ({counted(patches, 'patch', 'patches')})"
        f"{reused}: {outcome.images_per_second:.3g} images a second"
    )
    regions = sum(len(record["regions"]) for record in records)
    skipped = f"; {len(outcome.skipped):,} not inspected" if outcome.skipped else ""
    out.print(f"damage in {len(damaged):,} of them, {counted(regions, 'region')}{skipped}")
    if classes:
        out.print(f"largest widths: {counts_in_words(records, classes)}")
    if folder is not None:
        out.print(f"page: {folder / 'inspection.html'}")


def _numbers(records: Sequence[Mapping[str, Any]]) -> Table:
    """What each photograph is estimated at, the highest first."""
    names = list(records[0]["numbers"])
    ordered = sorted(records, key=lambda record: -record["numbers"][names[0]])
    title = "estimated, the highest first"
    if len(records) > SHOWN:
        title += f", {SHOWN} of {len(records):,}"
    table = _table(title, "image", *names)
    for record in ordered[:SHOWN]:
        table.add_row(record["name"], *(figure(record["numbers"][name], 4) for name in names))
    return table


def _regions(record: Mapping[str, Any]) -> Table:
    """The regions of one photograph, in millimetres where they are known."""
    is_scaled = bool(record["mm_per_pixel"])
    is_measured = any("length_px" in region for region in record["regions"])
    unit = "mm" if is_scaled else "px"
    span = record.get("span")
    names = (
        "damage",
        "surest" if span is None else "highest",
        "mean",
        "left px",
        "top px",
        f"length {unit}" if is_measured else f"width {unit}",
        f"widest {unit}" if is_measured else f"height {unit}",
        f"area {unit}2",
    )
    count = len(record["regions"])
    title = record["name"]
    if count > SHOWN:
        title += f": {SHOWN} of {count:,} regions, worst first"
    table = _table(title, *names)
    for region in record["regions"][:SHOWN]:
        table.add_row(
            region["label"],
            level_text(region["probability"], span, 1),
            level_text(region["mean_probability"], span, 1),
            str(region["left"]),
            str(region["top"]),
            *_sizes(region, is_measured),
            _short(region["area_mm2" if is_scaled else "area"]),
        )
    return table


def _sizes(region: Mapping[str, Any], is_measured: bool) -> tuple[str, str]:
    """A region's length and largest width, where regions are measured, or those of its box."""
    if is_measured:
        length = size_with_uncertainty(region, "length")
        return length, size_with_uncertainty(region, "largest_width")
    suffix = "_mm" if "width_mm" in region else ""
    return _short(region[f"width{suffix}"]), _short(region[f"height{suffix}"])


def _short(size: float) -> str:
    return f"{size:,.4g}" if size < 1e4 else f"{size:,.0f}"


def _worst(damaged: Sequence[Mapping[str, Any]]) -> Table:
    """The photographs with the worst damage, a line each."""
    span = damaged[0].get("span")
    mean = "probability" if span is None else "number"
    title = f"worst first (by damaged area times mean {mean})"
    if len(damaged) > SHOWN:
        title += f", {SHOWN} of {len(damaged):,}"
    table = _table(title, "image", "regions", "damaged", "surest" if span is None else "highest")
    for record in damaged[:SHOWN]:
        table.add_row(
            record["name"],
            str(len(record["regions"])),
            f"{record['damaged_share']:.1%}",
            level_text(record["probability"], record.get("span"), 1),
        )
    return table


def _table(title: str, *names: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table
