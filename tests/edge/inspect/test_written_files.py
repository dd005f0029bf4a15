"""What an earlier inspection wrote into the folder, and a later one there does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunedge.cli.app import main
from tests.edge.inspect.conftest import wall

FORMATS = ("coco.json", "label-studio.json", "label-studio.xml", "regions.geojson")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def inspect(bundle: Path, photos: Path, out: Path, *options: object) -> int:
    return run("inspect", bundle, photos, "--patch", 32, "--out", out, *options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    wall(64, 64, ((10, 10, 30, 30),)).save(folder / "wall.png")
    wall(40, 40).save(folder / "sound.png")
    return folder


def test_files_of_an_earlier_inspection_are_removed_and_told(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert inspect(bundle, photos, out, "--write", "coco,label-studio,geojson") == 0
    assert run("report", out) == 0
    (out / "wall.png.widths.jpg").write_bytes(b"of classes of widths")
    (out / "wall.png.mask.png").write_bytes(b"of a model of pixels")
    (out / "mine.widths.jpg").write_bytes(b"of nobody")
    capsys.readouterr()

    assert inspect(bundle, photos, out, "--threshold", 0.9, "--write", "coco") == 0
    gone = {*FORMATS[1:], "defects.html", "wall.png.widths.jpg", "wall.png.mask.png"}
    assert not [name for name in gone if (out / name).exists()]
    assert (out / "coco.json").exists()
    assert (out / "mine.widths.jpg").exists()
    told = [line for line in capsys.readouterr().err.splitlines() if "removed" in line]
    assert len(told) == 1
    assert all(name in told[0] for name in gone)
    assert json.loads((out / "inspection.json").read_text())["files"] == ["coco.json"]


def test_what_no_inspection_wrote_stays(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert inspect(bundle, photos, out) == 0
    (out / "coco.json").write_text("mine")
    listing = json.loads((out / "inspection.json").read_text())
    listing["files"] = ["../photos/wall.png", 3, "findings.csv"]
    (out / "inspection.json").write_text(json.dumps(listing))
    assert inspect(bundle, photos, out, "--threshold", 0.9) == 0
    assert (out / "coco.json").read_text() == "mine"
    assert (photos / "wall.png").exists()
    assert (out / "findings.csv").exists()
