"""Which images an evaluation judges by: the run's own as long as nothing else is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunedge.errors import DataError
from prunedge.runs import execute
from prunedge.runs.evaluation import evaluate_on
from prunedge.runs.export import write_bundle
from prunedge.runs.run import Run
from tests.masked_images import numbers_with, write_pair
from tests.refusals import refusal
from tests.small_runs import small_recipe
from tests.tiny_images import write_tiny

SIDE = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on tiles of photographs of 40 x 24 pixels."""
    root = tmp_path_factory.mktemp("tiles")
    for index in range(12):
        numbers = numbers_with(index, line=index % 3 > 0, side=40)[:24]
        write_pair(root, f"wall{index}", numbers, seed=index)
    recipe = small_recipe(
        root / "photos",
        masks=str(root / "masks"),
        tile=SIDE,
        model="tests.masked_images:tiny_unet",
        train_epochs=3,
        lr=0.1,
    )
    return execute.train(recipe, root / "run")


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("classes")
    return execute.train(small_recipe(write_tiny(root / "images"), train_epochs=1), root / "run")


def folder_of(run: Run, name: str) -> Path:
    return run.path.parent / name


def judged(run: Run, **asked: object) -> dict[str, object]:
    given = {"resamples": 10, **asked}
    return evaluate_on(run.path, folder_of(run, "photos"), **given).to_json()  # type: ignore[arg-type]


def test_a_run_s_own_masks_and_tiles_are_its_own_images(run: Run) -> None:
    own = judged(run)
    assert own["split"] == "test"
    assert judged(run, masks=folder_of(run, "masks"), tile=SIDE) == own


def test_other_masks_of_a_run_s_photographs_are_what_it_is_judged_by(
    run: Run, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder_of(run, "masks"), tmp_path / "other"))
    for file in other.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    own = judged(run, split="all")
    found = judged(run, masks=other)
    assert found["images"] == own["images"]
    assert found["metrics"]["recall"] != own["metrics"]["recall"]  # type: ignore[index]
    assert found["loss"] != own["loss"]


def test_other_tiles_of_a_run_s_photographs_are_what_it_is_judged_by(run: Run) -> None:
    assert judged(run, tile=8)["images"] == 12 * 5 * 3


def test_masks_and_tiles_are_refused_of_a_model_that_reads_none(
    of_classes: Run, tmp_path: Path
) -> None:
    own = of_classes.config.data.path
    for data in (own, tmp_path):
        said = refusal("evaluate", of_classes.path, data, "--masks", tmp_path)
        assert "--masks" in said
        assert "acts only with --task segmentation" in said
    with pytest.raises(DataError, match="acts only with task='segmentation'"):
        evaluate_on(of_classes.path, own, masks=tmp_path)


@pytest.mark.parametrize("tile", [0, -5, 7, 4097])
def test_tiles_have_the_sides_that_the_setting_allows(run: Run, tile: int) -> None:
    said = refusal("evaluate", run.path, folder_of(run, "photos"), f"--tile={tile}")
    assert f"tiles of {tile:,} pixels" in said
    assert "8 to 4,096" in said


def test_tiles_are_refused_where_there_are_no_masks(of_classes: Run, run: Run) -> None:
    for data in (of_classes.config.data.path, folder_of(run, "photos")):
        said = refusal("evaluate", of_classes.path, data, "--tile", "16")
        assert "--tile" in said
        assert "cuts photographs with --masks alone" in said


def test_a_model_of_tiles_is_not_shown_whole_photographs_without_a_word(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = folder_of(run, "bundle")
    write_bundle(run, bundle, formats=["onnx"])
    photos = folder_of(run, "photos")
    masks = folder_of(run, "masks")
    said = "the model learned from images of 16 x 16 pixels, and 12 of 12 photographs are others"
    evaluate_on(bundle, photos, masks=masks, resamples=10)
    assert said in caplog.text
    assert "tile=16 cuts them" in caplog.text
    caplog.clear()
    evaluate_on(bundle, photos, masks=masks, tile=SIDE, resamples=10)
    assert "learned from images" not in caplog.text
