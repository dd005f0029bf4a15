"""Which photograph an annotated image is: by its path, as far as both tell one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prunedge.data.annotations.shapes import Annotated, Annotations, Drawing
from prunedge.edge.image.read import SUFFIXES
from prunedge.errors import DataError
from prunedge.utils.wording import counted, first_of

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """The drawing of each photograph by its path, and the names of annotated images of which no
    photograph is there.
    """

    drawings: dict[Path, Drawing]
    strangers: tuple[str, ...]


def match(annotations: Annotations, photos: Sequence[Path], folder: Path) -> Matched:
    """Give each annotated image its photograph: where the path that the annotations name ends with
    that within the folder, or the other way round; without suffix where they name none.

    Raises DataError where several photographs could be meant, or one is annotated twice.
    """
    named = _Index(photos, folder, has_suffix=True)
    stems = _Index(photos, folder, has_suffix=False)
    drawings: dict[Path, Drawing] = {}
    names: dict[Path, str] = {}
    strangers = []
    unclear = []
    twice = []
    for image in annotations.images:
        places = _places(image, named, stems)
        if not places:
            strangers.append(image.names[0])
        elif len(places) > 1:
            several = [place.relative_to(folder).as_posix() for place in places]
            unclear.append(f"{image.names[0]} may be {first_of(several, between=' or ')}")
        elif places[0] in drawings:
            twice.append(f"{names[places[0]]} and {image.names[0]}")
        else:
            drawings[places[0]] = image.drawing
            names[places[0]] = image.names[0]
    if unclear:
        raise DataError(
            f"{counted(len(unclear), 'annotated image')} could be several photographs: "
            f"{first_of(unclear, between='; ')}",
            where=annotations.where,
            remedy="name each with its folder, or give each photograph a name of its own",
        )
    if twice:
        raise DataError(
            f"{counted(len(twice), 'photograph is', 'photographs are')} annotated twice: "
            f"{first_of(twice, between='; ')}",
            where=annotations.where,
            remedy="keep one of both",
        )
    return Matched(drawings, tuple(strangers))


def _places(image: Annotated, named: _Index, stems: _Index) -> list[Path]:
    """The photographs that the first fitting name of an image may mean."""
    for name in image.names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        parts = tuple(part for part in parts if part not in ("/", "."))
        if not parts:
            continue
        has_suffix = PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES
        found = (named if has_suffix else stems).find(parts)
        if found:
            return found
    return []


class _Index:
    """Photographs by the last part of their path."""

    def __init__(self, photos: Sequence[Path], folder: Path, *, has_suffix: bool) -> None:
        self._by_name: dict[str, list[tuple[Parts, Path]]] = defaultdict(list)
        for photo in photos:
            inside = photo.relative_to(folder)
            parts = (inside if has_suffix else inside.with_suffix("")).parts
            self._by_name[parts[-1]].append((parts, photo))

    def find(self, wanted: Parts) -> list[Path]:
        """Those with this path; else those whose path ends with it, or that it ends with, as far as
        they have most of it.
        """
        fitting = []
        for parts, photo in self._by_name.get(wanted[-1], []):
            if parts == wanted:
                return [photo]
            shared = min(len(parts), len(wanted))
            if parts[-shared:] == wanted[-shared:]:
                fitting.append((shared, photo))
        most = max((shared for shared, _ in fitting), default=0)
        return [photo for shared, photo in fitting if shared == most]
