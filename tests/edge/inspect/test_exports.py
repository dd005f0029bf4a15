"""Files for other programs: what each format asks for, and pictures with places through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from prunedge.cli.app import main
from prunedge.edge.inspect.exports import left_out, outline_of, parse_formats, written
from prunedge.errors import DataError
from tests.edge.image.test_photograph import gps
from tests.edge.inspect.conftest import wall
from tests.refusals import refusal

BOX = {"left": 10, "top": 20, "right": 30, "bottom": 60, "width": 20, "height": 40}
REGION = {**BOX, "label": "crack", "probability": 0.75, "area": 500}
TRACED = [[10.0, 20.0], [30.0, 20.0], [25.5, 60.0], [10.0, 20.0]]
ABOUT = {
    "settings": {"damage": ["crack", "rust & <salt>"]},
    "bundle": {"name": "b", "sha256": "0" * 64},
    "versions": {"prunedge": "0"},
    "date": "2026-01-02T03:04:05+00:00",
}
PLACE = {"latitude": 52.0, "longitude": 4.0, "heading": 0.0, "mm_per_pixel": 10.0}


def record(name: str, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "width": 100,
        "height": 80,
        "probability": 0.75,
        "regions": list(regions),
        "footprint": {"missing": "no heading"},
        **more,
    }


RECORDS = [
    record("a/b c.jpg", {**REGION, "polygon": TRACED}, REGION, has_mask=True, footprint=PLACE),
    record("d.jpg", {**REGION, "label": "rust & <salt>"}),
    record("sound.jpg"),
]


def test_coco_has_all_images_and_outlines_with_scores() -> None:
    found = json.loads(written(["coco"], RECORDS, ABOUT)["coco.json"])
    assert [image["file_name"] for image in found["images"]] == ["a/b c.jpg", "d.jpg", "sound.jpg"]
    names = {one["id"]: one["name"] for one in found["categories"]}
    first, second = found["annotations"]  # the one without an outline is none
    assert first["segmentation"] == [[10.0, 20.0, 30.0, 20.0, 25.5, 60.0]]
    assert (first["image_id"], first["score"], first["iscrowd"]) == (1, 0.75, 0)
    assert (first["bbox"], first["area"]) == ([10, 20, 20, 40], 500)
    assert names[second["category_id"]] == "rust & <salt>"
    assert second["segmentation"] == [[10, 20, 30, 20, 30, 60, 10, 60]]
    assert len({one["id"] for one in found["annotations"]}) == 2


def test_label_studio_has_predictions_in_percent_and_its_interface() -> None:
    files = written(["label-studio"], RECORDS, ABOUT)
    tasks = json.loads(files["label-studio.json"])
    assert [task["data"]["image"].rpartition("=")[2] for task in tasks] == [
        "a/b%20c.jpg",
        "d.jpg",
        "sound.jpg",
    ]
    assert tasks[2]["predictions"][0]["result"] == []
    (result,) = tasks[0]["predictions"][0]["result"]
    assert result["value"]["points"] == [[10.0, 25.0], [30.0, 25.0], [25.5, 75.0]]
    assert (result["original_width"], result["original_height"]) == (100, 80)

    view = ElementTree.fromstring(files["label-studio.xml"])
    (labels,) = view.findall("PolygonLabels")
    (image,) = view.findall("Image")
    assert (labels.get("name"), image.get("name")) == (result["from_name"], result["to_name"])
    assert labels.get("toName") == image.get("name")
    assert image.get("value") == "$image"
    used = {
        one["value"]["polygonlabels"][0]
        for task in tasks
        for one in task["predictions"][0]["result"]
    }
    assert used <= {label.get("value") for label in labels}


def test_geojson_has_what_is_known_and_the_rest_is_told() -> None:
    (feature,) = json.loads(written(["geojson"], RECORDS, ABOUT)["regions.geojson"])["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert feature["geometry"]["type"] == "Polygon"
    assert ring[0] == ring[-1]
    assert all(abs(x - 4) < 1e-4 and abs(y - 52) < 1e-4 for x, y in ring)
    assert "polygon" not in feature["properties"]
    assert dict(left_out(["geojson"], RECORDS)) == {
        "a/b c.jpg": "1 of its regions have no outline",
        "d.jpg": "not in regions.geojson: no heading",
    }


def test_outlines() -> None:
    assert outline_of({}, {**REGION, "polygon": TRACED[:2]}) == [
        (10, 20),
        (30, 20),
        (30, 60),
        (10, 60),
    ]
    with pytest.raises(DataError, match="coco, label-studio, geojson"):
        parse_formats(["voc"])


def test_the_command_writes_them(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "p", tmp_path / "out"
    photos.mkdir()
    placed = gps()
    placed.get_ifd(0x8769).update({0x920A: 10.0, 0xA405: 28})
    wall(60, 40, ((10, 10, 20, 20),)).save(photos / "a.jpg", exif=placed)
    wall(60, 40, ((10, 10, 20, 20),)).save(photos / "b.png")
    words = ["--write", "coco,label-studio,geojson", "--height", "12m", "--heading", "90"]
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(bundle), str(photos), "--out", str(out), *words])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "b.png: measured in pixels: its EXIF tells no focal length" in said
    assert "b.png: not in regions.geojson: no GPS position" in said
    features = json.loads((out / "regions.geojson").read_text())["features"]
    assert {feature["properties"]["image"] for feature in features} == {"a.jpg"}
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 2
    assert "no file is written" in refusal("inspect", bundle, photos, "--write", "coco")
    asked = ("--write", "coco", "--out", tmp_path / "new")
    assert "frames are none" in refusal("inspect", bundle, "camera:0", *asked)
    skipping = ("--distance", "2m", "--no-scale", "skip")
    assert "tells no focal length" in refusal("inspect", bundle, photos / "b.png", *skipping)
    assert "--mm-per-pixel" in refusal(
        "inspect", bundle, photos, "--mm-per-pixel", "1", "--distance", "2m"
    )
    assert "pixel by pixel" in refusal("inspect", bundle, photos, "--width-classes", "< 1, > 1")
