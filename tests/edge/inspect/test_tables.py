"""Tables as spreadsheets open them: also of images without damage, with either decimal sign."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from prunedge.cli.app import main
from prunedge.edge.inspect.tables import (
    TableFormat,
    findings_table,
    images_table,
    parse_table_format,
)
from prunedge.errors import DataError
from tests.edge.inspect.conftest import wall
from tests.refusals import refusal

REGION: dict[str, Any] = {
    "label": "Riß",
    "probability": 0.75,
    "mean_probability": 0.5,
    "left": 3,
    "top": 4,
    "area": 12,
    "area_mm2": 1.5,
}


def record(name: str, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "width": 40,
        "height": 30,
        "probability": 0.75 if regions else 0.125,
        "damaged_share": 0.01 * len(regions),
        "regions": list(regions),
        "position": None,
        "notes": [],
        **more,
    }


RECORDS = [
    record("öst.jpg", REGION, REGION, notes=["turned", "large"]),
    record("=1+1.jpg", position={"latitude": 51.5, "longitude": 4.25, "altitude_m": None}),
]


def rows_of(content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    assert content.startswith(b"\xef\xbb\xbf")  # or Excel takes it for another encoding
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter=delimiter))


def test_every_image_has_a_row_and_every_region_one() -> None:
    images = rows_of(images_table(RECORDS, [("broken.jpg", "cut off")], TableFormat()))
    assert [(row["image"], row["result"], row["regions"]) for row in images] == [
        ("öst.jpg", "damage", "2"),
        ("'=1+1.jpg", "no damage found", "0"),
        ("broken.jpg", "not inspected", ""),
    ]
    assert [row["label"] for row in images] == ["Riß", "", ""]
    assert [row["notes"] for row in images] == ["turned; large", "", "cut off"]
    assert images[1]["latitude"] == "51.5"
    regions = rows_of(findings_table(RECORDS, TableFormat()))
    assert [(row["image"], row["region"]) for row in regions] == [
        ("öst.jpg", "1"),
        ("öst.jpg", "2"),
    ]
    assert regions[0]["area_mm2"] == "1.5"


def test_a_decimal_comma_comes_with_semicolons() -> None:
    table = parse_table_format("comma")
    (first, _) = rows_of(findings_table(RECORDS, table), ";")
    assert (first["probability"], first["area_mm2"], first["area"]) == ("0,75", "1,5", "12")
    assert rows_of(images_table(RECORDS, [], table), ";")[1]["longitude"] == "4,25"
    with pytest.raises(DataError, match="--decimal comma"):
        parse_table_format("dot")


def test_numbers_of_a_model_that_estimates_some_have_columns_of_their_own() -> None:
    estimated = record("a.jpg", numbers={"depth": 2.5, "width": 9.0})
    (row,) = rows_of(images_table([estimated], [], TableFormat()))
    assert row["depth"] == "2.5"
    assert row["width"] == "40"  # the photograph's


def test_the_command_writes_both(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "p", tmp_path / "out"
    photos.mkdir()
    wall(60, 60, ((10, 10, 20, 20),)).save(photos / "a.png")
    wall(60, 60).save(photos / "b.png")
    with pytest.raises(SystemExit) as ended:
        main(
            ["inspect", str(bundle), str(photos), "--out", str(out), "--decimal", "comma", "--json"]
        )
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)["images"]
    images = rows_of((out / "images.csv").read_bytes(), ";")
    assert [row["image"] for row in images] == ["a.png", "b.png"]
    assert images[1]["result"] == "no damage found"
    assert images[0]["damaged_share"] == str(told[0]["damaged_share"]).replace(".", ",")
    assert "--out" in refusal("inspect", bundle, photos, "--decimal", "comma")
