"""`prunedge compare-inspections`: what changed between two inspections of one place. Needs no
torch.
"""

from __future__ import annotations

from pathlib import Path

from prunedge.cli.options import Flag


def compare_inspections(
    old: Path,
    new: Path,
    *,
    out: Path,
    pairs: Path | None = None,
    old_photos: Path | None = None,
    new_photos: Path | None = None,
    max_megapixels: float = 200.0,
    json: Flag = False,
) -> None:
    """Compare two inspections of one place: what is new, what grew, what is gone, what stayed.

    Photographs are paired by their names and laid on each other first (needs
    `prunedge[compare]`); a pair that can't be is said, and not compared. Writes a page with both
    beside each other, comparison.json and comparison.csv.

    Example: `prunedge compare-inspections inspected-2024 inspected-2026 --out changes`

    Parameters
    ----------
    old
        The --out of the earlier `prunedge inspect`.
    new
        That of the later one.
    out
        The folder to make.
    pairs
        A CSV with the columns old and new: which photographs belong together, where their names
        don't say so.
    old_photos
        Where the old photographs are now, if not where they were inspected.
    new_photos
        The same of the new ones.
    max_megapixels
        Larger images are refused before they are decoded.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress, say, tell
    from prunedge.edge.inspect.compare import compare_inspections as compare
    from prunedge.utils.systems import limit_memory_to_machine

    limit_memory_to_machine()
    with progress("comparing", quiet=json) as advance:
        comparison = compare(
            old,
            new,
            out,
            pairs=pairs,
            old_photos=old_photos,
            new_photos=new_photos,
            max_megapixels=max_megapixels,
            advance=advance,
            tell=say,
        )
    if json:
        print_json(
            {
                "summary": comparison.summary,
                "counts": comparison.counts,
                "differences": comparison.differences,
                "pairs": comparison.pairs,
                "not_compared": [vars(each) for each in comparison.not_compared],
                "page": str(comparison.page),
            }
        )
        return
    if comparison.differences:
        tell(f"mind: the two inspections differ in their {'; '.join(comparison.differences)}")
    tell(comparison.summary)
    tell(f"page: {comparison.page}")
