"""The lines of a CSV manifest: what each says of its image, by the names of the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunedge.edge.tasks.base import SEPARATOR
from prunedge.edge.tasks.label_kinds import number_in
from prunedge.errors import DataError

LABEL = "label"
VALUE = "value"  # a column of numbers, whatever other columns there are
MASK = "mask"
PLACES = ("path", "file")
KNOWN = (*PLACES, LABEL, VALUE, "source", "split")
EXTRA = "\0"  # no column's name: what is wrong with a line of more cells than the header has

REMEDY = (
    "the first line must name the columns: path,label and, if wanted, source,split; in place of "
    "label there may be a column of 0 and 1 for each class, or columns of numbers"
)

Line = tuple[int, dict[str, str]]  # its number, and its cells by the columns' names


@dataclass(frozen=True)
class Labelled:
    """The lines of a manifest, each with its label, and what holds the labels. `columns` are those
    of numbers, where labels are these.
    """

    lines: Iterable[Line]
    held: str
    columns: tuple[str, ...] = ()


def labelled_lines(csv_file: Path) -> Labelled:
    """The lines of a manifest with their labels.

    Where no column is called label, an image has the numbers of the column `value`; without one,
    the labels of those of the columns of 0 and 1 that hold 1; without such columns the numbers of
    all that hold some. Raises DataError when it is no such CSV, here or while the lines are read.
    """
    columns = _columns(csv_file)
    if LABEL in columns:
        return Labelled(_lines(csv_file), f"column {LABEL}")

    lines = list(_lines(csv_file))
    if VALUE in columns:
        return _numbered(lines, [VALUE])
    classes, faults = _class_columns(columns, lines)
    if faults:
        remedy = (
            "a column of a class holds 0 or 1 in each line: mend it, or take it out; a column of "
            f"numbers may be called {VALUE}"
        )
        raise DataError("; ".join(faults), where=csv_file, remedy=remedy)
    if not classes:
        numbers = _number_columns(columns, lines)
        if not numbers:
            raise _no_columns(columns, csv_file)
        return _numbered(lines, numbers)
    labelled = []
    for number, cells in lines:
        shown = [name for name in classes if cells[name] == "1"]
        labelled.append((number, {**cells, LABEL: SEPARATOR.join(shown)}))
    return Labelled(labelled, f"columns {', '.join(classes)}")


def names_masks(csv_file: Path) -> bool:
    """Whether a CSV lists images with the mask of each."""
    try:
        return _mask_column(csv_file) is not None
    except DataError:
        return False


def masked_lines(csv_file: Path) -> Iterator[Line]:
    """The lines of such a manifest, `path` and `mask` in each, empty where it has none. Raises
    DataError while it is read.
    """
    column = _mask_column(csv_file) or MASK
    for number, cells in _lines(csv_file):
        path = cells.get("path") or cells.get("file") or ""
        yield number, {**cells, "path": path, MASK: cells.get(column, "")}


def _mask_column(csv_file: Path) -> str | None:
    """What the column of masks is called; a class may be called so as well, in its own column."""
    return next((name for name in _columns(csv_file) if name.lower() == MASK), None)


def _numbered(lines: Sequence[Line], columns: Sequence[str]) -> Labelled:
    """The lines, the numbers of these columns as the label of each."""
    labelled = []
    for number, cells in lines:
        label = SEPARATOR.join(cells.get(name, "") for name in columns)
        labelled.append((number, {**cells, LABEL: label}))
    noun = "column" if len(columns) == 1 else "columns"
    return Labelled(labelled, f"{noun} {', '.join(columns)}", tuple(columns))


def _number_columns(columns: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """The columns that hold a number in most lines."""
    found = []
    for name in columns:
        numbers = sum(number_in(cells.get(name, "")) is not None for _, cells in lines)
        if name and name not in KNOWN and 2 * numbers > len(lines):
            found.append(name)
    return found


def is_manifest(csv_file: Path) -> bool:
    """Whether a CSV lists images: its columns say so."""
    try:
        columns = _columns(csv_file)
        if LABEL in columns or VALUE in columns:
            return True
        return any(_class_columns(columns, list(_lines(csv_file))))
    except DataError:
        return False


def _class_columns(columns: Sequence[str], lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """The columns that hold 0 or 1 in each line, and what is wrong with those that do in most."""
    classes = []
    faults = []
    for name in columns:
        others = [number for number, cells in lines if cells.get(name) not in ("0", "1")]
        if name in KNOWN or 2 * len(others) > len(lines) or not lines:
            continue
        if others:
            faults.append(f"line {others[0]}: neither 0 nor 1 in the column {name}")
        elif SEPARATOR in name or not name:
            faults.append(f"'{name}' can't be the name of a class")
        else:
            classes.append(name)
    return classes, faults


def _columns(csv_file: Path) -> list[str]:
    """The names of the columns, those that are known in lower case. DataError where none names the
    images.
    """
    with _opened(csv_file) as (columns, _):
        if not set(PLACES) & set(columns):
            raise _no_columns(columns, csv_file)
        return columns


def _lines(csv_file: Path) -> Iterator[Line]:
    """The lines that are not empty."""
    with _opened(csv_file) as (columns, reader):
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            cells = dict(zip(columns, map(str.strip, values), strict=False))
            if any(value.strip() for value in values[len(columns) :]):
                cells[EXTRA] = f"{len(values)} cells, and the header has {len(columns)}"
            yield reader.line_num + 1, cells


@contextmanager
def _opened(csv_file: Path) -> Iterator[tuple[list[str], Any]]:
    """The names of the columns and a reader of the lines below; DataError where it is no CSV."""
    try:
        with csv_file.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            columns = []
            for cell in next(csv.reader([header], delimiter=delimiter), []):
                name = cell.strip()
                columns.append(name.lower() if name.lower() in KNOWN else name)
            yield columns, csv.reader(file, delimiter=delimiter)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"can't read the manifest: {error}", where=csv_file, remedy="save it as CSV in UTF-8"
        ) from None


def _no_columns(columns: Sequence[str], csv_file: Path) -> DataError:
    header = ",".join(columns)[:80]
    return DataError(f"no columns path and label among '{header}'", where=csv_file, remedy=REMEDY)
