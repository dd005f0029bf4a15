"""Labels in the form of COCO: a JSON file with `images`, `categories` and `annotations`; an image
has the categories of its annotations.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from prunedge.data.records import Listing, Record, finish
from prunedge.edge.tasks.base import SEPARATOR
from prunedge.errors import DataError
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import first_mistake
from prunedge.utils.wording import counted, first_of

REMEDY = "give the JSON of COCO: images, categories and annotations"


class _Part(BaseModel):
    """What is read of an entry; COCO has more."""

    model_config = ConfigDict(strict=True, extra="ignore")


class CocoImage(_Part):
    """An image; its size in pixels is needed for masks alone."""

    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class CocoCategory(_Part):
    """A class."""

    id: int | str
    name: str


class CocoAnnotation(_Part):
    """What one place of an image shows; its segmentation is needed for masks alone."""

    image_id: int | str
    category_id: int | str
    id: int | str | None = None
    segmentation: Any = None


class CocoFile(_Part):
    """The file."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]


def is_coco(file: Path) -> bool:
    """Whether a file is named like one."""
    return file.suffix.lower() == ".json"


def list_coco(file: Path, root: Path | None = None) -> Listing:
    """The images of a COCO file, each labelled with the categories of its annotations, none where
    it has no annotation. Their paths are relative to `root`, by default the folder of the file.

    Raises DataError where it is no such file, or names images and categories that it doesn't list.
    """
    found = coco_of(_read(file), file)
    refuse_strangers(found, file)
    names = {category.id: category.name for category in found.categories}
    labels: dict[int | str, set[str]] = defaultdict(set)
    for annotation in found.annotations:
        labels[annotation.image_id].add(names[annotation.category_id])
    base = file.parent if root is None else root
    records = []
    for image in found.images:
        name = image.file_name.replace("\\", "/")
        if "\0" in name or not name:
            raise DataError(f"{image.file_name!r} is no file's name", where=file, remedy=REMEDY)
        label = SEPARATOR.join(sorted(labels[image.id]))
        records.append(Record(base / name, name, label))
    return finish(base, records, file, held="categories of annotations")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        pass_on_reading(error, file)
        raise DataError(f"can't be read ({error.strerror})", where=file, remedy=REMEDY) from None
    except (ValueError, RecursionError) as error:
        why = f"this is no JSON ({error})" if isinstance(error, ValueError) else "too deep a JSON"
        raise DataError(why, where=file, remedy=REMEDY) from None


def coco_of(value: Any, file: Path) -> CocoFile:
    """What the JSON of a COCO file holds. DataError where it is none, or has an image or a category
    twice.
    """
    if not isinstance(value, dict):
        raise DataError("this is no COCO file: it holds no object", where=file, remedy=REMEDY)
    try:
        found = CocoFile.model_validate(value)
    except ValidationError as error:
        what = f"this is no COCO file: {first_mistake(error)}"
        raise DataError(what, where=file, remedy=REMEDY) from None
    _refuse_categories(found.categories, file)
    _refuse_repeated(found.images, file)
    return found


def refuse_strangers(found: CocoFile, file: Path) -> None:
    """DataError where an annotation names an image or a category that isn't listed."""
    names = {category.id for category in found.categories}
    listed = {image.id for image in found.images}
    faults = []
    for place, annotation in enumerate(found.annotations):
        if annotation.image_id not in listed:
            faults.append(f"annotations.{place}: no image has the id {annotation.image_id!r}")
        elif annotation.category_id not in names:
            faults.append(f"annotations.{place}: no category has the id {annotation.category_id!r}")
    if faults:
        raise DataError(
            f"{counted(len(faults), 'entry', 'entries')} can't be used: {first_of(faults)}",
            where=file,
            remedy="list what is annotated, or take these annotations out",
        )


def _refuse_repeated(images: list[CocoImage], file: Path) -> None:
    """DataError where an id or a file stands there twice."""
    for what, values in (
        ("id", [image.id for image in images]),
        ("file_name", [image.file_name for image in images]),
    ):
        twice = [value for value, times in Counter(values).items() if times > 1]
        if twice:
            raise DataError(
                f"several images have the same {what}, {twice[0]!r} first",
                where=file,
                remedy="list each image once",
            )


def _refuse_categories(categories: list[CocoCategory], file: Path) -> None:
    """DataError for names that labels can't have: that of another category, and what separates
    them.
    """
    for category in categories:
        if SEPARATOR in category.name or not category.name.strip():
            raise DataError(
                f"a category can't be called '{category.name[:100]}'",
                where=file,
                remedy=f"give it a name without {SEPARATOR}",
            )
    for what in ("id", "name"):
        values = [getattr(category, what) for category in categories]
        if len(set(values)) < len(values):
            fault = f"several categories have the same {what}"
            raise DataError(fault, where=file, remedy="give each its own")
