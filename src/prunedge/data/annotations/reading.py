"""Files of annotations as values: bounded in size, and every mishap one DataError."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.errors import DataError
from prunedge.utils.files import require_regular
from prunedge.utils.machine import pass_on_reading

MOST_BYTES = 2 * 10**9  # of one file; COCO's own largest has half a gigabyte
FORMS = (
    "give COCO (.json), Label Studio (.json), CVAT for images (.xml), or a folder of LabelMe's "
    ".json, of YOLO's .txt or of masks"
)


def read_bytes(file: Path) -> bytes:
    """A file's content. DataError where it is too large or can't be read."""
    require_regular(file, DataError)
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise DataError(
                f"{size / 1e9:.1f} GB of annotations, more than {MOST_BYTES / 1e9:g} GB",
                where=file,
                remedy="share them out over several files, or give masks as images",
            )
        return file.read_bytes()
    except OSError as error:
        pass_on_reading(error, file)
        raise DataError(
            f"can't be read ({error.strerror})", where=file, remedy="check the file and its rights"
        ) from None


def read_text(file: Path) -> str:
    """A file's text. DataError where it is none in UTF-8."""
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"this is no text in UTF-8 ({error.reason})", where=file, remedy="save it in UTF-8"
        ) from None


def read_json(file: Path) -> Any:
    """What a file of JSON holds. DataError where it is none."""
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        why = f"this is no JSON ({error})" if isinstance(error, ValueError) else "too deep a JSON"
        raise DataError(why, where=file, remedy=FORMS) from None


def points_of(pairs: object) -> np.ndarray:
    """Points [[x, y], ...] as (n, 2) float64. ValueError where they are none."""
    try:
        points = np.array(pairs, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon whose points are no pairs of numbers") from None
    if points.size == 0:
        raise ValueError("a polygon of 0 points")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError("a polygon whose points are no pairs of numbers")
    return points


def pairs_of(values: Sequence[object]) -> np.ndarray:
    """Points [x, y, x, y, ...] as (n, 2) float64. ValueError where they are none."""
    if len(values) % 2:
        raise ValueError(f"a polygon of {len(values)} numbers, which are no pairs of x and y")
    try:
        return np.array(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon whose points are no pairs of numbers") from None


def number_in(value: object, what: str) -> float:
    """A finite number. ValueError that calls it `what` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"no number as {what}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"no number as {what}") from None
    if not np.isfinite(number):
        raise ValueError(f"{what} is {number}")
    return number


def side_in(value: object, what: str) -> int:
    """A whole number of pixels. ValueError that calls it `what` where it is none."""
    number = number_in(value, what)
    if number != int(number) or number < 1:
        raise ValueError(f"{what} is {number:g}")
    return int(number)
