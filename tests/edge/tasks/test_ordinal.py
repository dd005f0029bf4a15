"""What images of degrees are labelled with, and what a model's outputs mean for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.tasks import decoder_of, targets_of
from prunedge.edge.tasks.base import Labels, TaskSpec
from prunedge.edge.tasks.ordinal import DegreeTargets, degrees_in
from prunedge.errors import DataError

DEGREES = ("none", "light", "severe")
ORDER = "none,light,severe"
TARGETS = DegreeTargets(DEGREES)
DECODER = decoder_of(TaskSpec(name="ordinal", classes=DEGREES, size=(16, 16)))


@dataclass(frozen=True)
class Listed:
    label: str
    name: str = "0.png"


def labels(*names: str) -> Labels:
    images = [Listed(name, f"{index}.png") for index, name in enumerate(names)]
    return Labels(images, "images.csv", "column label", "expected a CSV")


def test_numbers_have_their_own_order() -> None:
    assert targets_of("ordinal", labels("10", "9", "-1", "100")).classes == ("-1", "9", "10", "100")
    thirds = ("1.0", "0.0", "0.6667", "0.3333") * 6
    assert targets_of("ordinal", labels(*thirds)).classes == ("0.0", "0.3333", "0.6667", "1.0")
    assert targets_of("ordinal", labels(*("0,5", "0") * 5)).classes == ("0", "0,5")


def test_names_have_the_order_that_is_given() -> None:
    found = targets_of("ordinal", labels("severe", "none", "light"), order=" none, light ,severe")
    assert found == TARGETS
    turned = targets_of("ordinal", labels("2", "1"), order="2,1")
    assert turned.classes == ("2", "1")  # a mark, where less is better


@pytest.mark.parametrize(
    ("listed", "order", "said", "remedy"),
    [
        (("light", "none"), None, "have no order", "order='light,none'"),
        (("none", "bad"), ORDER, "'bad' of 1.png is none of the degrees", "mend the label"),
        (("1", "2", "bad"), None, "'bad' of 2.png is no number", "order="),
        (("1", "1.0"), None, "are the same degree", "one way"),
        (("3", "3"), None, "only one degree, '3'", "at least two"),
        (("none", "none"), ORDER, "only one degree", "at least two"),
        (("1", "2", ""), None, "1 image without degree: 2.png", "give each image"),
        (("1", "nan"), None, "'nan' of 1.png is no number", "mend it"),
        (("1", "1e999"), None, "'1e999' of 1.png is no number", "mend it"),
        (
            tuple(f"{i / 1000:.3f}" for i in range(50, 90)),
            None,
            "numbers to estimate",
            "regression",
        ),
    ],
)
def test_labels_that_are_no_degrees_are_refused(
    listed: tuple[str, ...], order: str | None, said: str, remedy: str
) -> None:
    with pytest.raises(DataError) as refused:
        targets_of("ordinal", labels(*listed), order)
    assert said in refused.value.what
    assert remedy in str(refused.value.remedy)
    assert refused.value.where == "images.csv"


def test_a_target_is_the_index_of_the_degree() -> None:
    assert TARGETS.target(Listed("severe")) == 2
    assert TARGETS.collate([2, 0]).tolist() == [2, 0]
    assert TARGETS.strata([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert TARGETS.missing([2, 0]) == ("light",)
    assert TARGETS.outputs == 2


def test_predictions_are_a_probability_of_each_degree() -> None:
    outputs = np.array([[0.0, 0.0], [800.0, 800.0], [-800.0, 800.0]], np.float32)
    predictions = DECODER.decode(outputs)
    assert predictions.tolist() == [[0.5, 0.25, 0.25], [0, 0, 1], [1, 0, 0]]
    assert predictions.dtype == np.float32
    assert DECODER.check_predictions(predictions, 3) is None
    assert not DECODER.allows_none


def test_the_answer_is_the_median_degree_and_not_the_most_probable_one() -> None:
    probabilities = np.array([[0.4, 0.25, 0.35], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert degrees_in(probabilities).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.full((1, 3), np.nan), "no numbers"),
        (np.full((1, 3), 0.9), "no probabilities"),
    ],
)
def test_what_can_be_no_predictions_is_said(predictions: np.ndarray, said: str) -> None:
    assert said in str(DECODER.check_predictions(predictions, 1))


def test_outputs_are_one_less_than_there_are_degrees() -> None:
    assert DECODER.check(np.zeros((2, 2)), 2) is None
    assert "one output less" in str(DECODER.check(np.zeros((2, 3)), 2))


def test_the_same_degree_agrees_and_what_lies_at_its_edge_is_no_difference() -> None:
    wanted = np.array([[3.0, -3.0], [0.01, -3.0], [3.0, -3.0]])
    found = np.array([[1.0, -1.0], [-0.01, -3.0], [3.0, 3.0]])
    assert DECODER.agreement(found, wanted, 0.0).tolist() == [True, False, False]
    assert DECODER.agreement(found, wanted, 0.05).tolist() == [True, True, False]


def test_a_model_that_ends_in_a_sigmoid_is_noticed() -> None:
    squashed = np.array([[0.2, 0.9]])
    assert "ends in a sigmoid" in str(DECODER.warning(squashed, lambda: np.array([[0.0, 1]])))
    assert DECODER.warning(squashed, lambda: np.array([[20.0, 90]])) is None


def test_all_degrees_but_the_lowest_are_damage_and_a_tile_is_called_by_its_answer() -> None:
    assert DECODER.damage == ("light", "severe")
    assert DECODER.threshold(None, DECODER.damage) == 0.5
    with pytest.raises(DataError, match=r"probability of 1\.5"):
        DECODER.threshold(1.5, DECODER.damage)
    grid = Grid(32, 16, (16, 16), (16, 16))
    predictions = np.array([[0.4, 0.25, 0.35], [0.9, 0.04, 0.06]], np.float32)
    found = DECODER.findings(predictions, grid, DECODER.damage, 0.5)
    assert found.tiles == 1
    assert found.surest == pytest.approx(0.6)
    assert found.names[found.labels[0, 0]] == "light"
    assert found.names[found.labels[-1, -1]] == "severe"
    assert found.is_damaged[0, 0]
    assert not found.is_damaged[-1, -1]
