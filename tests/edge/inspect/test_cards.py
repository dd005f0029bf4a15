"""A card for each defect: page, PDF, and what is said where something is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge.inspect import cards
from prunedge.edge.inspect.kept import open_inspection
from prunedge.edge.inspect.measures_text import measures_of
from prunedge.edge.inspect.photographs import Photographs
from prunedge.utils import browser
from tests.edge.inspect.conftest import wall
from tests.needs import program

Run = Callable[..., int]


@pytest.fixture(scope="module")
def run() -> Run:
    def command(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    return command


@pytest.fixture(scope="module")
def inspected(bundle: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    root = tmp_path_factory.mktemp("cards")
    photos = root / "photos"
    photos.mkdir()
    boxes = ((10, 10, 30, 30), (150, 20, 160, 60), (20, 120, 50, 130), (150, 130, 190, 150))
    wall(200, 160, boxes).save(photos / "<b>wall&.png")
    wall(200, 160, boxes[:1]).save(photos / "one.png")
    wall(90, 90).save(photos / "sound.png")
    (photos / "text.jpg").write_text("no image")
    out = root / "out"
    assert run("inspect", bundle, photos, "--patch", 32, "--out", out, "--mm-per-pixel", 2) == 0
    return out


def regions(out: Path) -> int:
    return len((out / "findings.csv").read_text().splitlines()) - 1


def test_every_region_has_a_card_with_its_measures(inspected: Path, run: Run) -> None:
    assert run("report", inspected) == 0
    text = (inspected / "defects.html").read_text(encoding="utf-8")
    count = regions(inspected)
    assert text.count('<article class="card">') == count == text.count("data:image/jpeg")
    pages = 1 + -(-count // 3)
    assert [int(page) for page in re.findall(rf"page (\d+) of {pages}", text)] == [
        *range(1, pages + 1)
    ]
    assert "<b>wall&" not in text
    assert "found damage in 2 of 3 images; not inspected: text.jpg." in text
    assert "checked by" in text
    assert "mm²" in text
    assert "from the overlay" not in text


def test_where_photographs_are_gone_the_overlay_is_shown_and_it_is_said(
    inspected: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(inspected, tmp_path / "copy"))
    mark = json.loads((copy / "inspection.json").read_text())
    mark["photographs"] = str(tmp_path / "nowhere")
    (copy / "inspection.json").write_text(json.dumps(mark))
    (copy / "one.png.overlay.jpg").unlink()
    inspection = open_inspection(copy)
    text = cards.render_cards(inspection, Photographs(inspection))
    assert text.count("from the overlay, since the photograph is gone") == regions(inspected)
    assert "the overlay can&#39;t be read either" in text
    found = Photographs(inspection, inspected.parent / "photos")
    assert "from the overlay" not in cards.render_cards(inspection, found)


def test_what_is_left_out_is_said(inspected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MOST_CARDS", 2)
    inspection = open_inspection(inspected)
    text = cards.render_cards(inspection, Photographs(inspection))
    assert text.count('<article class="card">') == 2
    assert "of which this has the first 2: findings.csv has all" in text


def test_measures_are_told_with_their_uncertainty_and_nothing_raw() -> None:
    record = {"width": 100, "height": 100}
    region = {
        "label": "crack",
        "probability": 0.9,
        "mean_probability": 0.5,
        "left": 1,
        "top": 2,
        "width": 10,
        "height": 20,
        "width_mm": 5.0,
        "height_mm": 10.0,
        "area": 100,
        "area_mm2": 25.0,
        "area_mm2_uncertainty": 4.3327,
        "length_px": 50.0,
        "length_px_uncertainty": 3.3,
        "length_mm": 24.8968,
        "length_mm_uncertainty": 1.2489,
        "direction_deg": 12.5,
        "width_class": "> 0.6",
        "width_class_is_sure": False,
    }
    told = measures_of(region, record)
    assert told == [
        ("surest", "90.0%"),
        ("mean", "50.0%"),
        ("severity", "0.5 % of the image"),
        ("position", "1, 2 px from left and top"),
        ("length", "24.9 ± 1.2 mm"),
        ("area", "25 ± 4 mm²"),
        ("direction", "12.5 °"),
        ("box", "5 x 10 mm"),
        ("width class", "> 0.6, or the one beside it"),
    ]


def test_a_measure_without_uncertainty_or_name_is_told_too() -> None:
    record = {"width": 100, "height": 100}
    place = {"label": "crack", "probability": 0.9, "left": 1, "top": 2, "area": 100}
    region = {**place, "roughness_index": 7.233329794361461, "is_wet": True}
    told = dict(measures_of(region, record))
    assert told["area"] == "100 px²"
    assert told["roughness index"] == "7.233"
    assert told["is wet"] == "yes"


def test_the_pdf_has_a_page_for_three_cards(
    inspected: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    program("chromium")
    assert run("report", inspected, "--pdf") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(inspected / "defects.pdf")
    content = (inspected / "defects.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    pages = 1 + -(-regions(inspected) // 3)
    assert max(int(count) for count in re.findall(rb"/Count (\d+)", content)) == pages


def test_without_a_browser_nothing_is_inspected_in_vain(
    bundle: Path,
    inspected: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(browser, "BROWSERS", ("no-such-browser",))
    out = tmp_path / "out"
    photos = inspected.parent / "photos"
    assert run("inspect", bundle, photos, "--out", out, "--pdf") == 2
    assert not out.exists()
    assert run("report", inspected, "--pdf") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("needs Chromium" in line and "defects.html" in line for line in said)


def test_an_inspection_that_was_interrupted_has_no_cards(
    inspected: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = json.loads((inspected / "inspection.json").read_text())
    del mark["images"]
    (tmp_path / "inspection.json").write_text(json.dumps(mark))
    assert run("report", tmp_path) == 2
    assert "was interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("left", [0, 200])
def test_a_damaged_listing_is_called_damaged(
    inspected: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], left: int
) -> None:
    mark = (inspected / "inspection.json").read_bytes()
    (tmp_path / "inspection.json").write_bytes(mark[:left])
    assert run("report", tmp_path) == 2
    said = capsys.readouterr().err
    assert f"damaged: this is no JSON ({tmp_path / 'inspection.json'})" in said


def test_a_folder_of_photographs_that_is_none_is_refused(
    inspected: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    inspection = tmp_path / "inspection"
    inspection.mkdir()
    for file in inspected.glob("*.json"):
        (inspection / file.name).write_bytes(file.read_bytes())
    assert run("report", inspection, "--photos", tmp_path / "nope") == 2
    assert f"no such folder: {tmp_path / 'nope'} (--photos)" in capsys.readouterr().err
    assert not (inspection / "defects.html").exists()


def test_the_first_sentence_says_what_the_model_is(inspected: Path) -> None:
    text = (inspected / "inspection.html").read_text(encoding="utf-8")
    sentence = "darkest, a classifier of patches of 32 x 32 pixels, found damage in 2 of 3 images"
    assert sentence in text
    assert text.index(sentence) < text.index('class="card"')
