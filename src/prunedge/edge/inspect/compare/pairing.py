"""Which photographs of two inspections belong together: by their names, or as a list says."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from prunedge.edge.inspect.kept import KeptInspection
from prunedge.errors import DataError
from prunedge.utils.files import read_text
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import first_of

COLUMNS = ("old", "new")


@dataclass(frozen=True)
class Unpaired:
    """A photograph that can't be compared, by its name in either inspection, and why."""

    old: str | None
    new: str | None
    reason: str


def paired(
    old: KeptInspection, new: KeptInspection, listed: Path | None = None
) -> tuple[list[tuple[str, str]], list[Unpaired]]:
    """The pairs of names (old, new), in the old inspection's order, and what is left over.

    `listed` is a CSV with the columns `old` and `new`; what it doesn't name is left over. DataError
    where it can't be read, or names what neither inspection has.
    """
    if listed is not None:
        pairs = _listed(listed, old, new)
    else:
        pairs = [(name, name) for name in old.images if name in new.images]
    has_old = {first for first, _ in pairs}
    has_new = {second for _, second in pairs}
    left = [*_left(old, has_old, "old", listed), *_left(new, has_new, "new", listed)]
    if listed is None:
        left = _without_repeats(left)
    return pairs, left


def _left(
    inspection: KeptInspection, paired_names: set[str], side: str, listed: Path | None
) -> list[Unpaired]:
    """The photographs of an inspection that are in no pair, and those that it couldn't look at."""
    alone = f"in the {side} inspection alone" if listed is None else f"not in {listed.name}"
    left = []
    for name in inspection.images:
        if name not in paired_names:
            left.append(_unpaired(side, name, alone))
    for name, reason in inspection.skipped:
        left.append(_unpaired(side, name, f"not inspected in the {side} inspection: {reason}"))
    return left


def _unpaired(side: str, name: str, reason: str) -> Unpaired:
    return Unpaired(name, None, reason) if side == "old" else Unpaired(None, name, reason)


def _without_repeats(left: list[Unpaired]) -> list[Unpaired]:
    """Each name once: of a photograph that one inspection has and the other couldn't look at, both
    say something.
    """
    by_name: dict[str, Unpaired] = {}
    for each in left:
        name = each.old or each.new or ""
        known = by_name.get(name)
        if known is None:
            by_name[name] = each
            continue
        reasons = [each.reason for each in (known, each) if "not inspected" in each.reason]
        reason = "; ".join(reasons) or known.reason
        by_name[name] = Unpaired(known.old or each.old, known.new or each.new, reason)
    return list(by_name.values())


def _listed(file: Path, old: KeptInspection, new: KeptInspection) -> list[tuple[str, str]]:
    """The pairs that a CSV lists."""
    remedy = "its first line is old,new; each other one has a photograph of either inspection"
    try:
        rows = list(csv.DictReader(read_text(file, DataError).removeprefix("\ufeff").splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        pass_on_reading(error, file)
        raise DataError("can't be read as a list of pairs", where=file, remedy=remedy) from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise DataError("no pairs with the columns old and new", where=file, remedy=remedy)

    pairs: list[tuple[str, str]] = []
    for line, row in enumerate(rows, 2):
        names = []
        for column, inspection in zip(COLUMNS, (old, new), strict=True):
            names.append(_known((row[column] or "").strip(), inspection, f"{file}, line {line}"))
        pairs.append((names[0], names[1]))
    for place, column in enumerate(COLUMNS):
        names = [pair[place] for pair in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(
                f"in several pairs as {column}: {first_of(twice)}",
                where=file,
                remedy="pair each photograph once",
            )
    return pairs


def _known(name: str, inspection: KeptInspection, where: str) -> str:
    if name in inspection.images:
        return name
    raise DataError(
        f"'{name[:200]}' is no photograph of {inspection.folder}",
        where=where,
        remedy=f"name one as inspection.json lists it: {first_of(list(inspection.images), 3)}",
    )
