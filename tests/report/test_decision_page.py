"""The page of a run with decisions: the first screen, the figures, the slider."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from prunedge.cli.show import show
from prunedge.report import write_report
from prunedge.report.run.decision_figures import precision_recall, reliability, roc, thinned
from prunedge.report.run.decision_sections import classes_of, confusion_of, curves_of, decision_of
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.decision_rates import decisions_in
from prunedge.runs.decision_record import CurveRecord
from prunedge.runs.run import Run, open_run
from tests.needs import program
from tests.report.decided import CLASSES, cost_of, decisions, record
from tests.small_runs import small_recipe

QUIET = ["--no-sandbox", "--disable-gpu"]


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute.prune(small_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "run")


def with_decisions(run: Run, out: Path, **changes: Any) -> Run:
    """A copy of the run whose test.json has these decisions."""
    shutil.copytree(run.path, out)
    copy = open_run(out)
    copy.write("test.json", {**(copy.test() or {}), "decisions": decisions(**changes)})
    return copy


def page_of(run: Run) -> str:
    return unescape(write_report(run).read_text(encoding="utf-8")).partition("<header>")[2]


def test_the_first_screen_leads_with_what_is_found(run: Run, tmp_path: Path) -> None:
    page = page_of(with_decisions(run, tmp_path / "run"))
    title = re.findall("<h1>(.*?)</h1>", page)[0]
    assert (
        title
        == "Pruned, it finds 98 of 123 damaged images, with 12 false alarms among 270 sound ones"
    )
    assert "Unpruned it found 101, with 9 false alarms." in page
    first_screen = page[: page.index('class="cards"')]
    for figure in ("recall 79.7 %", "95 % interval 71.7 to 85.8 %", "false alarm rate 4.4 %"):
        assert figure in first_screen
    assert "finds none of the 123" in first_screen
    cards = re.findall('<div class="card"><h3>(.*?)</h3>', page)
    assert cards[0] == "size"
    assert cards[-1] == "accuracy"


def test_the_cost_is_that_of_the_threshold_that_was_chosen(run: Run, tmp_path: Path) -> None:
    told = decisions(cost=cost_of(3.25))
    told["baseline"]["cost"] = cost_of(4.0)
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    copy.write("test.json", {**(copy.test() or {}), "decisions": told})
    page = page_of(copy)
    assert '<p class="rate"><b>cost 3.25 an image</b> <span class="note">95 % interval 2.75' in page
    card = page[page.index("<h3>cost of an image</h3>") :][:600]
    assert "4 → 3.25" in card
    assert "at the thresholds that validation images chose" in card
    assert "recall@alarms, alarms@recall and cost are at the best threshold of the test" in page


def test_where_nothing_was_pruned_there_is_one_panel() -> None:
    told = decision_of({"decisions": decisions()}, CLASSES, is_pruned=False)
    assert told is not None
    assert [panel.title for panel in told["panels"]] == ["unpruned"]
    assert told["headline"].startswith("finds 101 of 123")
    assert "the unpruned model reports damage" in told["asked"]
    assert [model["title"] for model in told["curves"]["models"]] == ["unpruned"]
    assert list(told["tables"]) == ["unpruned"]
    assert told["before"] == ""


def test_show_says_the_same_figures(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = with_decisions(run, tmp_path / "run")
    lines = pruned(changed).splitlines()
    assert "98 found, 25 missed; 12 false alarms among 270 sound ones" in lines[2]
    capsys.readouterr()
    show(changed.path, json=True)
    told = json.loads(capsys.readouterr().out)["decisions"]
    assert told["best"]["test"]["recall"]["low"] == pytest.approx(0.717, abs=1e-3)
    assert told["baseline"]["test"]["found"] == 101


def test_without_decisions_the_page_is_what_it_was(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    copy.write("test.json", {**(copy.test() or {}), "decisions": {}})
    page = page_of(copy)
    assert "damaged images" not in page
    assert "threshold-counts" not in page
    assert re.findall('<div class="card"><h3>(.*?)</h3>', page)[0] == "accuracy"
    assert copy.summary()["decisions"] == {}


def test_the_confusion_is_that_of_the_operating_point(run: Run, tmp_path: Path) -> None:
    page = page_of(with_decisions(run, tmp_path / "run"))
    assert "on the test split, at the operating point" in page
    assert re.search(r'<td class="">\w+</td><td class="hit">98</td><td class="">25</td>', page)


def test_the_operating_points_lie_on_the_curves() -> None:
    told = decisions_in({"decisions": {"best": decisions()["best"]}})
    traces = {trace.name: trace for trace in precision_recall(told).data}
    recall, precision = 100 * 98 / 123, 100 * 98 / 110
    assert traces["pruned: operating point"].x[0] == pytest.approx(recall)
    assert traces["pruned: operating point"].y[0] == pytest.approx(precision)
    assert (recall, precision) in list(zip(traces["pruned"].x, traces["pruned"].y, strict=True))
    assert traces["by chance"].y[0] == pytest.approx(100 * 123 / 393)

    traces = {trace.name: trace for trace in roc(told).data}
    assert traces["pruned: operating point"].x[0] == pytest.approx(100 * 12 / 270)
    assert traces["pruned"].x[0] == 0
    assert traces["pruned"].y[-1] == 100


def test_reliability_has_the_intervals_of_its_counts() -> None:
    figure = reliability(decisions_in({"decisions": {"best": decisions()["best"]}}))
    trace = figure.data[0]
    assert list(trace.x) == [10.0, 80.0]
    assert list(trace.y) == pytest.approx([8.0, 90.0])
    # 24 of 300: up to 11.63; 84 of 93: up to 94.82.
    assert list(trace.error_y.array) == pytest.approx([3.63, 4.82], abs=0.01)


def test_a_long_curve_is_thinned_to_its_ends() -> None:
    count = 5_000
    curve = CurveRecord(
        thresholds=[1 - place / count for place in range(count)],
        found=list(range(count)),
        alarms=list(range(count)),
    )
    short = thinned(curve, 100)
    assert len(short.thresholds) == 100
    assert (short.found[0], short.found[-1]) == (0, count - 1)
    assert thinned(short, 100) is short


def test_each_class_at_the_operating_point() -> None:
    told = decisions_in({"decisions": decisions()})
    rows = classes_of(told, CLASSES)
    assert [(row["name"], row["images"]) for row in rows] == [
        ("defective", 123),
        ("functional", 270),
    ]
    assert rows[0]["cells"][2:] == ["79.7 % (71.7 to 85.8)", "89.1 % (81.9 to 93.6)"]
    assert confusion_of(told["best"], CLASSES).rows[1] == ("functional", "12", "258")
    assert classes_of({"best": record(confusion=None)}, CLASSES) == []


def test_the_slider_knows_every_threshold_of_both() -> None:
    told = decisions_in({"decisions": decisions()})
    curves = curves_of(told)
    assert curves["thresholds"] == [0.1, 0.3, 0.9]
    assert [model["title"] for model in curves["models"]] == ["unpruned", "pruned"]
    assert curves["models"][1]["damaged"] == 123


@pytest.mark.parametrize("width", [1280, 390])
def test_the_slider_moves_the_counts(run: Run, tmp_path: Path, width: int) -> None:
    from playwright.sync_api import sync_playwright

    file = write_report(with_decisions(run, tmp_path / "run"))
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=QUIET)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                problems.append(request.url) if request.url.startswith("http") else None
            ),
        )
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelectorAll('#thresholds .main-svg').length >= 2")
        rows = page.locator("#threshold-counts tbody tr")
        assert rows.nth(0).inner_text().split("\t")[1:4] == ["101", "22", "9"]
        page.locator("#threshold").fill("2")
        assert page.inner_text("#threshold-value") == "0.900"
        assert rows.nth(1).inner_text().split("\t")[1:] == [
            "40",
            "83",
            "0",
            "32.5 %",
            "0.0 %",
            "100.0 %",
        ]
        moved = page.evaluate(
            "document.getElementById('figure-roc').data.filter(t => t.name === 'pruned: slider')[0]"
        )
        assert moved["visible"] is True
        assert moved["y"][0] == pytest.approx(100 * 40 / 123)
        page.locator("#threshold-reset").click()
        assert rows.nth(1).inner_text().split("\t")[1:4] == ["98", "25", "12"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert problems == []
