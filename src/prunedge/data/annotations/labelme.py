"""LabelMe: a JSON a photograph, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.data.annotations import outlines
from prunedge.data.annotations.reading import FORMS, points_of, read_json, read_text, side_in
from prunedge.data.annotations.run_lengths import runs_of
from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing, Shape
from prunedge.data.decode import MOST_MEGAPIXELS
from prunedge.edge.image.photograph import opened_within
from prunedge.errors import DataError
from prunedge.utils.wording import counted, first_of

FORM = "LabelMe"
LISTS = ("classes.txt", "labels.txt")
_BEGINNING = 4096  # characters, in which a JSON of LabelMe's tells what it is


def is_labelme(value: object) -> bool:
    """Whether JSON looks like it."""
    return (
        isinstance(value, dict)
        and "shapes" in value
        and ("imagePath" in value or "imageHeight" in value)
    )


def looks_like_labelme(file: Path) -> bool:
    """Whether a file's beginning is that of such a JSON, without reading the photograph in it."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            start = opened.read(_BEGINNING)
    except OSError:
        return False
    return start.lstrip()[:1] == "{" and ('"shapes"' in start or '"imagePath"' in start)


def read_labelme(folder: Path, files: Sequence[Path]) -> Annotations:
    """The annotations of a folder. Labels are in the order of a `labels.txt` or `classes.txt` in
    it, where there is one, and else by name. DataError where a file is no such JSON, or that list
    lacks a label.
    """
    images = []
    found: set[str] = set()
    for file in files:
        value = read_json(file)
        if not is_labelme(value):
            raise DataError("no shapes and imagePath, as LabelMe has", where=file, remedy=FORMS)
        drawing = _drawing(value)
        found |= {shape.label for shape in drawing.shapes}
        images.append(Annotated(_names(value, file.relative_to(folder)), drawing))
    return Annotations(FORM, folder, _labels(folder, found), images)


def _names(value: Any, file: Path) -> tuple[str, ...]:
    """The path of the photograph that the JSON names, and the JSON's own without its suffix."""
    own = file.with_suffix("").as_posix()
    said = value.get("imagePath")
    if not isinstance(said, str) or not said.strip():
        return (own,)
    name = said.replace("\\", "/").rpartition("/")[2]
    return file.with_name(name).as_posix() if name else own, own


def _labels(folder: Path, found: set[str]) -> tuple[str, ...]:
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if not lists:
        return tuple(sorted(found))
    lines = [line.strip() for line in read_text(lists[0]).splitlines()]
    labels = tuple(dict.fromkeys(line for line in lines if line))
    missing = sorted(found - set(labels))
    if missing:
        raise DataError(
            f"{counted(len(missing), 'label')} of shapes not in {lists[0].name}: "
            f"{first_of(missing)}",
            where=lists[0],
            remedy="add what is missing, a label a line",
        )
    return labels


def _drawing(value: Any) -> Drawing:
    try:
        size = (
            side_in(value.get("imageWidth"), "imageWidth"),
            side_in(value.get("imageHeight"), "imageHeight"),
        )
        if not isinstance(value["shapes"], list):
            raise ValueError("shapes that are no list")
    except ValueError as error:
        return Drawing(None, (), str(error))
    shapes = []
    for place, entry in enumerate(value["shapes"], 1):
        try:
            shapes.append(_shape(entry))
        except ValueError as error:
            return Drawing(size, (), f"shape {place}: {error}")
    return Drawing(size, tuple(shapes))


def _shape(entry: Any) -> Shape:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError("no label")
    label = entry["label"].strip()
    kind = entry.get("shape_type") or "polygon"
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        raise ValueError(f"a {kind}, which has no area: draw a polygon around it")
    points = points_of(entry.get("points"))
    if kind == "polygon":
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return Shape(label, (points,))
    if kind == "rectangle" and len(points) == 4:  # newer versions may turn it
        return Shape(label, (points,))
    if len(points) != 2:
        raise ValueError(f"a {kind} of {len(points)} points, and not 2")
    if kind == "rectangle":
        return Shape(label, (outlines.box(*points.min(0), *points.max(0)),))
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        x, y = points[0].tolist()
        return Shape(label, (outlines.ellipse(x, y, radius, radius),))
    left, top = np.floor(points.min(0)).astype(int).tolist()
    return Shape(label, runs=runs_of(_mask(entry.get("mask")), left, top))


def _mask(text: object) -> np.ndarray:
    """The PNG of a mask, (height, width) bool. ValueError where it is none."""
    if not isinstance(text, str):
        raise ValueError("a mask without its pixels")
    try:
        content = base64.b64decode(text, validate=True)
        with opened_within(BytesIO(content), MOST_MEGAPIXELS) as image:
            return np.asarray(image.convert("L")) > 0
    except (binascii.Error, ValueError, OSError, SyntaxError, DataError):
        raise ValueError("a mask that is no PNG") from None
