"""YOLO's segmentation: a text a photograph, a line a polygon: the number of its class, and x and y
of each point in shares of width and height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunedge.data.annotations.reading import pairs_of, read_text
from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing, Shape
from prunedge.errors import DataError
from prunedge.utils.wording import first_of

FORM = "YOLO"
NAMES = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
OTHERS = {"classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt"}
MOST_BYTES_OF_NAMES = 10**6
BOX = 5  # numbers of a line that holds a box
_BEGINNING = 4096  # bytes, by which labels are told from other texts
REMEDY = "name the classes in data.yaml (names:) or classes.txt beside the texts, one in a line"


def texts_in(files: Sequence[Path]) -> list[Path]:
    """The texts of these files that belong to photographs; none where none looks like labels."""
    texts = []
    for file in files:
        name = file.name.lower()
        if file.suffix.lower() == ".txt" and name not in OTHERS and not name.startswith("readme"):
            texts.append(file)
    starts = [_start(file) for file in texts]
    is_ours = any(map(_is_line, starts)) or not any(starts)
    return texts if is_ours else []


def _start(file: Path) -> bytes:
    """The first line, as far as it goes."""
    try:
        with file.open("rb") as opened:
            return opened.readline(_BEGINNING).strip()
    except OSError:
        return b"?"


def _is_line(start: bytes) -> bool:
    """Whether a line holds as many numbers as a box or a polygon has."""
    words = start.split()
    if len(start) == _BEGINNING:
        words = words[:-1]
    try:
        return len([float(word) for word in words]) >= BOX
    except ValueError:
        return False


def read_yolo(folder: Path, texts: Sequence[Path]) -> Annotations:
    """The annotations of a folder of texts. DataError where nothing names their classes."""
    names_file = _names_file(folder)
    labels = _names(names_file)
    images = []
    for text in texts:
        name = text.relative_to(folder).with_suffix("").as_posix()
        images.append(Annotated((name,), _drawing(text, labels, names_file)))
    in_order = tuple(labels[number] for number in sorted(labels))
    return Annotations(FORM, folder, in_order, images, takes_rest_for_sound=True)


def _drawing(text: Path, labels: Mapping[int, str], names_file: Path) -> Drawing:
    shapes = []
    for number, line in enumerate(read_text(text).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            shapes.append(_shape(words, labels, names_file))
        except ValueError as error:
            return Drawing(None, (), f"line {number} of {text.name}: {error}")
    return Drawing(None, tuple(shapes))


def _shape(words: Sequence[str], labels: Mapping[int, str], names_file: Path) -> Shape:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError("what is no number") from None
    if values[0] not in labels:
        raise ValueError(f"the class {words[0]}, which {names_file.name} lacks")
    if len(values) == BOX:
        raise ValueError("a box, and no polygon")
    points = pairs_of(values[1:])
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    largest = float(np.abs(points).max())
    if largest > 2:
        raise ValueError(f"{largest:g}, which is no share of the width or height")
    return Shape(labels[int(values[0])], (points,))


def _names_file(folder: Path) -> Path:
    """What names the classes: beside the texts, or in the two folders above, as in
    DATA/labels/train.
    """
    for place in (folder, folder.parent, folder.parent.parent):
        for name in NAMES:
            if (place / name).is_file():
                return place / name
    raise DataError("nothing names the classes of YOLO's texts", where=folder, remedy=REMEDY)


def _names(file: Path) -> dict[int, str]:
    """The name of each number. DataError where the file has none."""
    if file.stat().st_size > MOST_BYTES_OF_NAMES:
        raise DataError("more than a megabyte of classes", where=file, remedy=REMEDY)
    text = read_text(file)
    if file.suffix == ".yaml":
        names = _names_in(_loaded(text, file))
    else:
        lines = [line.strip() for line in text.rstrip().splitlines()]
        names = dict(enumerate(lines))
    if not names:
        raise DataError("no names of classes", where=file, remedy=REMEDY)
    if len(set(names.values())) < len(names) or "" in names.values():
        twice = first_of(sorted(names.values()))
        raise DataError(f"a class without a name, or one twice: {twice}", where=file, remedy=REMEDY)
    return names


def _loaded(text: str, file: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:160]
        raise DataError(f"this is no YAML: {line}", where=file, remedy=REMEDY) from None


def _names_in(value: Any) -> dict[int, str]:
    names = value.get("names") if isinstance(value, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    found = {}
    for number, name in names.items():
        if type(number) is not int or isinstance(name, list | dict):
            return {}
        found[number] = str(name).strip()
    return found
