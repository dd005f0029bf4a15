"""The folder of an inspection: files of each image, tables and a page of all. Every write is
atomic, so that it can be gone on with.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.overlay import draw_overlay, grey_map
from prunedge.edge.inspect.page import render_page
from prunedge.edge.inspect.sources import MARK
from prunedge.errors import DataError
from prunedge.utils.files import clear_below, held, is_ours, make_folder, read_text, write_bytes
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import Record as Kept
from prunedge.utils.records import require

Record = dict[str, Any]
COLUMNS = (
    "image",
    "region",
    "label",
    "probability",
    "mean_probability",
    "left",
    "top",
    "right",
    "bottom",
    "width",
    "height",
    "area",
    "width_mm",
    "height_mm",
    "area_mm2",
    "latitude",
    "longitude",
    "altitude_m",
    "time_s",
    "taken",
)


# What is measured of damage that is found pixel by pixel, behind its box.
MEASURES = (
    "length_px",
    "mean_width_px",
    "largest_width_px",
    "direction_deg",
    "length_mm",
    "mean_width_mm",
    "largest_width_mm",
)
# The numbers of a model that predicts some, behind the probabilities that they stand for.
NUMBERS = ("number", "mean_number")


class RegionRecord(Kept):
    """A damaged region, as far as pages and tables read it."""

    label: str
    probability: float
    left: int
    top: int
    width: int
    height: int
    width_mm: float = 0.0
    height_mm: float = 0.0


class PositionRecord(Kept):
    """Where an image was taken."""

    latitude: float
    longitude: float
    altitude_m: float | None


class ImageRecord(Kept):
    """NAME.json: what was found in an image, as far as pages and tables read it."""

    key: str
    name: str
    width: int
    height: int
    patches: int
    damaged: int
    probability: float
    span: list[float] | None = None
    numbers: dict[str, float] = Field(default_factory=dict)
    damaged_share: float
    severity: float
    has_mask: bool = False
    seconds: float
    seconds_drawing: float
    notes: list[str]
    taken: str = ""
    position: PositionRecord | None
    regions: list[RegionRecord]


@dataclass(frozen=True)
class Results:
    """A folder of results. `about` says what was inspected with what: source, bundle, settings,
    device, date.

    `is_new` says that no inspection had written there before.
    """

    path: Path
    about: Mapping[str, Any]
    is_new: bool = False

    def withdraw(self) -> None:
        """Take the mark away from a new folder that nothing else has come into: an inspection that
        found no image leaves none behind.
        """
        names = {entry.name for entry in self.path.iterdir() if not is_ours(entry.name)}
        if self.is_new and names == {MARK}:
            (self.path / MARK).unlink()

    def known(self, item: Item) -> Record | None:
        """What an earlier run found in the same image with the same model and settings, if all
        its files are there.
        """
        try:
            record = json.loads(read_text(self._file(item.name, ".json")))
            require(ImageRecord, record)
        except (OSError, ValueError, RecursionError):
            return None
        suffixes = [".overlay.jpg", ".map.png"]
        if record.get("has_mask"):
            suffixes.append(".mask.png")
        is_whole = all(self._file(item.name, suffix).is_file() for suffix in suffixes)
        return dict(record) if is_whole and record["key"] == self._key(item) else None

    def keep(self, item: Item, inspection: Inspection, photo: Photo) -> Record:
        """Write an image's overlay, map and mask, where it has one, and, when those are there, its
        JSON; returns that.
        """
        started, overlay, grey = perf_counter(), io.BytesIO(), io.BytesIO()
        draw_overlay(photo, inspection, self.about["settings"]["threshold"]).save(
            overlay, "JPEG", quality=88
        )
        grey_map(inspection.map).save(grey, "PNG")
        self._write(self._file(item.name, ".overlay.jpg"), overlay.getvalue())
        self._write(self._file(item.name, ".map.png"), grey.getvalue())
        if inspection.mask is not None:
            self._write(self._file(item.name, ".mask.png"), _mask_png(inspection))
        record = {
            **inspection.to_json(),
            **item.about,
            "has_mask": inspection.mask is not None,
            "seconds_drawing": perf_counter() - started,
            "key": self._key(item),
        }
        self._write(self._file(item.name, ".json"), json.dumps(record, indent=1).encode())
        return record

    def summarise(self, records: Sequence[Record], skipped: Sequence[tuple[str, str]]) -> Path:
        """Write the tables and the page of all images (worst first); returns the page."""
        self._write(self.path / "findings.csv", _table(records).encode())
        places = [_feature(record) for record in records if record["position"]]
        geojson = self.path / "findings.geojson"
        if places:
            self._write(
                geojson,
                json.dumps({"type": "FeatureCollection", "features": places}, indent=1).encode(),
            )
        else:
            geojson.unlink(missing_ok=True)
        page = self.path / "inspection.html"
        self._write(
            page,
            render_page(
                self.path, self.about, records, skipped, images_per_second(records)
            ).encode(),
        )
        return page

    def _file(self, name: str, suffix: str) -> Path:
        return self.path / f"{name}{suffix}"

    def _key(self, item: Item) -> str:
        decides = [self.about["bundle"]["sha256"], self.about["settings"], item.stamp]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def _write(self, file: Path, content: bytes) -> None:
        make_folder(file.parent)
        write_bytes(file, content)


@contextmanager
def open_results(path: Path, about: Mapping[str, Any]) -> Iterator[Results]:
    """The folder for an inspection's results: new, empty or of an earlier inspection, and held for
    writing until the block ends. A new one that nothing came into is gone afterwards.

    DataError when it holds something else, InUse when another inspection writes there.
    """
    _refuse_foreign(path)
    is_new = not (path / MARK).exists()
    make_folder(path)
    try:
        with held(path, "inspection"):
            _refuse_foreign(path)  # another process may have been faster
            results = Results(path, about, is_new)
            mark = json.dumps({"format": "prunedge inspection", **about}, indent=1)
            results._write(path / MARK, mark.encode())
            clear_below(path)
            yield results
    finally:
        if is_new:
            with suppress(OSError):  # something came, or the folder is not ours to remove
                path.rmdir()


def _refuse_foreign(path: Path) -> None:
    """DataError where a folder holds something else than an inspection."""
    if not path.exists():
        return
    is_empty = path.is_dir() and all(is_ours(entry.name) for entry in path.iterdir())
    if not is_empty and not (path.is_dir() and _is_an_inspection(path / MARK)):
        raise DataError(
            "the folder holds something else than an inspection",
            where=path,
            remedy="choose another --out",
        )


def worst_first(records: Sequence[Record]) -> list[Record]:
    """Records by how much of the image is damaged if the map is right, then by their surest
    patch, then by name.
    """
    return sorted(
        records, key=lambda record: (-record["severity"], -record["probability"], record["name"])
    )


def images_per_second(records: Sequence[Record]) -> float:
    """How fast they were read, inspected and drawn."""
    seconds = sum(record["seconds"] + record.get("seconds_drawing", 0) for record in records)
    return len(records) / seconds if seconds else 0.0


def _is_an_inspection(mark: Path) -> bool:
    try:
        record = json.loads(read_text(mark))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, mark)
        return False
    return isinstance(record, dict) and record.get("format") == "prunedge inspection"


def _table(records: Sequence[Record]) -> str:
    """One line for each region."""
    text = io.StringIO()
    regions = [region for record in records for region in record["regions"]]
    place = COLUMNS.index("left")
    columns = list(COLUMNS)
    if any(NUMBERS[0] in region for region in regions):
        columns[place:place] = NUMBERS
    if any(MEASURES[0] in region for region in regions):
        place = columns.index("latitude")
        columns[place:place] = MEASURES
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for record in records:
        shared = {**record, **(record["position"] or {}), "image": _cell(record["name"])}
        for number, region in enumerate(record["regions"], 1):
            writer.writerow({**shared, **region, "region": number, "label": _cell(region["label"])})
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def _mask_png(inspection: Inspection) -> bytes:
    """The mask of a photograph at its size: white where there is damage."""
    assert inspection.mask is not None
    image = Image.fromarray(inspection.mask.astype(np.uint8) * np.uint8(255))
    size = (inspection.width, inspection.height)
    content = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(content, "PNG")
    return content.getvalue()


def _feature(record: Record) -> dict[str, Any]:
    position = record["position"]
    point = [position["longitude"], position["latitude"]] + (
        [position["altitude_m"]] if position["altitude_m"] is not None else []
    )
    worst = record["regions"][0]["label"] if record["regions"] else None
    keys = ("probability", "numbers", "damaged_share", "severity", "width", "height")
    figures = {key: record[key] for key in keys if key in record}
    properties = {
        "image": record["name"],
        "regions": len(record["regions"]),
        "label": worst,
        **figures,
        "findings": record["regions"],
    }
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": point},
        "properties": properties,
    }
