"""Findings as other programs read them: COCO and Label Studio, to correct them and learn from them
again, and polygons on a map.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from prunedge.edge.inspect.footprint import Footprint
from prunedge.edge.inspect.tables import TableFormat
from prunedge.errors import DataError

Record = Mapping[str, Any]
Outline = list[tuple[float, float]]

COCO, LABEL_STUDIO, GEOJSON = "coco", "label-studio", "geojson"
LOCAL_FILES = "/data/local-files/?d="  # how Label Studio names files of its own machine
FILES_OF_FORMATS = {
    COCO: ("coco.json",),
    LABEL_STUDIO: ("label-studio.json", "label-studio.xml"),
    GEOJSON: ("regions.geojson",),
}
# What a region's properties leave out: its outline is the geometry.
NOT_PROPERTIES = ("polygon",)


@dataclass(frozen=True)
class Outputs:
    """What is written for all images, beside the page: tables in this form, which `formats`, and
    whether there will be cards.
    """

    table: TableFormat = field(default_factory=TableFormat)
    formats: tuple[str, ...] = ()
    has_cards: bool = False


def parse_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Names of formats, each once. DataError where there is none of a name."""
    for name in names:
        if name not in WRITERS:
            raise DataError(
                f"'{name}' can't be written",
                where="--write",
                remedy=f"choose {', '.join(WRITERS)}",
            )
    return tuple(dict.fromkeys(names))


def written(
    formats: Sequence[str], records: Sequence[Record], about: Mapping[str, Any]
) -> dict[str, bytes]:
    """The files of these formats, by name. `about` is what was inspected with what."""
    files: dict[str, bytes] = {}
    for name in formats:
        files |= WRITERS[name](records, about)
    return files


def left_out(formats: Sequence[str], records: Sequence[Record]) -> list[tuple[str, str]]:
    """Images, and what of them is not in the files of these formats, with the reason."""
    lines = []
    for record in records:
        missing = _place(record).get("missing")
        if GEOJSON in formats and record["regions"] and missing:
            lines.append((record["name"], f"not in regions.geojson: {missing}"))
        without = sum(outline_of(record, region) is None for region in record["regions"])
        if without:
            lines.append((record["name"], f"{without:,} of its regions have no outline"))
    return lines


def outline_of(record: Record, region: Record) -> Outline | None:
    """A region's outline as (x, y) in pixels of the upright photograph, without its first point
    again at the end: its polygon, or the box of one that is made of patches. None where damage was
    found pixel by pixel and its outline was not traced.
    """
    if "polygon" in region:
        points = [(float(x), float(y)) for x, y in region["polygon"]]
        if points and points[0] == points[-1]:
            points.pop()
        # A ring has at least three points.
        return points if len(points) >= 3 else _box(region)
    return None if record.get("has_mask") else _box(region)


def _place(record: Record) -> Mapping[str, Any]:
    """Where a photograph lies, or what is `missing` for that."""
    return record.get("footprint") or {"missing": "its place is not in its record"}


def _box(region: Record) -> Outline:
    left, top, right, bottom = (region[side] for side in ("left", "top", "right", "bottom"))
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _outlined(record: Record) -> Iterator[tuple[int, Record, Outline]]:
    """The number, the record and the outline of each region that has one."""
    for number, region in enumerate(record["regions"], 1):
        outline = outline_of(record, region)
        if outline is not None:
            yield number, region, outline


@dataclass(frozen=True)
class CocoFinding:
    """An annotation by COCO's names, with a `score`: its outline, box and area in pixels."""

    id: int
    image_id: int
    category_id: int
    segmentation: list[list[float]]
    bbox: list[float]
    area: float
    score: float
    iscrowd: int = 0


def _coco(records: Sequence[Record], about: Mapping[str, Any]) -> dict[str, bytes]:
    """Object detection as https://cocodataset.org/#format-data has it, with a `score` for each
    annotation. Images without damage have no annotation.
    """
    classes = about["settings"]["damage"]
    numbers = {name: number for number, name in enumerate(classes, 1)}
    images = []
    annotations: list[dict[str, Any]] = []
    for place, record in enumerate(records, 1):
        images.append(
            {
                "id": place,
                "file_name": record["name"],
                "width": record["width"],
                "height": record["height"],
            }
        )
        for _, region, outline in _outlined(record):
            annotation = CocoFinding(
                id=len(annotations) + 1,
                image_id=place,
                category_id=numbers[region["label"]],
                segmentation=[[value for point in outline for value in point]],
                bbox=[region["left"], region["top"], region["width"], region["height"]],
                area=region["area"],
                score=region["probability"],
            )
            annotations.append(asdict(annotation))
    described = f"found by {about['bundle']['name']}, prunedge {about['versions']['prunedge']}"
    document = {
        "info": {"description": described, "date_created": about["date"]},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": "damage"}
            for name, number in numbers.items()
        ],
    }
    return {"coco.json": _json(document)}


def _label_studio(records: Sequence[Record], about: Mapping[str, Any]) -> dict[str, bytes]:
    """Tasks with predictions (https://labelstud.io/guide/predictions), and the labelling interface
    that they are of. Points are percent of the image's sides.
    """
    version = f"{about['bundle']['name']} {about['bundle']['sha256'][:12]}"
    tasks = []
    for record in records:
        result = []
        for number, region, outline in _outlined(record):
            result.append(
                {
                    "id": f"region-{number}",
                    "type": "polygonlabels",
                    "from_name": "damage",
                    "to_name": "image",
                    "original_width": record["width"],
                    "original_height": record["height"],
                    "image_rotation": 0,
                    "score": region["probability"],
                    "value": {
                        "points": _percent(outline, record),
                        "closed": True,
                        "polygonlabels": [region["label"]],
                    },
                }
            )
        prediction = {
            "model_version": version,
            "score": record["probability"],
            "result": result,
        }
        image = f"{LOCAL_FILES}{quote(record['name'])}"
        tasks.append({"data": {"image": image}, "predictions": [prediction]})
    labels = "".join(
        f"    <Label value={quoteattr(name)}/>\n" for name in about["settings"]["damage"]
    )
    interface = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <PolygonLabels name="damage" toName="image">\n{labels}  </PolygonLabels>\n</View>\n'
    )
    return {"label-studio.json": _json(tasks), "label-studio.xml": interface.encode()}


def _percent(outline: Outline, record: Record) -> list[list[float]]:
    across = 100 / record["width"]
    down = 100 / record["height"]
    return [[min(100.0, max(0.0, x * across)), min(100.0, max(0.0, y * down))] for x, y in outline]


def _geojson(records: Sequence[Record], about: Mapping[str, Any]) -> dict[str, bytes]:
    """A polygon for each region of the images whose place, heading and scale are known (RFC 7946:
    WGS 84, longitude first, outer rings counterclockwise).
    """
    features = []
    for record in records:
        place = _place(record)
        if "missing" in place:
            continue
        footprint = Footprint(**place, width=record["width"], height=record["height"])
        for number, region, outline in _outlined(record):
            properties = {key: region[key] for key in region if key not in NOT_PROPERTIES}
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [footprint.polygon(outline)]},
                    "properties": {"image": record["name"], "region": number, **properties},
                }
            )
    return {"regions.geojson": _json({"type": "FeatureCollection", "features": features})}


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1, allow_nan=False).encode()


Writer = Callable[[Sequence[Record], Mapping[str, Any]], dict[str, bytes]]
WRITERS: dict[str, Writer] = {COCO: _coco, LABEL_STUDIO: _label_studio, GEOJSON: _geojson}
