"""`prunedge check`: what is there, and what speaks against training on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.edge.image.size import Resize

if TYPE_CHECKING:
    from prunedge.data import CheckReport
    from prunedge.data.duplicates import Duplicate

_SHOWN = 10  # lines of a kind; --json has them all


def check(
    data: str,
    *,
    size: str = "224",
    resize: Resize = "stretch",
    seed: int = 0,
    group_by: str | None = None,
    range: str | None = None,
    max_distance: int = 6,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Look at images before training on them: classes, counts, sizes, unreadable files,
    imbalance, leaks.

    It splits them just as `prunedge prune` will, and leaves the decoded images in the cache for
    it.

    Example: `prunedge check cracks/ --group-by parent`

    Parameters
    ----------
    data
        Class folders, a CSV manifest (path,label[,source][,split]), or shards: x.tar,
        'train-{000..012}.tar', a folder of them, or a URL.
    size
        Pixels of the images that the model will see: 224, or 128x384 (height x width).
    resize
        How an image of another shape gets that size: stretch, pad or crop.
    seed
        Decides the split.
    group_by
        `parent`, or a regular expression on each path: images of one group stay on one side of
        the split.
    range
        LOW:HIGH, the stored values that become black and white, for greys of more than eight bits;
        what the training images need, unless given.
    max_distance
        Bits in which the perceptual hashes (of 64) of two images that look alike may differ.
    strict
        Exit with 1 when there is a problem.
    json
        Print the whole report as JSON.
    """
    from prunedge.cli.console import print_json, progress
    from prunedge.data import check as do_check

    with progress("checking", quiet=json) as advance:
        report = do_check(
            data,
            size=size,
            resize=resize,
            seed=seed,
            group_by=group_by,
            range=range,
            max_distance=max_distance,
            progress=advance,
        )
    if json:
        print_json(report.to_json())
    else:
        _show(report)
    if strict and report.problems:
        raise SystemExit(1)


def _show(report: CheckReport) -> None:
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.utils.sanitize import shown

    table = Table(*("class", *report.counts, "all"), box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in report.classes:
        counts = [report.counts[side][name] for side in report.counts]
        table.add_row(name, *[f"{n:,}" for n in (*counts, sum(counts))])
    out.print(table)
    sizes, (w, h) = report.sizes, report.sizes.median
    (w0, h0), (w1, h1) = sizes.smallest, sizes.largest
    spread = (
        f"{w0}x{h0} to {w1}x{h1} pixels, median {w}x{h}"
        if sizes.different > 1
        else f"{w}x{h} pixels"
    )
    seen = f"{report.size.width}x{report.size.height}"
    out.print(f"\nsizes      {spread}; {sizes.enlarged:,} enlarged to {seen}")
    out.print(f"files      {_counted(report.formats)}; {_counted(report.modes)}")
    out.print(f"greys      {_greys(report)}")
    sources = (
        f"{report.sources:,} known"
        if report.sources
        else "none known: each image is its own (see --group-by)"
    )
    out.print(f"sources    {sources}")
    out.print(
        f"baseline   always answering the most frequent class scores {report.majority:.1%} "
        "on the test split"
    )
    for title, lines in _details(report).items():
        if lines:
            out.print(f"\n{title}", style="bold")
            for line in lines[:_SHOWN]:
                out.print(f"  {shown(line)}")
            if len(lines) > _SHOWN:
                out.print(f"  and {len(lines) - _SHOWN:,} more (--json lists them all)")
    out.print(
        "\nproblems" if report.problems else "\nno problems found",
        style="bold" if report.problems else None,
    )
    for problem in report.problems:
        out.print(f"  - {shown(problem)}")


def _greys(report: CheckReport) -> str:
    levels = report.levels
    said = f"{_counted(levels.depths)}; {levels.stored:,} levels in an image"
    if levels.range is None:
        return said
    return (
        f"{said} from {levels.least:g} to {levels.most:g}, seen as {levels.seen:,} from "
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
