"""Which form annotations have: told by looking at the file or the folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunedge.data.annotations.coco import is_coco, read_coco
from prunedge.data.annotations.cvat import read_cvat
from prunedge.data.annotations.label_studio import is_label_studio, read_label_studio
from prunedge.data.annotations.labelme import is_labelme, looks_like_labelme, read_labelme
from prunedge.data.annotations.reading import FORMS, read_json
from prunedge.data.annotations.shapes import Annotations
from prunedge.data.annotations.yolo import read_yolo, texts_in
from prunedge.edge.folders import walk
from prunedge.edge.image.read import SUFFIXES
from prunedge.errors import DataError, MachineError
from prunedge.utils.files import real_path
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.wording import first_of

_SHOWN = 5  # keys of a JSON that is none of the forms


def find_annotations(place: Path, photos: Path) -> Annotations | None:
    """The annotations in a file, or in a folder; None for a folder of masks, or where there is
    nothing.

    Raises DataError for a file that has none of the forms, and where a folder holds masks and
    annotations, or several forms of these.
    """
    if place.is_dir():
        return _in_folder(place, photos)
    suffix = place.suffix.lower()
    if not place.exists():
        if suffix in (".json", ".xml"):
            raise DataError("no such file", where=place, remedy="name the file of the annotations")
        return None
    if suffix == ".xml":
        return read_cvat(place)
    if suffix == ".json":
        return _of_json(read_json(place), place)
    if suffix in (".txt", ".yaml", ".yml"):
        raise DataError(
            "one file of YOLO's", where=place, remedy="name the folder of the labels (.txt)"
        )
    raise DataError("no annotations that are known", where=place, remedy=FORMS)


def _of_json(value: Any, file: Path) -> Annotations:
    if is_coco(value):
        return read_coco(value, file)
    if is_label_studio(value):
        return read_label_studio(value, file)
    if is_labelme(value):
        return read_labelme(file.parent, [file])
    held = "an empty list" if value == [] else f"a {type(value).__name__}"
    if isinstance(value, dict):
        held = f"an object of {first_of([repr(key[:40]) for key in value], _SHOWN) or 'nothing'}"
    raise DataError(
        f"a JSON of none of the known forms: {held}",
        where=file,
        remedy=(
            "COCO has images, annotations and categories, LabelMe shapes and imagePath, and Label "
            "Studio a list of tasks with data and annotations"
        ),
    )


def _in_folder(folder: Path, photos: Path) -> Annotations | None:
    """The annotations of a folder: a JSON of LabelMe's or a text of YOLO's for each photograph."""
    files = _files_in(folder)
    by_json = [file for file in files if file.suffix.lower() == ".json"]
    ours = [file for file in by_json if looks_like_labelme(file)]
    if len(ours) not in (0, len(by_json)):
        # Among LabelMe's the JSON of a photograph is one of them, however little is left of it.
        meant = {*ours, *_named_as_photographs(by_json, photos)}
        ours = [file for file in by_json if file in meant]
    texts = texts_in(files)
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if ours and texts:
        raise DataError(
            f"annotations of LabelMe ({ours[0].name}) and of YOLO ({texts[0].name})",
            where=folder,
            remedy="put them into folders of their own",
        )
    found = ours or texts
    if not found:
        _refuse_unnamed(folder, images, files)
        return None
    # Beside photographs images are these.
    if images and not _is_same(folder, photos) and not _is_below(photos, folder):
        raise DataError(
            f"masks ({images[0].name}) and annotations ({found[0].name}): which are meant?",
            where=folder,
            remedy="put them into folders of their own",
        )
    return read_labelme(folder, ours) if ours else read_yolo(folder, texts)


def _named_as_photographs(files: Sequence[Path], photos: Path) -> list[Path]:
    """Those that are called as a photograph, with or without its suffix."""
    images = [file for file in _files_in(photos) if file.suffix.lower() in SUFFIXES]
    names = {name for image in images for name in (image.name, image.stem)}
    return [file for file in files if file.stem in names]


def _refuse_unnamed(folder: Path, images: list[Path], files: list[Path]) -> None:
    """DataError where no masks lie in a folder, but files that hold all annotations."""
    whole = [file for file in files if file.suffix.lower() in (".json", ".xml")]
    if whole and not images:
        raise DataError(
            f"no masks, but {first_of([file.name for file in whole])}",
            where=folder,
            remedy=f"name the file of the annotations: {whole[0]}",
        )


def _files_in(folder: Path) -> list[Path]:
    """All files of a folder and of those below, sorted; hidden ones are left out. MachineError
    where one can't be read.
    """

    def failed(path: str, error: OSError) -> None:
        pass_on_reading(error, path)

    files = []
    try:
        for level in walk(folder, links=True, failed=failed, too_deep=lambda path: None):
            files += [Path(level.path, name) for name in level.files if not name.startswith(".")]
    except OSError as error:
        raise MachineError(
            f"the folder can't be read ({error.strerror})", where=folder, remedy="mend that"
        ) from None
    return sorted(files)


def _is_same(folder: Path, other: Path) -> bool:
    return real_path(folder) == real_path(other)


def _is_below(folder: Path, other: Path) -> bool:
    return real_path(folder).is_relative_to(real_path(other))
