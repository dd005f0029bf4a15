"""What `prunedge check` prints: the images of each class and side, and what speaks against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from prunedge.data import CheckReport
    from prunedge.data.duplicates import Duplicate

SHOWN = 10  # lines of a kind; --json has them all


def print_check(report: CheckReport) -> None:
    """The table of classes, what the images are like, and the problems."""
    from prunedge.cli.console import out
    from prunedge.utils.sanitize import shown

    out.print(_classes(report))
    out.print(f"\nsizes      {_sizes(report)}")
    out.print(f"files      {_counted(report.formats)}; {_counted(report.modes)}")
    out.print(f"greys      {_greys(report)}")
    sources = "none known: each image is its own (see --group-by)"
    if report.sources:
        sources = f"{report.sources:,} known"
    out.print(f"sources    {sources}")
    out.print(
        f"baseline   always giving the most frequent answer is right for {report.majority:.1%} "
        "of the test split"
    )

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

    table = Table("class", *report.counts, "all", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in report.classes:
        counts = [report.counts[side][name] for side in report.counts]
        table.add_row(name, *[f"{count:,}" for count in (*counts, sum(counts))])
    images = report.images.values()
    table.add_row("images", *[f"{count:,}" for count in (*images, sum(images))])
    return table


def _sizes(report: CheckReport) -> str:
    sizes = report.sizes
    width, height = sizes.median
    seen = f"{report.size.width}x{report.size.height}"
    spread = f"{width}x{height} pixels"
    if sizes.different > 1:
        least = f"{sizes.smallest[0]}x{sizes.smallest[1]}"
        most = f"{sizes.largest[0]}x{sizes.largest[1]}"
        spread = f"{least} to {most} pixels, median {width}x{height}"
    return f"{spread}; {sizes.enlarged:,} enlarged to {seen}"


def _greys(report: CheckReport) -> str:
    levels = report.levels
    text = f"{_counted(levels.depths)}; {levels.stored:,} levels in an image"
    if levels.range is None:
        return text
    return (
        f"{text} from {levels.least:g} to {levels.most:g}, seen as {levels.seen:,} from "
        f"{levels.range} (black to white)"
    )


def _counted(counts: dict[str, int]) -> str:
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
            " = ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")
            for names in report.conflicts
        ],
    }


def _pair(duplicate: Duplicate) -> str:
    sign = "=" if duplicate.identical else "~"
    return f"{duplicate.image} ({duplicate.split}) {sign} {duplicate.like} ({duplicate.like_split})"
