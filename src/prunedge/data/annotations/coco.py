"""COCO's instances: polygons, and run lengths as numbers or as text."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.data.annotations.reading import pairs_of, side_in
from prunedge.data.annotations.run_lengths import coco_counts
from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing, Runs, Shape
from prunedge.data.coco import CocoAnnotation, CocoFile, CocoImage, coco_of, refuse_strangers

FORM = "COCO"


def is_coco(value: object) -> bool:
    """Whether JSON looks like it."""
    return (
        isinstance(value, dict)
        and "images" in value
        and bool({"annotations", "categories"} & value.keys())
    )


def read_coco(value: Any, file: Path) -> Annotations:
    """The annotations of a COCO file. DataError where it is none, or annotates what it doesn't
    list.
    """
    found = coco_of(value, file)
    refuse_strangers(found, file)
    labels = {category.id: category.name for category in found.categories}
    by_image: dict[int | str, list[CocoAnnotation]] = defaultdict(list)
    for annotation in found.annotations:
        by_image[annotation.image_id].append(annotation)
    images = []
    for image in found.images:
        drawing = _drawing(image, by_image[image.id], labels)
        images.append(Annotated((image.file_name,), drawing))
    return Annotations(FORM, file, _in_order(found), images)


def _in_order(found: CocoFile) -> tuple[str, ...]:
    return tuple(category.name for category in found.categories)


def _drawing(
    image: CocoImage, annotations: list[CocoAnnotation], labels: dict[int | str, str]
) -> Drawing:
    shapes = []
    try:
        if image.width is None or image.height is None:
            raise ValueError("no width and height beside its file_name")
        size = (side_in(image.width, "its width"), side_in(image.height, "its height"))
    except ValueError as error:
        return Drawing(None, (), str(error))
    for annotation in annotations:
        label = labels[annotation.category_id]
        try:
            shapes.append(_shape(annotation.segmentation, label, size))
        except ValueError as error:
            named = "" if annotation.id is None else f" {annotation.id}"
            return Drawing(size, (), f"annotation{named}, {label}: {error}")
    return Drawing(size, tuple(shapes))


def _shape(segmentation: Any, label: str, size: tuple[int, int]) -> Shape:
    """A shape from a list of polygons, or from run lengths. ValueError where it is neither."""
    if not segmentation:
        raise ValueError("no segmentation, but a box at most")
    if isinstance(segmentation, list):
        rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
        polygons = []
        for ring in rings:
            if not isinstance(ring, list):
                raise ValueError("a segmentation that is no list of polygons")
            polygons.append(pairs_of(ring))
        return Shape(label, tuple(polygons))
    if not isinstance(segmentation, dict):
        raise ValueError("a segmentation that is neither polygons nor run lengths")
    counts = segmentation.get("counts")
    height, width = _sides(segmentation.get("size"))
    if (width, height) != size:
        raise ValueError(f"a mask of {width}x{height} pixels in an image of {size[0]}x{size[1]}")
    lengths = coco_counts(counts) if isinstance(counts, str) else _plain(counts)
    return Shape(label, runs=Runs(0, 0, width, height, lengths, by_columns=True))


def _sides(value: object) -> tuple[int, int]:
    """Height and width."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("run lengths without their size [height, width]")
    return side_in(value[0], "the height of a mask"), side_in(value[1], "the width of a mask")


def _plain(counts: object) -> np.ndarray:
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError("run lengths that are no list of whole numbers")
    try:
        return np.array(counts, np.int64)
    except OverflowError:
        raise ValueError("a mask with impossible run lengths") from None
