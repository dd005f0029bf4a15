"""Label Studio's JSON: polygons, brushes, rectangles and ellipses in per cent of the image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from prunedge.data.annotations import outlines
from prunedge.data.annotations.reading import number_in, points_of, side_in
from prunedge.data.annotations.run_lengths import brush_mask, runs_of
from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing, Shape
from prunedge.edge.image.read import SUFFIXES
from prunedge.errors import DataError
from prunedge.utils.wording import first_of

FORM = "Label Studio"
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what is put before the name of an uploaded file
_DRAWN = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_WITHOUT_AREA = ("keypointlabels", "vectorlabels")
_REMEDY = "export the project as JSON (not JSON-MIN)"


def is_label_studio(value: object) -> bool:
    """Whether JSON looks like it: a list of tasks."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    return "data" in value[0] or _is_short(value[0])


def _is_short(task: dict[str, Any]) -> bool:
    """Whether a task looks like one of the export JSON-MIN."""
    return "annotation_id" in task or "annotator" in task


def read_label_studio(value: Any, file: Path) -> Annotations:
    """The annotations of an export. DataError where it is none, or nothing in it was annotated."""
    if _is_short(value[0]) and "data" not in value[0]:
        raise DataError("an export as JSON-MIN, which has less", where=file, remedy=_REMEDY)
    images = []
    labels: set[str] = set()
    untouched = []
    for place, task in enumerate(value):
        names = _names_of(task)
        if not names:
            raise DataError(
                f"the task {place} names no image", where=file, remedy="name it in data.image"
            )
        given = _given(task)
        if not given:
            untouched.append(names[0])
            continue
        drawing = _drawing(given)
        labels |= {shape.label for shape in drawing.shapes}
        images.append(Annotated(names, drawing))
    if not images:
        raise DataError(
            f"no task has been annotated: {first_of(untouched)}", where=file, remedy=_REMEDY
        )
    return Annotations(FORM, file, tuple(sorted(labels)), images)


def _names_of(task: Any) -> tuple[str, ...]:
    """The path of a task's image, and without what uploading puts before its name."""
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        return ()
    texts = [text for text in data.values() if isinstance(text, str)]
    for text in (data.get("image"), data.get("img"), *texts):
        path = _path_in(text) if isinstance(text, str) else ""
        if Path(path).suffix.lower() in SUFFIXES:
            name = path.rpartition("/")[2]
            plain = _UPLOAD.sub("", name)
            # What was uploaded lies in folders of the server's own.
            return (path, name) if plain == name else (path, name, plain)
    return ()


def _path_in(text: str) -> str:
    """The path in an address: that of a file on the server's disk stands behind ?d=."""
    parts = urlsplit(text.replace("\\", "/"))
    behind = parse_qs(parts.query).get("d")
    path = behind[0] if behind else unquote(parts.path)
    return path.lstrip("/")


def _given(task: Any) -> list[dict[str, Any]]:
    """What people have drawn of a task: not what was skipped; what is the truth where one says
    so.
    """
    given = []
    for annotation in task.get("annotations") or task.get("completions") or []:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            given.append(annotation)
    true = [annotation for annotation in given if annotation.get("ground_truth")]
    return true if len(true) == 1 else given


def _drawing(given: list[dict[str, Any]]) -> Drawing:
    if len(given) > 1:
        return Drawing(None, (), f"{len(given)} annotations of it, none of which is the truth")
    results = given[0].get("result")
    if not isinstance(results, list):
        return Drawing(None, (), "an annotation without a result")
    size = None
    shapes = []
    for place, result in enumerate(results, 1):
        try:
            kind = result.get("type") if isinstance(result, dict) else None
            if kind in _WITHOUT_AREA:
                raise ValueError(f"{kind}, which have no area: draw polygons")
            if kind not in _DRAWN:
                continue  # a choice, a text, the outline of a shape that comes with its label
            own = (
                side_in(result.get("original_width"), "original_width"),
                side_in(result.get("original_height"), "original_height"),
            )
            if size is not None and own != size:
                raise ValueError(f"of an image of {own[0]}x{own[1]}, others of {size[0]}x{size[1]}")
            size = own
            shapes.append(_shape(result, kind, size))
        except ValueError as error:
            return Drawing(size, (), f"result {place}: {error}")
    return Drawing(size, tuple(shapes))


def _shape(result: dict[str, Any], kind: str, size: tuple[int, int]) -> Shape:
    """A shape, in pixels. ValueError where it can't be drawn."""
    value = result.get("value")
    if not isinstance(value, dict):
        raise ValueError("no value")
    if result.get("image_rotation"):
        raise ValueError("drawn on an image that was turned in the editor")
    label = _label(value.get(kind))
    if kind == "brushlabels":
        if value.get("format", "rle") != "rle" or not isinstance(value.get("rle"), list):
            raise ValueError("a brush without its rle")
        return Shape(label, runs=runs_of(brush_mask(value["rle"], *size)))
    if kind == "polygonlabels":
        points = points_of(value.get("points"))
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return Shape(label, (points * size / 100,))
    width, height = size
    x, y = _of(value, "x", width), _of(value, "y", height)
    degrees = number_in(value.get("rotation", 0), "rotation")
    if kind == "rectanglelabels":
        right = x + _of(value, "width", width)
        bottom = y + _of(value, "height", height)
        return Shape(label, (outlines.turned(outlines.box(x, y, right, bottom), degrees, x, y),))
    across, down = _of(value, "radiusX", width), _of(value, "radiusY", height)
    return Shape(label, (outlines.turned(outlines.ellipse(x, y, across, down), degrees, x, y),))


def _of(value: dict[str, Any], name: str, side: int) -> float:
    """What is given in per cent, in pixels."""
    return number_in(value.get(name), name) * side / 100


def _label(labels: object) -> str:
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError("not one label")
    return labels[0].strip()
