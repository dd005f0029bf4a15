"""What the folder of an inspection keeps, so that another command can read it again: which images
it is about, which photographs they were, and what was found in each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.sources import MARK
from prunedge.edge.tasks import DEFINITIONS
from prunedge.errors import DataError
from prunedge.utils.checksums import file_digest
from prunedge.utils.files import read_text, real_path, write_bytes
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import Record as Kept
from prunedge.utils.records import require

FORMAT = "prunedge inspection"
AGAIN = "inspect the photographs again, into a new --out"

Record = dict[str, Any]


class KeptBundle(Kept):
    """The bundle that looked."""

    name: str
    model: str
    sha256: str
    task: str
    classes: list[str]


class KeptView(Kept):
    """What the model was shown of a photograph."""

    kind: str
    width: int
    height: int


class KeptSettings(Kept):
    """What counted as damage."""

    damage: list[str]
    threshold: float
    overlap: float = Field(ge=0, lt=1)
    view: KeptView | None = None


class KeptAbout(Kept):
    """inspection.json, as far as it is read again."""

    source: str
    date: str
    photographs: str | None
    settings: KeptSettings
    bundle: KeptBundle
    images: list[str]
    skipped: list[list[str]]


class KeptMap(Kept):
    """The map of damage: its squares in pixels, and how many there are."""

    cell: int = Field(ge=1)
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)


class KeptRegion(Kept):
    """A region's box, in pixels of the upright photograph."""

    label: str
    probability: float
    left: int = Field(ge=0)
    top: int = Field(ge=0)
    right: int = Field(ge=1)
    bottom: int = Field(ge=1)
    area: int = Field(ge=0)


class KeptImage(Kept):
    """NAME.json, as far as it is read again."""

    name: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    patch: list[int] = Field(min_length=2, max_length=2)
    patches: int
    map: KeptMap
    sha256: str | None = None
    regions: list[KeptRegion]


@dataclass(frozen=True)
class KeptInspection:
    """An inspection as its folder keeps it. `about` is inspection.json; `images` are the JSON of
    the images by name, worst first; `skipped` are names and reasons.
    """

    folder: Path
    about: Mapping[str, Any]
    images: Mapping[str, Record]
    skipped: tuple[tuple[str, str], ...]

    @property
    def threshold(self) -> float:
        """From which probability, or number, on an area is damaged."""
        return float(self.about["settings"]["threshold"])

    @property
    def is_of_pixels(self) -> bool:
        """Whether the model finds damage pixel by pixel."""
        return DEFINITIONS[self.about["bundle"]["task"]].reads_masks


def place_in_json(place: Path | None) -> str | None:
    """Where photographs lie, for inspection.json; None where there are none to find again, or where
    the path is no text.
    """
    if place is None:
        return None
    path = str(real_path(place))
    try:
        path.encode()
    except UnicodeEncodeError:
        return None
    return path


def with_digest(item: Item) -> Item:
    """An item whose record tells which photograph it is of; frames come from no file."""
    if not isinstance(item.image, Path):
        return item
    try:
        digest = file_digest(item.image)
    except OSError as error:
        pass_on_reading(error, item.image)
        return item  # it is gone since it was read
    return replace(item, about={**item.about, "sha256": digest})


def write_listing(
    folder: Path,
    about: Mapping[str, Any],
    records: Sequence[Record],
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Say in inspection.json which images the inspection is about, worst first: files of earlier
    ones may lie beside theirs.
    """
    listing = {
        "images": [record["name"] for record in records],
        "skipped": [list(each) for each in skipped],
    }
    mark = json.dumps({"format": FORMAT, **about, **listing}, indent=1)
    write_bytes(folder / MARK, mark.encode())


def open_inspection(folder: Path) -> KeptInspection:
    """What an inspection left in its folder.

    DataError where the folder holds none, or one that has not ended or is damaged.
    """
    about = _mark(folder)
    if "images" not in about:
        raise DataError(
            "the inspection was interrupted, or an earlier prunedge made it",
            where=folder / MARK,
            remedy="give its `prunedge inspect` command again",
        )
    _require(KeptAbout, about, folder / MARK)
    images = {name: _image(folder, name) for name in about["images"]}
    skipped = tuple((name, reason) for name, reason in about["skipped"])
    return KeptInspection(folder, about, images, skipped)


def _mark(folder: Path) -> dict[str, Any]:
    remedy = "name the --out of a `prunedge inspect`"
    file = folder / MARK
    try:
        mark = json.loads(read_text(file, DataError))
    except OSError as error:
        pass_on_reading(error, file)
        raise DataError("not the folder of an inspection", where=folder, remedy=remedy) from None
    except (ValueError, RecursionError):
        raise DataError("damaged: this is no JSON", where=file, remedy=AGAIN) from None
    if not isinstance(mark, dict) or mark.get("format") != FORMAT:
        raise DataError("not the folder of an inspection", where=folder, remedy=remedy)
    return mark


def _image(folder: Path, name: str) -> Record:
    """NAME.json, which lies below the folder."""
    file = folder / f"{name}.json"
    if real_path(folder) not in real_path(file).parents:
        raise DataError("a name leads out of the inspection", where=file, remedy=AGAIN)
    try:
        record: Record = json.loads(read_text(file, DataError))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, file)
        raise DataError(
            "what was found in this image is missing or damaged", where=file, remedy=AGAIN
        ) from None
    _require(KeptImage, record, file)
    return record


def _require(kind: type[Kept], value: Any, file: Path) -> None:
    try:
        require(kind, value)
    except ValueError as error:
        raise DataError(
            f"damaged, or of another prunedge ({error})", where=file, remedy=AGAIN
        ) from None
