"""CVAT for images 1.1: XML with polygons, boxes, ellipses and masks of each image.

It is read as a stream, and a DOCTYPE ends it: entities, which can blow up a small file, are only
declared there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from prunedge.data.annotations import outlines
from prunedge.data.annotations.reading import FORMS, number_in, points_of, read_bytes, side_in
from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing, Runs, Shape
from prunedge.errors import DataError
from prunedge.utils.wording import first_of

FORM = "CVAT"
DEEPEST = 50  # elements in elements
_CHUNK = 1 << 20
_LINES = ("polyline", "points", "skeleton", "cuboid")
_AREAS = ("polygon", "box", "ellipse", "mask")
_REMEDY = "export the task as 'CVAT for images 1.1'"


class _Refused(Exception):
    """Why this is not what CVAT writes."""


def read_cvat(file: Path) -> Annotations:
    """The annotations of an XML file. DataError where it is none of CVAT's for images."""
    target = _Reader()
    parser = ElementTree.XMLParser(target=target)
    content = read_bytes(file)
    try:
        for start in range(0, len(content), _CHUNK):
            parser.feed(content[start : start + _CHUNK])
        parser.close()
    except _Refused as error:
        raise DataError(str(error), where=file, remedy=_REMEDY) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"this is no XML: {error}", where=file, remedy=FORMS) from None
    if target.root != "annotations":
        raise DataError(
            f"an XML of <{target.root}>, and not CVAT's <annotations>", where=file, remedy=_REMEDY
        )
    if not target.images:
        raise DataError("no <image> in it", where=file, remedy=_REMEDY)
    labels = tuple(dict.fromkeys(target.labels))
    _refuse_unlisted(target, labels, file)
    return Annotations(FORM, file, labels, target.images)


def _refuse_unlisted(target: _Reader, labels: tuple[str, ...], file: Path) -> None:
    """DataError where shapes have labels that the task's own list lacks."""
    shapes = [shape for image in target.images for shape in image.drawing.shapes]
    missing = sorted({shape.label for shape in shapes} - set(labels))
    if missing:
        raise DataError(
            f"labels of shapes that <labels> of <meta> lacks: {first_of(missing)}",
            where=file,
            remedy="list each as <label><name>...</name></label>",
        )


class _Reader:
    """What is told of each element: the labels of the task, and the shapes of each image."""

    def __init__(self) -> None:
        self.root = ""
        self.labels: list[str] = []
        self.images: list[Annotated] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._image: Mapping[str, str] = {}
        self._shapes: list[tuple[int, Shape]] = []
        self._fault: str | None = None

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refused, before it can declare anything."""
        raise _Refused("an XML with a DOCTYPE, which CVAT doesn't write")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        if not self._path:
            self.root = tag
        self._path.append(tag)
        self._text = []
        if len(self._path) > DEEPEST:
            raise _Refused("an XML that is deeper than CVAT writes")
        if self._path == ["annotations", "track"]:
            raise _Refused("tracks of a video (CVAT for video)")
        if self._path == ["annotations", "image"]:
            self._image = attributes
            self._shapes = []
            self._fault = None
        elif self._path[:-1] == ["annotations", "image"] and self._fault is None:
            try:
                self._take(tag, attributes)
            except ValueError as error:
                place = f"shape {len(self._shapes) + 1}"
                self._fault = f"{place}, {attributes.get('label', tag)}: {error}"

    def data(self, text: str) -> None:
        """Text in an element, which matters in a label's name alone."""
        if self._path[-2:] == ["label", "name"]:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """An element ends."""
        if self._path[-3:] == ["labels", "label", "name"]:
            self.labels.append("".join(self._text).strip())
        elif self._path == ["annotations", "image"]:
            self.images.append(self._annotated())
        self._path.pop()

    def close(self) -> None:
        """The end of the file."""

    def _take(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Take in a shape. ValueError where it can't be drawn."""
        if tag in _LINES:
            raise ValueError(f"a {tag}, which has no area: draw a polygon around it")
        if tag not in _AREAS:
            return  # a tag of the whole image
        if not attributes.get("label"):
            raise ValueError("no label")
        above = int(number_in(attributes.get("z_order", "0"), "z_order"))
        self._shapes.append((above, _shape(tag, attributes)))

    def _annotated(self) -> Annotated:
        """The image that has ended, with what lies above last."""
        name = self._image.get("name", "")
        if not name:
            raise _Refused("an <image> without a name")
        try:
            size = (
                side_in(self._image.get("width"), "its width"),
                side_in(self._image.get("height"), "its height"),
            )
        except ValueError as error:
            return Annotated((name,), Drawing(None, (), str(error)))
        ordered = sorted(self._shapes, key=lambda pair: pair[0])
        shapes = () if self._fault else tuple(shape for _, shape in ordered)
        return Annotated((name,), Drawing(size, shapes, self._fault))


def _shape(tag: str, attributes: Mapping[str, str]) -> Shape:
    label = attributes["label"]
    if tag == "mask":
        return Shape(label, runs=_runs(attributes))
    if tag == "polygon":
        points = points_of([pair.split(",") for pair in attributes.get("points", "").split(";")])
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return Shape(label, (points,))
    degrees = number_in(attributes.get("rotation", "0"), "rotation")
    if tag == "box":
        left, top, right, bottom = _numbers(attributes, ("xtl", "ytl", "xbr", "ybr"))
        points = outlines.box(left, top, right, bottom)
        return Shape(label, (outlines.turned(points, degrees, *points.mean(0)),))
    x, y, across, down = _numbers(attributes, ("cx", "cy", "rx", "ry"))
    return Shape(label, (outlines.turned(outlines.ellipse(x, y, across, down), degrees, x, y),))


def _numbers(attributes: Mapping[str, str], names: tuple[str, ...]) -> list[float]:
    return [number_in(attributes.get(name), name) for name in names]


def _runs(attributes: Mapping[str, str]) -> Runs:
    """The runs of a mask, row after row of its box, of which the first lies outside."""
    left, top = (int(value) for value in _numbers(attributes, ("left", "top")))
    width = side_in(attributes.get("width"), "the width of a mask")
    height = side_in(attributes.get("height"), "the height of a mask")
    try:
        counts = np.array([int(count) for count in attributes.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise ValueError("a mask whose rle is no list of whole numbers") from None
    return Runs(left, top, width, height, counts)
