"""Two inspections of one place: what is new, grown, gone and unchanged; what can't be compared is said."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunedge.edge.inspect.compare import Comparison, compare_inspections
from prunedge.edge.inspect.compare.page import both
from prunedge.edge.inspect.kept import open_inspection
from prunedge.edge.inspect.photographs import Photographs
from prunedge.errors import DataError, ExtraMissing
from tests.edge.inspect.compare.conftest import GROWTH, SIDE, Scene
from tests.needs import program


@pytest.fixture(scope="module")
def done(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare_inspections(scene.inspection("before"), scene.inspection("after"), out)


def pair(done: Comparison, name: str) -> dict[str, Any]:
    return next(each for each in done.pairs if each["old"] == name)


def test_the_summary_counts_every_place_and_photograph(done: Comparison) -> None:
    assert done.summary == (
        "1 new, 1 grown, 1 gone, 2 unchanged, 2 photographs could not be compared"
    )
    assert done.differences == ()


def test_growth_is_found_within_a_few_pixels(done: Comparison) -> None:
    changes = pair(done, "grown.jpg")["changes"]
    grown = next(change for change in changes if change["change"] == "grown")
    growth = grown["after"]["length_px"] - grown["before"]["length_px"]
    assert abs(growth - GROWTH) < 4
    assert grown["after"]["length_mm"] == pytest.approx(grown["after"]["length_px"] / 2)
    assert grown["length_uncertainty_px"] < 8
    assert {change["change"] for change in changes} == {"new", "grown", "gone"}


def test_what_stayed_is_unchanged_though_its_pixels_differ(done: Comparison) -> None:
    same = pair(done, "same.jpg")
    assert [change["change"] for change in same["changes"]] == ["unchanged"] * 2
    assert same["registration"]["matches"] >= 20
    assert same["registration"]["error_px"] < 1
    for change in same["changes"]:
        assert change["before"]["length_px"] != change["after"]["length_px"]


def test_another_wall_and_a_photograph_without_partner_are_not_compared(done: Comparison) -> None:
    reasons = {each.old: each.reason for each in done.not_compared}
    assert "can't be laid on each other" in reasons["other.jpg"]
    assert reasons["left.jpg"] == "in the old inspection alone"
    assert {each["old"] for each in done.pairs} == {"grown.jpg", "same.jpg"}


def test_the_files_say_the_same(done: Comparison) -> None:
    folder = done.page.parent
    kept = json.loads((folder / "comparison.json").read_text())
    assert kept["summary"] == done.summary
    assert kept["pairs"] == json.loads(json.dumps(done.pairs))
    with (folder / "comparison.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    kinds = [row["change"] for row in rows]
    assert sorted(kinds) == sorted(
        ["new", "grown", "gone", "unchanged", "unchanged", "not compared", "not compared"]
    )
    with Image.open(folder / "grown.jpg.before.jpg") as old:
        assert old.size == Image.open(folder / "grown.jpg.after.jpg").size
    text = done.page.read_text(encoding="utf-8")
    assert text.index(done.summary) < text.index("grown.jpg")
    assert "Mind:" not in text
    assert text.count("how uncertain the scale is") == 1


def test_another_model_or_threshold_is_said_in_the_first_line(
    scene: Scene, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    one = scene.root / "after" / "same.jpg"
    assert command("inspect", scene.bundle, one, "--threshold", 0.7, "--out", other) == 0
    capsys.readouterr()
    line = ("compare-inspections", scene.inspection("before"), other, "--out", tmp_path / "out")
    assert command(*line) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "mind: the two inspections differ in their thresholds: 0.5 and 0.7"
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.index("thresholds: 0.5 and 0.7") < page.index("<h1>")
    # One has no scale.
    assert "mm_px" not in (tmp_path / "out" / "comparison.csv").read_text()


def moved(scene: Scene, tmp_path: Path, spoil: Callable[[Path], None]) -> tuple[Path, Path]:
    """The photographs and their inspection elsewhere, these spoilt."""
    photos = tmp_path / "photos"
    shutil.copytree(scene.root / "after", photos)
    inspection = tmp_path / "inspected"
    shutil.copytree(scene.inspection("after"), inspection)
    mark = json.loads((inspection / "inspection.json").read_text())
    mark["photographs"] = str(photos)
    (inspection / "inspection.json").write_text(json.dumps(mark))
    spoil(photos)
    return photos, inspection


def reasons_of(comparison: Comparison) -> dict[str | None, str]:
    return {each.new: each.reason for each in comparison.not_compared}


def test_a_photograph_that_is_gone_or_another_one_now_is_said(scene: Scene, tmp_path: Path) -> None:
    def spoil(photos: Path) -> None:
        (photos / "same.jpg").unlink()
        shutil.copy(photos / "other.jpg", photos / "grown.jpg")

    _, inspection = moved(scene, tmp_path, spoil)
    out = tmp_path / "out"
    with pytest.raises(DataError, match="no photograph of both"):
        compare_inspections(scene.inspection("before"), inspection, out)
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "the photograph is gone" in page
    assert "another one than was inspected" in page
    kept = open_inspection(inspection)
    assert Photographs(kept, scene.root / "after").open("same.jpg").width == SIDE


@pytest.mark.parametrize("option", ["old_photos", "new_photos"])
def test_a_folder_of_photographs_that_is_none_is_refused(
    scene: Scene, tmp_path: Path, option: str
) -> None:
    inspections = (scene.inspection("before"), scene.inspection("after"))
    nope: dict[str, Any] = {option: tmp_path / "nope"}
    with pytest.raises(DataError, match=r"no such folder: .*nope") as caught:
        compare_inspections(*inspections, tmp_path / "out", **nope)
    assert caught.value.where == f"--{option.replace('_', '-')}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "uncertainty", "words"),
    [
        ((25.0, 31.24), 0.67, "25.0 → 31.2 ± 0.7"),
        ((None, 20.71), 0.58, "none → 20.7 ± 0.6"),
        ((229.4, None), 1.26, "229.4 → none ± 1.3"),
        ((229.4, 288.6), 14.0, "229 → 289 ± 14"),
        ((229.4, 288.6), None, "229 → 289"),
    ],
)
def test_values_are_as_exact_as_their_uncertainty(
    values: tuple[float | None, ...], uncertainty: float | None, words: str
) -> None:
    change: dict[str, Any] = {"before": None, "after": None}
    for side, value in zip(("before", "after"), values, strict=True):
        if value is not None:
            change[side] = {"length_px": value}
    assert both(change, ("length",), None, uncertainty) == words
    of_millimetres = None if uncertainty is None else 10 * uncertainty
    for side in filter(None, change.values()):
        side["length_px"] *= 10
    assert both(change, ("length",), 0.1, of_millimetres) == words


def test_pairs_by_a_list(scene: Scene, tmp_path: Path) -> None:
    listed = tmp_path / "pairs.csv"
    listed.write_text("old,new\nsame.jpg,same.jpg\n")
    folders = (scene.inspection("before"), scene.inspection("after"), tmp_path / "out")
    found = compare_inspections(*folders, pairs=listed)
    assert [each["old"] for each in found.pairs] == ["same.jpg"]
    assert reasons_of(found)["grown.jpg"] == "not in pairs.csv"
    wrong = {
        "old,new\nnowhere.jpg,same.jpg\n": "nowhere.jpg",
        "a,b\n1,2\n": "columns old and new",
        "old,new\nsame.jpg,same.jpg\nsame.jpg,grown.jpg\n": "several pairs as old: same.jpg",
        "": "columns old and new",
    }
    for text, words in wrong.items():
        listed.write_text(text)
        with pytest.raises(DataError, match=words):
            compare_inspections(*folders, pairs=listed)


def test_patches_that_are_damaged_are_compared_by_their_area(patched: Path, tmp_path: Path) -> None:
    folders = (patched / "patches-before", patched / "patches-after", tmp_path / "out")
    found = compare_inspections(*folders)
    same = pair(found, "same.jpg")["changes"]
    assert {change["change"] for change in same} == {"unchanged"}
    assert all("length_px" not in change["after"] for change in same)
    assert all(change["before"]["area_px"] > 48**2 for change in same)
    # As far as one patch lies from the next.
    assert all(change["uncertainty_px"] > 24 for change in same)


def test_the_same_file_twice_is_unchanged(scene: Scene, tmp_path: Path) -> None:
    same = scene.inspection("before")
    found = compare_inspections(same, same, tmp_path / "out")
    assert found.counts["unchanged"] == 6
    assert sum(found.counts.values()) == 6
    assert "the same file" in pair(found, "same.jpg")["notes"][0]


@pytest.mark.parametrize("kind", ["photographs", "an inspection"])
def test_a_folder_that_holds_something_else_is_refused(
    scene: Scene, tmp_path: Path, kind: str
) -> None:
    out = scene.root / "before" if kind == "photographs" else scene.inspection("before")
    before = sorted(out.iterdir())
    with pytest.raises(DataError, match="something else than a comparison"):
        compare_inspections(scene.inspection("before"), scene.inspection("after"), out)
    assert sorted(out.iterdir()) == before


def test_without_opencv_it_says_what_to_install(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ExtraMissing, match="prunedge\\[compare\\]"):
        compare_inspections(scene.inspection("before"), scene.inspection("after"), tmp_path / "out")


def test_it_runs_without_torch(scene: Scene, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from prunedge.cli.app import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    assert not {'torch', 'timm', 'sklearn'} & set(sys.modules)\n"
    )
    folders = (scene.inspection("before"), scene.inspection("after"))
    line = [sys.executable, "-c", code, "compare-inspections", *folders, "--out", tmp_path / "out"]
    ended = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("1 new, 1 grown, 1 gone")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_has_to_be_slid_sideways(width: int, browser: Any, done: Comparison) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    page.goto(done.page.absolute().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    assert page.evaluate(wide)
    images = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(images)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(18, 24, 29)"
    page.close()


def test_the_size_of_the_scene_is_what_the_pictures_show(done: Comparison) -> None:
    assert (pair(done, "same.jpg")["width"], pair(done, "same.jpg")["height"]) == (SIDE, SIDE)
