"""What images with several labels are labelled with, and what a model's outputs mean for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.tasks import decoder_of, targets_of
from prunedge.edge.tasks.base import Labels, TaskSpec
from prunedge.edge.tasks.multilabel import LabelTargets
from prunedge.errors import DataError

CLASSES = ("crack", "rust", "spall")
TARGETS = LabelTargets(CLASSES)
DECODER = decoder_of(TaskSpec(name="multilabel", classes=CLASSES, size=(16, 16)))


@dataclass(frozen=True)
class Listed:
    label: str
    name: str = "0.png"


def labels(*names: str) -> Labels:
    images = [Listed(name) for name in names]
    return Labels(images, "images.csv", "column label", "expected a CSV")


def test_classes_are_those_that_any_image_lists() -> None:
    assert targets_of("multilabel", labels("rust; crack", "", "spall", "rust")) == TARGETS
    assert targets_of("multilabel", labels("10;9", "100")).classes == ("9", "10", "100")
    assert targets_of("multilabel", labels("crack", "")).classes == ("crack",)


def test_a_target_is_the_indices_of_the_classes() -> None:
    assert TARGETS.target(Listed("spall;crack")) == (0, 2)
    assert TARGETS.target(Listed(" crack ;; crack")) == (0,)
    assert TARGETS.target(Listed("")) == ()
    batch = TARGETS.collate([(0, 2), (), (1,)])
    assert batch.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert batch.dtype == np.float32
    assert TARGETS.collate([]).shape == (0, 3)


def test_strata_are_the_classes_and_an_image_may_count_in_several() -> None:
    assert TARGETS.strata_names == CLASSES
    assert TARGETS.strata([(0, 2), ()]).tolist() == [[1, 0, 1], [0, 0, 0]]
    assert TARGETS.missing([(0, 2), ()]) == ("rust",)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (("crack;rust", "rust;crack"), "all images are labelled 'crack;rust'"),
        (("", ""), "all images are without label"),
        (("crack|rust", "crack", "rust;spall"), "lists of labels"),
        (("[crack, rust]", "crack"), "lists of labels"),
        (tuple(f"{i / 1000:.3f}" for i in range(50, 90)), "numbers"),
    ],
)
def test_labels_that_name_no_classes_are_refused(listed: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said.replace("|", r"\|")) as refused:
        targets_of("multilabel", labels(*listed))
    assert refused.value.where == "images.csv"
    assert "crack;rust" in str(refused.value.remedy)


def test_what_another_task_takes_names_that_task() -> None:
    for listed in (("crack", "crack;rust", "rust"), ("crack", "", "rust")):
        with pytest.raises(DataError) as refused:
            targets_of("classification", labels(*listed))
        assert str(refused.value.remedy).startswith("task='multilabel' takes them so")
    with pytest.raises(DataError) as refused:
        targets_of("classification", labels("crack", "crack"))
    assert "multilabel" not in str(refused.value)


def test_predictions_are_a_probability_of_each_class() -> None:
    outputs = np.array([[0.0, 800.0, -800.0]], np.float32)
    predictions = DECODER.decode(outputs)
    assert predictions.tolist() == [[0.5, 1.0, 0.0]]
    assert predictions.dtype == np.float32
    assert DECODER.check_predictions(predictions, 1) is None
    assert DECODER.allows_none


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.full((1, 3), np.nan), "no numbers"),
        (np.full((1, 3), 1.5), "no probabilities"),
    ],
)
def test_what_can_be_no_predictions_is_said(predictions: np.ndarray, said: str) -> None:
    assert said in str(DECODER.check_predictions(predictions, 1))


def test_outputs_have_one_number_for_each_class() -> None:
    assert DECODER.check(np.zeros((2, 3)), 2) is None
    assert "3 classes" in str(DECODER.check(np.zeros((2, 4)), 2))


def test_the_same_labels_agree_and_what_lies_at_the_threshold_is_no_difference() -> None:
    wanted = np.array([[3.0, -3.0, 0.01], [3.0, -3.0, 0.01], [3.0, -3.0, 2.0]])
    found = np.array([[9.0, -1.0, 0.2], [3.0, -3.0, -0.01], [3.0, 1.0, 2.0]])
    assert DECODER.agreement(found, wanted, 0.0).tolist() == [True, False, False]
    assert DECODER.agreement(found, wanted, 0.05).tolist() == [True, True, False]


def test_a_model_that_ends_in_a_sigmoid_is_noticed() -> None:
    squashed = np.array([[0.2, 0.7, 0.9]])
    assert "ends in a sigmoid" in str(DECODER.warning(squashed, lambda: np.array([[0.0, 1, 1]])))
    assert DECODER.warning(squashed, lambda: np.array([[20.0, 70, 90]])) is None


def test_a_tile_is_as_damaged_as_its_surest_class() -> None:
    grid = Grid(32, 16, (16, 16), (16, 16))
    predictions = np.array([[0.6, 0.9, 0.1], [0.2, 0.3, 0.4]], np.float32)
    found = DECODER.findings(predictions, grid, CLASSES, 0.5)
    assert found.tiles == 1
    assert found.surest == pytest.approx(0.9)
    assert found.names[found.labels[0, 0]] == "rust"
    assert found.names[found.labels[-1, -1]] == "spall"
    assert found.is_damaged[0, 0]
    assert not found.is_damaged[-1, -1]
    assert DECODER.findings(predictions, grid, ("spall",), 0.5).tiles == 0
