"""The tables of an inspection: a row for each region, and a row for each image, as spreadsheets
open them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prunedge.edge.inspect.widths import count_classes, count_unmeasured
from prunedge.errors import DataError

Record = Mapping[str, Any]
Decimal = Literal["point", "comma"]

# Without these three bytes Excel takes UTF-8 for the system's own encoding.
ENCODING = "utf-8-sig"

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
# What is measured of damage that is found pixel by pixel, behind its box; each with its expanded
# uncertainty (k = 2).
MEASURES = (
    "area_mm2_uncertainty",
    "length_px",
    "length_px_uncertainty",
    "mean_width_px",
    "mean_width_px_uncertainty",
    "largest_width_px",
    "largest_width_px_uncertainty",
    "direction_deg",
    "length_mm",
    "length_mm_uncertainty",
    "mean_width_mm",
    "mean_width_mm_uncertainty",
    "largest_width_mm",
    "largest_width_mm_uncertainty",
)
# By a table of widths.
CLASSES = ("width_class", "width_class_is_sure")
UNMEASURED = "width not measured"
# The numbers of a model that predicts some, behind the probabilities that they stand for.
NUMBERS = ("number", "mean_number")

IMAGE_COLUMNS = (
    "image",
    "result",
    "regions",
    "label",
    "probability",
    "damaged_share",
    "severity",
    "width",
    "height",
    "patches",
    "damaged",
    "mm_per_pixel",
    "mm_per_pixel_uncertainty",
    "latitude",
    "longitude",
    "altitude_m",
    "time_s",
    "taken",
    "notes",
)
DAMAGED, UNDAMAGED, SKIPPED = "damage", "no damage found", "not inspected"


@dataclass(frozen=True)
class TableFormat:
    """How numbers are written: with a decimal `point` and commas between the columns, or with a
    decimal `comma` and semicolons, as spreadsheets of many languages read them.
    """

    decimal: Decimal = "point"

    def written(self, columns: Sequence[str], rows: Iterable[Record]) -> bytes:
        """A table as the bytes of a file. Keys that are no column are left out, and missing ones
        empty.
        """
        is_point = self.decimal == "point"
        text = io.StringIO()
        writer = csv.DictWriter(
            text,
            columns,
            extrasaction="ignore",
            lineterminator="\n",
            delimiter="," if is_point else ";",
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({name: self._cell(row.get(name)) for name in columns})
        return text.getvalue().encode(ENCODING)

    def _cell(self, value: object) -> object:
        if isinstance(value, str):
            return _harmless(value)
        if isinstance(value, float) and self.decimal == "comma":
            return str(value).replace(".", ",")
        return value


def parse_table_format(decimal: str) -> TableFormat:
    """`point` or `comma`; DataError where it is neither."""
    if decimal == "point":
        return TableFormat("point")
    if decimal == "comma":
        return TableFormat("comma")
    raise DataError(
        f"'{decimal}' is no decimal sign",
        where="--decimal",
        remedy="give --decimal point or --decimal comma",
    )


def findings_table(records: Sequence[Record], table: TableFormat) -> bytes:
    """A row for each region, worst first."""
    regions = [region for record in records for region in record["regions"]]
    columns = list(COLUMNS)
    if any(NUMBERS[0] in region for region in regions):
        place = columns.index("left")
        columns[place:place] = NUMBERS
    place = columns.index("latitude")
    if any(CLASSES[0] in region for region in regions):
        columns[place:place] = CLASSES
    if any("length_px" in region for region in regions):
        columns[place:place] = MEASURES
    return table.written(columns, _region_rows(records))


def images_table(
    records: Sequence[Record],
    skipped: Sequence[tuple[str, str]],
    table: TableFormat,
    classes: Sequence[str] = (),
) -> bytes:
    """A row for each image, also for those without damage and those that could not be inspected,
    whose reason stands in `notes`; and how many regions it has of each of these `classes` of width.
    """
    names = dict.fromkeys(name for record in records for name in record.get("numbers", {}))
    columns = list(IMAGE_COLUMNS)
    place = columns.index("damaged_share")
    columns[place:place] = [name for name in names if name not in columns]
    place = columns.index("mm_per_pixel")
    if classes:
        columns[place:place] = [*(_class_column(name) for name in classes), UNMEASURED]
    rows = [_image_row(record, classes) for record in records]
    for name, reason in skipped:
        rows.append({"image": name, "result": SKIPPED, "notes": reason})
    return table.written(columns, rows)


def _region_rows(records: Sequence[Record]) -> Iterable[Record]:
    for record in records:
        shared = {**record, **(record["position"] or {}), "image": record["name"]}
        for number, region in enumerate(record["regions"], 1):
            yield {**shared, **region, "region": number}


def _class_column(name: str) -> str:
    return f"width {name}"


def _image_row(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    regions = record["regions"]
    scale = record.get("scale") or {}
    counts, _ = count_classes([record], classes)
    return {
        **record.get("numbers", {}),
        **record,
        **{_class_column(name): count for name, count in counts.items()},
        UNMEASURED: count_unmeasured([record]),
        "mm_per_pixel_uncertainty": scale.get("uncertainty"),
        **(record["position"] or {}),
        "image": record["name"],
        "result": DAMAGED if regions else UNDAMAGED,
        "regions": len(regions),
        "label": regions[0]["label"] if regions else "",
        "notes": "; ".join(record["notes"]),
    }


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text
