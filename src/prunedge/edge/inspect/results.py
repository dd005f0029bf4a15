"""The folder of an inspection: files of each image, tables and a page of all. Every write is
atomic, so that it can be gone on with.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from prunedge.edge.image.photograph import Photo
from prunedge.edge.inspect.exports import Outputs, written
from prunedge.edge.inspect.image_record import ImageRecord
from prunedge.edge.inspect.inspection import Inspection
from prunedge.edge.inspect.items import Item
from prunedge.edge.inspect.overlay import draw_overlay, grey_map
from prunedge.edge.inspect.page import render_page
from prunedge.edge.inspect.sources import MARK
from prunedge.edge.inspect.tables import findings_table, images_table
from prunedge.edge.inspect.width_overlay import draw_widths
from prunedge.edge.inspect.written_files import (
    FILES,
    files_for_all,
    files_written,
    is_record_of,
)
from prunedge.errors import DataError
from prunedge.utils.files import clear_below, held, is_ours, make_folder, read_text, write_bytes
from prunedge.utils.machine import pass_on_reading
from prunedge.utils.records import require

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """A folder of results. `about` says what was inspected with what: source, bundle, settings,
    device, date.

    `is_new` says that no inspection had written there before; `outputs` is what is written for all
    images. `earlier` are the files for all images that earlier inspections wrote, and `removed`
    what was taken away of theirs.
    """

    path: Path
    about: Mapping[str, Any]
    is_new: bool = False
    outputs: Outputs = field(default_factory=Outputs)
    earlier: frozenset[str] = frozenset()
    removed: list[str] = field(default_factory=list)

    @property
    def files(self) -> frozenset[str]:
        """What this inspection writes for all images, beside its page and tables."""
        return files_for_all(self.outputs.formats, self.outputs.has_cards)

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
        if self._classes():
            suffixes.append(".widths.jpg")
        is_whole = all(self._file(item.name, suffix).is_file() for suffix in suffixes)
        return dict(record) if is_whole and record["key"] == self._key(item) else None

    def keep(self, item: Item, inspection: Inspection, photo: Photo) -> Record:
        """Write an image's overlay, map, mask and widths, where it has them, and, when those are
        there, its JSON; returns that.
        """
        started, overlay, grey = perf_counter(), io.BytesIO(), io.BytesIO()
        draw_overlay(photo, inspection, self.about["settings"]["threshold"]).save(
            overlay, "JPEG", quality=88
        )
        grey_map(inspection.map).save(grey, "PNG")
        is_known = is_record_of(self._file(item.name, ".json"), item.name)
        self._write(self._file(item.name, ".overlay.jpg"), overlay.getvalue())
        self._write(self._file(item.name, ".map.png"), grey.getvalue())
        if inspection.mask is not None:
            self._write(self._file(item.name, ".mask.png"), _mask_png(inspection))
        elif is_known:
            self._remove(f"{item.name}.mask.png")
        if inspection.width_classes is not None:
            widths = io.BytesIO()
            image = draw_widths(photo, inspection, inspection.width_classes)
            image.save(widths, "JPEG", quality=90)
            self._write(self._file(item.name, ".widths.jpg"), widths.getvalue())
        elif is_known:
            self._remove(f"{item.name}.widths.jpg")
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
        self._write(self.path / "findings.csv", findings_table(records, self.outputs.table))
        self._write(self.path / "images.csv", self._images_table(records, skipped))
        for name, content in written(self.outputs.formats, records, self.about).items():
            self._write(self.path / name, content)
        for name in sorted(self.earlier - self.files):
            self._remove(name)
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

    def _images_table(self, records: Sequence[Record], skipped: Sequence[tuple[str, str]]) -> bytes:
        return images_table(records, skipped, self.outputs.table, self._classes())

    def _classes(self) -> Sequence[str]:
        """The names of the classes of widths; none without a table of these."""
        classes = self.about["settings"].get("width_classes")
        return () if classes is None else tuple(classes["names"])

    def _file(self, name: str, suffix: str) -> Path:
        return self.path / f"{name}{suffix}"

    def _key(self, item: Item) -> str:
        decides = [self.about["bundle"]["sha256"], self.about["settings"], item.stamp]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def _remove(self, name: str) -> None:
        """Take a file away that an earlier inspection wrote and this one doesn't."""
        file = self.path / name
        if file.is_file():
            file.unlink()
            self.removed.append(name)

    def _write(self, file: Path, content: bytes) -> None:
        make_folder(file.parent)
        write_bytes(file, content)


@contextmanager
def open_results(
    path: Path, about: Mapping[str, Any], outputs: Outputs | None = None
) -> Iterator[Results]:
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
            results = Results(path, about, is_new, outputs or Outputs(), files_written(path))
            files = sorted(results.earlier | results.files)
            mark = json.dumps({"format": "prunedge inspection", **about, FILES: files}, indent=1)
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
