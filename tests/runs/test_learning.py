"""The epochs of each training of a run, and what its images are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from prunedge.data import load
from prunedge.errors import RunError
from prunedge.runs import execute
from prunedge.runs.data_record import data_record
from prunedge.runs.learning import learned
from prunedge.runs.run import Run, open_run
from tests.small_runs import small_recipe


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = small_recipe(tiny_data, train_epochs=3, epochs=2, growing_epochs=False, polish=1)
    return execute.prune(recipe, tmp_path_factory.mktemp("runs") / "run")


def test_every_training_has_its_epochs(run: Run) -> None:
    epochs = learned(run)
    first, step, polish = run.steps()
    assert polish.is_polish
    assert [len(epochs[index]) for index in range(3)] == [3, step.epochs, 1]
    assert all(epoch.metrics is not None for epoch in epochs[0])
    best = [epoch.metrics["accuracy"] for epoch in epochs[0] if epoch.metrics]
    assert max(best) == first.metrics["accuracy"]
    assert [epoch.metrics for epoch in epochs[1]] == [None] * step.epochs
    assert all(epoch.loss > 0 for several in epochs.values() for epoch in several)


def test_a_training_that_was_taken_over_has_no_epochs_here(run: Run, tmp_path: Path) -> None:
    recipe = run.config.with_values(
        start=str(run.path), train_epochs=0, schedule_epochs=3, polish=0, max_steps=1
    )
    onward = execute.prune(recipe, tmp_path / "onward")
    assert 0 not in learned(onward)
    assert learned(onward)[1]


def test_damaged_learning_curves_are_called_damaged(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = open_run(tmp_path / "run")
    copy.write("learning.json", {"first": [{"loss": 1.0, "metrics": None}]})
    with pytest.raises(RunError, match=r"damaged.*learning\.json"):
        learned(copy)
    copy.write("learning.json", {"0": [{"loss": "low", "metrics": None}]})
    with pytest.raises(RunError, match="only the learning curves are lost"):
        learned(copy)


def test_the_images_are_counted_when_the_run_begins(run: Run, tiny_data: Path) -> None:
    told = run.read("data.json")
    data = load(tiny_data, size=16, seed=3)
    assert told["images"] == {name: len(split) for name, split in data.splits().items()}
    assert told["counts"]["test"] == data.test.counts()
    assert told["sizes"]["different"] >= 1
    assert told["heading"] == "class"


def test_sources_are_counted_for_each_split(tiny_data: Path) -> None:
    data = load(tiny_data, size=16)
    assert data_record(data).sources is None
    samples = [
        replace(sample, source=f"bridge {place % 2}")
        for place, sample in enumerate(data.test.samples)
    ]
    known = replace(data, test=replace(data.test, samples=tuple(samples)))
    assert data_record(known).sources == {"train": 0, "val": 0, "test": 2}
