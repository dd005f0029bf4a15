"""The photographs that an inspection looked at, found again: the very files, by their digests, and
never what has taken their place since.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from prunedge.edge.image.photograph import Photo, open_photo
from prunedge.edge.image.read import Greys
from prunedge.edge.inspect.kept import AGAIN, KeptInspection
from prunedge.edge.inspect.sources import open_source
from prunedge.errors import DataError, MachineError
from prunedge.utils.checksums import file_digest
from prunedge.utils.machine import pass_on_reading

MOST_MEGAPIXELS = 200.0
DARKEST, BRIGHTEST = 1, 99  # percentiles of deep greys that are shown as black and as white


@dataclass(frozen=True)
class Photographs:
    """The photographs of an inspection. `moved_to` is where they lie now, if not where they were
    inspected; `option` is what the user would say that with.

    DataError where nothing is at `moved_to`.
    """

    inspection: KeptInspection
    moved_to: Path | None = None
    option: str = "--photos"
    max_megapixels: float = MOST_MEGAPIXELS

    def __post_init__(self) -> None:
        """A place that was mistyped would make every photograph look gone."""
        if self.moved_to is not None and not self.moved_to.exists():
            raise DataError(
                f"no such folder: {self.moved_to}",
                where=self.option,
                remedy="name the one where the photographs are now",
            )

    def open(self, name: str) -> Photo:
        """The photograph of this name, as it is shown: deep greys over their own range.

        DataError where it is gone, is another one than was inspected, or can't be read.
        """
        file = self._file(name)
        record = self.inspection.images[name]
        photo = _shown(file, self.max_megapixels)
        if (photo.width, photo.height) != (record["width"], record["height"]):
            raise DataError(
                "the photograph isn't as large as the one that was inspected",
                where=file,
                remedy=AGAIN,
            )
        return photo

    def _file(self, name: str) -> Path:
        wanted = self.inspection.images[name].get("sha256")
        if "@" in name and wanted is None:
            raise DataError("frames of videos and cameras are not kept", where=name)
        if wanted is None:
            raise DataError("nothing tells which file it was", where=name, remedy=AGAIN)
        file = self._files.get(name)
        if file is None:
            place = self._place or "nowhere that could be kept"
            raise DataError(
                f"the photograph is gone (it was looked for in {place})",
                where=name,
                remedy=f"{self.option} says where the photographs are now",
            )
        try:
            digest = file_digest(file)
        except OSError as error:
            pass_on_reading(error, file)
            raise DataError("the photograph can't be read", where=file) from None
        if digest != wanted:
            raise DataError(
                "the photograph is another one than was inspected",
                where=file,
                remedy=f"{self.option} says where the one that was inspected is",
            )
        return file

    @property
    def _place(self) -> Path | None:
        if self.moved_to is not None:
            return self.moved_to
        kept = self.inspection.about["photographs"]
        return None if kept is None else Path(kept)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The files that are there, by the names that an inspection gives them."""
        if self._place is None:
            return {}
        try:
            source = open_source(str(self._place))
        except (DataError, MachineError):
            return {}
        if source.place is None:
            return {}  # an address
        return {item.name: item.image for item in source.items if isinstance(item.image, Path)}


def _shown(file: Path, max_megapixels: float) -> Photo:
    """A photograph that can be shown, whatever the range of its greys."""
    photo = open_photo(file, max_megapixels, as_stored=True)
    part = photo.crop((0, 0, 1, 1))
    if part.mode in ("L", "RGB"):
        return photo
    values = np.asarray(photo.crop((0, 0, photo.width, photo.height)))
    low, high = np.percentile(values, (DARKEST, BRIGHTEST))
    if not low < high:
        low, high = float(values.min()), float(values.min()) + 1
    return open_photo(file, max_megapixels, Greys(float(low), float(high), mixed=True))


def small_copy(photo: Photo, longest: int) -> Image.Image:
    """A photograph (RGB) of which no side has more than so many pixels."""
    scale = min(1.0, longest / max(photo.width, photo.height))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resized(*size)
