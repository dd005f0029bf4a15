"""What `prunedge check` prints: the images of each class and side, and what speaks against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunedge.utils.advice import option
from prunedge.utils.wording import counted, first_of

if TYPE_CHECKING:
    from rich.table import Table

    from prunedge.data import CheckReport
    from prunedge.data.duplicates import Conflict, Duplicate

# What Pillow's modes are, in words.
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "I;16": "grey (16 bits)",
    "I;16B": "grey (16 bits)",
    "I": "grey (32 bits)",
    "F": "grey (floats)",
}
SHOWN = 10  # lines of a kind; --json has them all


def print_check(report: CheckReport) -> None:
    """The table of classes, what the images are like, and the problems."""
    from prunedge.cli.console import out
    from prunedge.utils.sanitize import shown

    out.print(_classes(report))
    out.print(f"\nsizes      {_sizes(report)}")
    modes = {MODES.get(mode, mode): count for mode, count in report.modes.items()}
    out.print(f"files      {_counts(report.formats)}; {_counts(modes)}")
    out.print(f"greys      {_greys(report)}")
    sources = "none known: each image is its own (see --group-by)"
    if report.sources:
        sources = f"{report.sources:,} known"
    out.print(f"sources    {sources}")
    from prunedge.data.check_report import balance_line

    out.print(f"balance    {shown(balance_line(report))}")
    out.print(f"baseline   {shown(report.baseline)} of the test split")

    for title, lines in _details(report).items():
        if not lines:
            continue
        out.print(f"\n{title}", style="bold")
        for line in lines[:SHOWN]:
            out.print(f"  {shown(line)}")
        if len(lines) > SHOWN:
            out.print(f"  and {len(lines) - SHOWN:,} more (--json lists them all)")

    if not report.problems:
        out.print("\nno problems found")
        return
    out.print("\nproblems", style="bold")
    for problem in report.problems:
        out.print(f"  - {shown(problem)}")


def _classes(report: CheckReport) -> Table:
    """Images of each class on each side."""
    from rich.table import Table

    table = Table(
        report.heading, *report.counts, "all", box=None, pad_edge=False, header_style="bold"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in report.classes:
        counts = [report.counts[side][name] for side in report.counts]
        table.add_row(name, *[f"{count:,}" for count in (*counts, sum(counts))])
    rows = {"images": report.images}
    # Where every image shows one class, nobody asks.
    if any((*report.without.values(), *report.several.values())):
        rows = {"none of them": report.without, "several": report.several, **rows}
    for name, sides in rows.items():
        table.add_row(name, *[f"{count:,}" for count in (*sides.values(), sum(sides.values()))])
    return table


def _sizes(report: CheckReport) -> str:
    """Height x width, as options say it."""
    sizes = report.sizes
    spread = f"{_upright(sizes.median)} pixels"
    if sizes.different > 1:
        spread = (
            f"{_upright(sizes.smallest)} to {_upright(sizes.largest)} pixels, median "
            f"{_upright(sizes.median)}"
        )
    seen = f"{report.size.height}x{report.size.width}"
    return f"{spread} (height x width); {sizes.enlarged or 'none'} enlarged to {seen}"


def _upright(shape: tuple[int, int]) -> str:
    """A shape (width, height) as height x width."""
    return f"{shape[1]}x{shape[0]}"


def _greys(report: CheckReport) -> str:
    levels = report.levels
    depths = {f"of {depth}": count for depth, count in levels.depths.items()}
    text = _counts(depths)
    if report.is_all_grey:
        saving = option("in_channels", 1)
        text += f"; all images are grey: {saving} saves two thirds of a model's first convolution"
    if levels.stored is None or levels.seen is None:
        return text
    text += f"; {counted(levels.stored, 'level')} in an image"
    if levels.range is None:
        return text
    return (
        f"{text} from {levels.least:g} to {levels.most:g}, seen as {levels.seen:,} from "
        f"{levels.range} (black to white)"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{n:,} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1])
    )


def _details(report: CheckReport) -> dict[str, list[str]]:
    return {
        "unreadable": [f"{name}: {why}" for name, why in report.unreadable.items()],
        "sources on two sides": [
            f"{source}: {', '.join(sides)}" for source, sides in report.leaks.items()
        ],
        "alike on two sides": [_pair(duplicate) for duplicate in report.duplicates],
        "same image, different labels": [
            first_of(_labelled(conflict), most=4, between=" = ") for conflict in report.conflicts
        ],
    }


def _labelled(conflict: Conflict) -> list[str]:
    pairs = zip(conflict.images, conflict.labels, strict=True)
    return [f"{image} ({label})" for image, label in pairs]


def _pair(duplicate: Duplicate) -> str:
    sign = "=" if duplicate.identical else "~"
    return f"{duplicate.image} ({duplicate.split}) {sign} {duplicate.like} ({duplicate.like_split})"
