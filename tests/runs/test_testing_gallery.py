"""Which test images are shown: wrong ones, the surest first, and those nearest to the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunedge.data import Split, load
from prunedge.runs import execute
from prunedge.runs.testing_gallery import Decided, borderline, gallery_of, worst
from tests.several_labels import CLASSES, write_several
from tests.small_runs import small_recipe

SCORES = [0.05, 0.29, 0.31, 0.9, 0.99, 0.2, 0.001, 0.6]
DAMAGED = [True, True, True, True, False, False, False, False]


def decided(was_called: np.ndarray | None = None) -> Decided:
    scores = np.array(SCORES, np.float64)[:, None]
    return Decided(scores, np.array(DAMAGED)[:, None], 0.3, was_called)


def test_missed_damage_and_false_alarms_the_surest_first() -> None:
    assert worst(decided(), missed=True) == [(0, 0), (1, 0)]
    assert worst(decided(), missed=False) == [(4, 0), (7, 0)]
    assert worst(decided(), missed=True, most=1) == [(0, 0)]


def test_nearest_to_the_threshold_right_or_wrong() -> None:
    assert borderline(decided(), most=3) == [(2, 0), (1, 0), (5, 0)]


def test_surer_is_by_odds_and_not_by_difference() -> None:
    """0.0001 is far surer than 0.01, whose distance from a threshold of a half is about the same."""
    scores = np.array([[0.01], [0.0001], [0.999]])
    wrong = Decided(scores, np.array([[True], [True], [False]]), 0.5, None)
    assert worst(wrong, missed=True) == [(1, 0), (0, 0)]
    assert borderline(wrong)[0] == (0, 0)


def test_certain_answers_have_an_order_too() -> None:
    certain = Decided(np.array([[0.0], [1.0]]), np.array([[True], [False]]), 0.5, None)
    assert worst(certain, missed=True) == [(0, 0)]
    assert worst(certain, missed=False) == [(1, 0)]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Split:
    manifest = write_several(tmp_path_factory.mktemp("images"), count=40)
    return load(manifest, size=16, task="multilabel").test


def test_records_name_the_label_that_was_decided(several: Split) -> None:
    count = len(several)
    is_damaged = several.targets().astype(bool)
    scores = np.where(is_damaged, 0.9, 0.1)
    crack = int(np.flatnonzero(is_damaged[:, 0])[0])
    sound = int(np.flatnonzero(~is_damaged[:, 1])[0])
    scores[crack, 0] = 0.02
    scores[sound, 1] = 0.97
    called = np.zeros((count, 2), bool)
    called[crack, 0] = True
    told = gallery_of(Decided(scores, is_damaged, 0.5, called, CLASSES), several)

    missed, alarm = told["wrong"]
    assert missed["path"] == str(several.samples[crack].path)
    assert (missed["part"], missed["is_damaged"], missed["is_called"]) == ("crack", True, False)
    assert missed["was_called"] is True
    assert "crack" in missed["label"]
    assert (alarm["part"], alarm["is_damaged"], alarm["probability"]) == ("rust", False, 0.97)
    assert "rust" not in alarm["label"]
    assert len(told["borderline"]) == min(2 * count, 12)


def test_without_the_unpruned_model_nothing_is_said_of_it(tiny_data: Path) -> None:
    test = load(tiny_data, size=16).test
    is_damaged = np.arange(len(test))[:, None] % 2 == 0
    wrong = Decided(np.full((len(test), 1), 0.1), is_damaged, 0.5, None)
    assert {record["was_called"] for record in gallery_of(wrong, test)["wrong"]} == {None}


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_run_shows_what_its_decisions_count(task: str, tiny_data: Path, tmp_path: Path) -> None:
    data = tiny_data if task == "classification" else write_several(tmp_path / "images")
    recipe = small_recipe(data, task=task, operate="recall >= 0.9")
    test = execute.prune(recipe, tmp_path / "run").test() or {}
    counts = test["decisions"]["best"]["test"]
    missed = [shown for shown in test["wrong"] if shown["is_damaged"]]
    assert len(missed) == min(counts["missed"], 24)
    assert len(test["wrong"]) - len(missed) == min(counts["alarms"], 24)
    threshold = test["decisions"]["best"]["threshold"]
    for shown in [*test["wrong"], *test["borderline"]]:
        assert shown["is_called"] == (shown["probability"] >= threshold)
        assert isinstance(shown["was_called"], bool)
        assert bool(shown["part"]) == (task == "multilabel")
    for shown in test["wrong"]:
        assert shown["is_called"] != shown["is_damaged"]
    assert test["borderline"]
