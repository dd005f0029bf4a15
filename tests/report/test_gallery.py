"""The gallery of what is decided wrongly or nearly so, and where the result looked."""

from __future__ import annotations

import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunedge.edge.image.size import Size
from prunedge.errors import RunError
from prunedge.report import write_report
from prunedge.report.run import explain as explaining
from prunedge.report.run.explain import explain, heat_map, in_turn, is_faint, overlaid
from prunedge.report.run.gallery import shown_in
from prunedge.runs import execute
from prunedge.runs.decision_record import DecisionRecord, ShownRecord
from prunedge.runs.run import Run, open_run
from tests.report.decided import decision, decisions
from tests.slow_cases import some_slow
from tests.small_runs import small_recipe


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute.prune(small_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def shown(run: Run, tiny_data: Path, tmp_path: Path) -> Run:
    """The run with two images that are decided wrongly, and one nearly so."""
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    first, second, third, *_ = sorted(tiny_data.glob("*/*.png"))
    gone = tiny_data / "gone.png"
    told = {
        "decisions": decisions(damage=[run.config.data.classes[0]]),
        "wrong": [
            record(first, is_damaged=True, probability=0.05, was_called=True),
            record(gone, is_damaged=True, probability=0.1),
            record(second, is_damaged=False, is_called=True, probability=0.93),
        ],
        "borderline": [record(third, is_damaged=True, is_called=True, probability=0.305)],
    }
    copy.write("test.json", {**(copy.test() or {}), **told})
    return copy


def record(path: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "path": str(path),
        "label": "defective",
        "part": "",
        "is_damaged": True,
        "is_called": False,
        "was_called": None,
        "probability": 0.1,
    }
    return values | changes


def page_of(run: Run) -> str:
    return unescape(write_report(run).read_text(encoding="utf-8")).partition("<header>")[2]


def test_missed_damage_comes_before_false_alarms(shown: Run) -> None:
    page = page_of(shown)
    order = [
        page.index(f"<h3>{title}</h3>") for title in ("Missed damage", "False alarms", "Borderline")
    ]
    assert order == sorted(order)
    assert "1 of 25, the surest first; 1 can't be read any more." in page
    assert "damage 5.0 %<br>missed<br>unpruned: found" in page
    assert "damage 93.0 %<br>false alarm" in page
    assert "damage 30.5 %<br>found" in page
    assert "the original got right" not in page


def test_heat_maps_stand_below_their_images(shown: Run) -> None:
    pytest.importorskip("captum")
    images = shown_in(shown.test() or {})
    best = DecisionRecord(**decisions(damage=[shown.config.data.classes[0]])["best"])
    explanation = explain(shown, best, images)
    assert explanation.line.startswith("Below each image")
    # The fourth image is gone; a model may look nowhere in particular.
    paths = {Path(path).name for path, _ in explanation.images}
    assert len(paths) <= 3
    assert "gone.png" not in paths
    assert all(image.size == (160, 160) for image in explanation.images.values())


@pytest.mark.parametrize("in_channels", some_slow([3, 1], [3]))
def test_what_is_explained_is_the_probability_of_the_decision(
    in_channels: int, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    changes = {"model": "timm/test_resnet", "size": (16, 32), "resize": "pad", "train_epochs": 8}
    recipe = small_recipe(tiny_data, in_channels=in_channels, lr=0.02, **changes)
    run = execute.prune(recipe, tmp_path / "run")
    scores = []

    def noted(score: explaining.Score, inputs: torch.Tensor) -> np.ndarray:
        assert inputs.shape == (1, in_channels, 16, 32)
        scores.append(float(score(inputs)[0]))
        return heat_map(score, inputs)

    monkeypatch.setattr(explaining, "heat_map", noted)
    test = run.test() or {}
    images = shown_in(test)
    explain(run, DecisionRecord(**test["decisions"]["best"]), images)
    told = [record.probability for record in in_turn(list(images.values()), 36)]
    assert scores == pytest.approx(told, abs=1e-5)
    assert scores


def test_every_image_with_a_part_that_matters_is_explained(
    shown: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    monkeypatch.setattr(explaining, "FAINT", 0.0)
    images = shown_in(shown.test() or {})
    best = DecisionRecord(**decisions(damage=[shown.config.data.classes[0]])["best"])
    assert len(explain(shown, best, images).images) == 3
    page = page_of(shown)
    assert page.count('alt="where the model looked"') == 3
    monkeypatch.setattr(explaining, "MOST_MACS", shown.best().macs * (explaining.PLACES + 1))
    assert len(explain(shown, best, images).images) == 1


def test_the_view_has_the_shape_that_the_model_sees() -> None:
    assert explaining.scaled(Size(128, 384), 160) == (53, 160)
    assert explaining.scaled(Size(48, 48), 160) == (160, 160)


def test_without_captum_a_line_says_how_to_get_it(
    shown: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "find_spec", lambda name: None)
    page = page_of(shown)
    assert "pip install 'prunedge[explain]'" in page
    assert "where the model looked" not in page


def test_a_model_that_is_gone_is_said_and_the_page_is_written(shown: Run) -> None:
    pytest.importorskip("captum")
    for file in (shown.path / "checkpoints").glob("*/model.safetensors"):
        file.unlink()
    page = page_of(shown)
    assert "Where the model looked can't be shown" in page
    assert "<h3>Missed damage</h3>" in page


def test_hiding_what_the_score_reads_makes_it_fall() -> None:
    pytest.importorskip("captum")
    inputs = torch.zeros(1, 3, 16, 16)
    inputs[:, :, 2:6, 10:14] = 1  # the damage
    inputs[:, :, 12:16, 0:4] = 1  # what speaks against it

    def score(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 2:6, 10:14].mean((1, 2)) - images[:, 0, 12:16, 0:4].mean((1, 2)) / 2

    heat = heat_map(score, inputs)
    assert np.unravel_index(heat.argmax(), heat.shape)[0] in range(2, 6)
    assert np.unravel_index(heat.argmax(), heat.shape)[1] in range(10, 14)
    # In the corner one window alone; two columns further one that hides half of it, as well.
    assert heat[14, 0] == pytest.approx(-0.5)
    assert heat[14, 2] == pytest.approx((-0.5 - 0.25) / 2)
    assert heat[8, 6] == 0


def test_red_speaks_for_damage_and_blue_against_it() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[:, :3] = 0.4
    heat[:, 5:] = -0.2
    pixels = np.asarray(overlaid(Image.new("RGB", (64, 64), (120, 120, 120)), heat), int)
    red, _, blue = pixels[32, 8]
    assert red > blue + 20
    red, _, blue = pixels[32, 60]
    assert blue > red + 20
    assert is_faint(heat / 100)
    assert not is_faint(heat)


def test_each_kind_has_its_turn() -> None:
    def of(*names: str) -> list[ShownRecord]:
        return [ShownRecord(**record(Path(name))) for name in names]

    chosen = in_turn([of("a", "b", "c"), of("d"), of("a", "e")], 4)
    assert [one.path for one in chosen] == ["a", "d", "b", "e"]
    assert in_turn([of("a")], 0) == []
    assert in_turn([], 3) == []


def test_a_record_of_one_image_is_required_to_be_one(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    wrong = record(Path("a.png"), probability=1.5)
    told = {"decisions": {"best": decision()}, "wrong": [wrong]}
    copy.write("test.json", {**(copy.test() or {}), **told})
    with pytest.raises(RunError, match=r"wrong\.0\.probability"):
        copy.test()
