"""A run never judges by images that taught the model it starts from: it is refused, or said where nobody can tell."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.errors import PrunedgeError
from prunedge.report import text
from prunedge.runs import execute
from prunedge.runs.leakage import refuse_seen
from prunedge.runs.run import Run, open_run
from tests.small_runs import small_recipe
from tests.tampering import edited
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = small_recipe(write_tiny(tmp_path_factory.mktemp("images")), train_epochs=3)
    return execute.train(recipe, tmp_path_factory.mktemp("runs") / "trained")


def onward(run: Run, **changes: Any) -> RunConfig:
    """The recipe of a run that goes on from this one."""
    kept = {
        key: value
        for key, value in run.config.flat().items()
        if key not in ("classes", "data_fingerprint")
    }
    return RunConfig.make(
        "test",
        **{**kept, "start": str(run.path), "train_epochs": 0, "schedule_epochs": 3, **changes},
    )


def asked(recipe: RunConfig) -> list[str]:
    return refuse_seen(recipe, images.load(recipe.data.path, **recipe.image_settings()))


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"seed": 4}, "seed="),
        ({"folds": 4, "fold": 2}, "folds=, fold="),
        ({"seed": 4, "size": 24}, "seed="),
    ],
)
def test_another_split_of_the_same_images_is_refused(
    trained: Run, changes: Mapping[str, Any], option: str, tmp_path: Path
) -> None:
    with pytest.raises(
        PrunedgeError, match=r"test images and .* validation images taught the model"
    ) as raised:
        execute.prune(onward(trained, **changes), tmp_path / "run")
    assert f"keep the split of that run, without {option};" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_images_are_known_again_wherever_they_lie(trained: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.config.data.path, tmp_path / "copy")
    assert asked(onward(trained, data=str(copy))) == []  # moved, and on the same sides
    with pytest.raises(PrunedgeError, match="taught the model"):
        asked(onward(trained, data=str(copy), seed=4))


def test_the_split_that_the_model_was_taught_on_and_images_of_their_own_are_fine(
    trained: Run, tmp_path: Path
) -> None:
    assert asked(onward(trained)) == []
    assert asked(onward(trained, data=str(write_tiny(tmp_path / "others", seed=9)), seed=7)) == []


def test_a_validation_image_that_chose_the_model_does_not_test_it(
    trained: Run, tmp_path: Path
) -> None:
    """As many test images as it had validation images, and validation images that it has not seen."""
    theirs = images.load(trained.config.data.path, **trained.config.image_settings())
    sides = {"train": theirs.train, "val": theirs.test, "test": theirs.val}
    lines = [
        f"{sample.path},{theirs.classes[sample.target]},{side}"
        for side, split in sides.items()
        for sample in split.samples
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    with pytest.raises(
        PrunedgeError, match=f"{len(theirs.val)} of {len(theirs.val)} test images and 0 of"
    ):
        asked(onward(trained, data=str(tmp_path / "manifest.csv")))


def test_all_runs_of_a_chain_are_asked(trained: Run, tmp_path: Path) -> None:
    """In between the model learned other images."""
    others = write_tiny(tmp_path / "others", seed=9)
    middle = execute.prune(onward(trained, data=str(others)), tmp_path / "middle")
    with pytest.raises(PrunedgeError, match=str(trained.path)):
        asked(onward(middle, data=trained.config.data.path, seed=4))


def test_weights_of_a_run_are_asked_as_well(trained: Run, tmp_path: Path) -> None:
    recipe = onward(trained, start=None, weights=str(trained.path), seed=4, train_epochs=1)
    with pytest.raises(PrunedgeError, match=r"taught the model .* without weights="):
        execute.train(recipe, tmp_path / "run")


def test_what_can_no_longer_be_told_is_said(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder has grown since: how it was split can't be found out any more."""
    run = Path(shutil.copytree(trained.path, tmp_path / "trained"))
    grown = Path(shutil.copytree(trained.config.data.path, tmp_path / "images"))
    with edited(run):
        recipe = (run / "config.toml").read_text().replace(trained.config.data.path, str(grown))
        (run / "config.toml").write_text(recipe)
    shutil.copyfile(grown / "crack" / "000.png", grown / "crack" / "more.png")
    with caplog.at_level(logging.WARNING):
        pruned = execute.prune(onward(open_run(run)), tmp_path / "run")
    said = "can't be told (its images are no longer what they were): test images may be among it"
    assert said in caplog.text
    assert f"mind: what {run} was taught with {said}" in text.pruned(pruned)
    shutil.rmtree(grown)
    assert [
        "can't be told" in line
        for line in asked(onward(open_run(run), data=trained.config.data.path, seed=4))
    ] == [True]
