"""Two inspections of one place: their photographs compared pair by pair, the results in a
folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunedge.edge.inspect.compare.changes import KINDS
from prunedge.edge.inspect.compare.files import open_comparison
from prunedge.edge.inspect.compare.pair import compare_pair
from prunedge.edge.inspect.compare.pairing import Unpaired, paired
from prunedge.edge.inspect.compare.registration import opencv
from prunedge.edge.inspect.compare.sentences import differences, summary
from prunedge.edge.inspect.kept import KeptInspection, open_inspection
from prunedge.edge.inspect.photographs import MOST_MEGAPIXELS, Photographs
from prunedge.errors import DataError

Advance = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Comparison:
    """What two inspections of one place say together.

    `counts` has how many places there are of each kind (`new`, `grown`, `smaller`, `gone`,
    `unchanged`, `unclear`, `outside`). `pairs` are plain JSON, one for each two photographs, as
    comparison.json has them; `not_compared` the photographs that could not be compared, and why.
    `differences` say where the models or settings of both differ. `page` is the page.
    """

    counts: dict[str, int]
    pairs: tuple[dict[str, Any], ...]
    not_compared: tuple[Unpaired, ...]
    differences: tuple[str, ...]
    page: Path

    @property
    def summary(self) -> str:
        """`3 new, 2 grown, 1 gone, 14 unchanged, 1 photograph could not be compared`."""
        return summary(self.counts, len(self.not_compared))


def compare_inspections(
    old: Path | str,
    new: Path | str,
    out: Path | str,
    *,
    pairs: Path | str | None = None,
    old_photos: Path | str | None = None,
    new_photos: Path | str | None = None,
    max_megapixels: float = MOST_MEGAPIXELS,
    advance: Advance | None = None,
    tell: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare two inspections of one place (the --out of two `prunedge inspect`), and write
    comparison.json, comparison.csv and comparison.html into the folder `out`.

    Photographs are paired by their names, or as the CSV `pairs` with the columns `old` and `new`
    says. `old_photos` and `new_photos` are where they lie now, if not where they were inspected.
    Each pair is laid on each other first; one that can't be is said, and not compared. All sizes
    are in pixels of the old photograph, and in millimetres where both scales are known.
    `advance(done, total, what)` and `tell(line)` report.

    Raises DataError where a folder holds no inspection, `pairs` can't be followed, `out` holds
    something else, or no photograph can be compared (its page is written all the same);
    ExtraMissing without OpenCV.

    Example: `compare_inspections("2024", "2026", "changes").summary`
    """
    opencv()
    inspections = (open_inspection(Path(old)), open_inspection(Path(new)))
    listed = None if pairs is None else Path(pairs)
    names, left = paired(*inspections, listed)
    first = Photographs(inspections[0], _path(old_photos), "--old-photos", max_megapixels)
    second = Photographs(inspections[1], _path(new_photos), "--new-photos", max_megapixels)
    with open_comparison(Path(out), inspections) as folder:
        for number, both in enumerate(names, 1):
            try:
                pair = compare_pair(first, second, both)
            except DataError as error:
                left.append(Unpaired(*both, _reason(error)))
                if tell is not None:
                    tell(f"not compared: {both[0]}: {_reason(error)}")
            else:
                folder.keep(pair)
            if advance is not None:
                advance(number, len(names), "comparing")
        counted = Counter(change["change"] for pair in folder.pairs for change in pair["changes"])
        comparison = Comparison(
            counts={kind: counted[kind] for kind in KINDS},
            pairs=tuple(folder.pairs),
            not_compared=tuple(left),
            differences=tuple(differences(*inspections)),
            page=folder.page,
        )
        folder.summarise(comparison.summary, comparison.differences, comparison.not_compared)
    _refuse_nothing(comparison, inspections)
    return comparison


def _refuse_nothing(
    comparison: Comparison, inspections: tuple[KeptInspection, KeptInspection]
) -> None:
    if comparison.pairs:
        return
    reason = "they have no photograph"
    if comparison.not_compared:
        reason = comparison.not_compared[0].reason
    raise DataError(
        f"no photograph of both inspections could be compared: {reason}",
        where=f"{inspections[0].folder} and {inspections[1].folder}",
        remedy=f"see {comparison.page}",
    )


def _reason(error: DataError) -> str:
    return f"{error.what} ({error.remedy})" if error.remedy else error.what


def _path(place: Path | str | None) -> Path | None:
    return None if place is None else Path(place)
