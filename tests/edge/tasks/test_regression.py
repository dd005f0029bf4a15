"""What images of numbers are labelled with, and what a model's outputs mean for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.tasks import decoder_of, targets_of
from prunedge.edge.tasks.base import Labels, Scale, TaskSpec, scale_rows, scales_in
from prunedge.edge.tasks.regression import NumberTargets
from prunedge.errors import BundleError, DataError

WIDTH = Scale(mean=3.0, deviation=2.0, median=2.5, lowest=0.0, highest=10.0)
DEPTH = Scale(mean=100.0, deviation=50.0, median=90.0, lowest=0.0, highest=300.0)
SPEC = TaskSpec(name="regression", classes=("width", "depth"), size=(16, 16), scales=(WIDTH, DEPTH))
DECODER = decoder_of(SPEC)


@dataclass(frozen=True)
class Listed:
    label: str
    name: str = "0.png"


def labels(*names: str, columns: tuple[str, ...] = ()) -> Labels:
    images = [Listed(name, f"{index}.png") for index, name in enumerate(names)]
    return Labels(images, "images.csv", "column label", "expected a CSV", columns=columns)


def test_numbers_are_called_by_their_columns() -> None:
    assert targets_of("regression", labels("3.2", "1e1", "-4")).classes == ("value",)
    assert targets_of("regression", labels("3", "4", columns=("width",))).classes == ("width",)
    two = targets_of("regression", labels("3;1", "4;2", columns=("width", "depth")))
    assert two.classes == ("width", "depth")
    assert targets_of("regression", labels("3;1", "4;2")).classes == ("value 1", "value 2")
    assert two.target(Listed(" 3 ; 0,5 ")) == (3.0, 0.5)
    batch = two.collate([(3.0, 0.5)])
    assert batch.tolist() == [[3.0, 0.5]]
    assert batch.dtype == np.float32
    assert two.collate([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("listed", "columns", "said"),
    [
        (("3", "much"), (), "'much' of 1.png is no finite number (column label)"),
        (("3", "nan"), (), "'nan' of 1.png"),
        (("3", "1e999"), (), "'1e999' of 1.png"),
        (("3", ""), (), "'' of 1.png"),
        (("3;1", "4;x"), ("width", "depth"), "'x' of 1.png is no finite number (column depth)"),
        (("3;1", "4"), (), "1.png has 1 numbers, and others have another number of them"),
        (("3", "3", "3.0"), (), "all images have the same number"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(
    listed: tuple[str, ...], columns: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataError) as refused:
        targets_of("regression", labels(*listed, columns=columns))
    assert said in refused.value.what
    assert "column label or value" in str(refused.value.remedy)
    assert refused.value.where == "images.csv"


def test_columns_of_numbers_are_no_classes() -> None:
    with pytest.raises(DataError, match="no labels, but numbers") as refused:
        targets_of("classification", labels("3", "4", columns=("width",)))
    assert "task='regression' takes them so" in str(refused.value.remedy)
    with pytest.raises(DataError, match="several numbers for each image"):
        targets_of("ordinal", labels("3;1", "4;1", columns=("width", "depth")))
    assert targets_of("ordinal", labels("3", "4", columns=("wear",))).classes == ("3", "4")


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=40).filter(
        lambda numbers: len(set(numbers)) > 1
    )
)
def test_every_image_counts_in_one_range_and_no_range_is_empty(numbers: list[float]) -> None:
    found = targets_of("regression", labels(*map(repr, numbers)))
    strata = found.strata([found.target(Listed(repr(number))) for number in numbers])
    assert strata.shape == (len(numbers), len(found.strata_names))
    assert (strata.sum(1) == 1).all()
    assert (strata.sum(0) > 0).all()
    assert len(set(found.strata_names)) == len(found.strata_names) <= 4


def test_ranges_have_as_many_images_each() -> None:
    found = targets_of("regression", labels(*map(str, range(100))))
    assert found.strata_names == (
        "value <= 24",
        "24 < value <= 49",
        "49 < value <= 74",
        "value > 74",
    )
    assert found.strata([(float(i),) for i in range(100)]).sum(0).tolist() == [25] * 4
    assert found.missing([(3.0,)]) == ()
    assert found.missing([]) == found.strata_names


def test_scales_are_those_of_the_training_images() -> None:
    targets = NumberTargets(("width", "depth"))
    (width, depth) = targets.scales_of([(1.0, 10.0), (2.0, 20.0), (6.0, 60.0)])
    assert width == Scale(
        mean=3.0, deviation=np.std([1, 2, 6]), median=2.0, lowest=1.0, highest=6.0
    )
    assert depth.mean == 30
    assert scales_in(scale_rows((width, depth))) == (width, depth)
    with pytest.raises(DataError, match="the depth of all training images is 5"):
        targets.scales_of([(1.0, 5.0), (2.0, 5.0)])
    scaled = targets.scaled((width, depth))
    assert "(width 2, depth 20) is off by 1, 10 in the mean" in scaled.baseline(
        [(1.0, 10.0), (3.0, 30.0)]
    )


def test_predictions_are_in_the_numbers_units() -> None:
    predictions = DECODER.decode(np.array([[0.0, 1.0], [-1.0, -2.0]], np.float32))
    assert predictions.tolist() == [[3.0, 150.0], [1.0, 0.0]]
    assert predictions.dtype == np.float32
    assert DECODER.check_predictions(predictions, 2) is None
    assert "shape" in str(DECODER.check_predictions(predictions, 3))
    assert "no numbers" in str(DECODER.check_predictions(np.full((1, 2), np.inf), 1))
    assert DECODER.check(np.zeros((2, 2)), 2) is None
    assert "2 numbers" in str(DECODER.check(np.zeros((2, 3)), 2))


def test_a_bundle_without_scales_is_refused() -> None:
    with pytest.raises(BundleError, match="0 scales for 2 numbers"):
        decoder_of(SPEC.model_copy(update={"scales": ()}))


def test_answers_agree_to_a_tenth_of_a_deviation_and_differ_in_their_unit() -> None:
    wanted = np.zeros((3, 2), np.float32)
    found = np.array([[0.05, 0.0], [0.0, 0.2], [0.09, -0.09]], np.float32)
    assert DECODER.agreement(found, wanted, 0.0).tolist() == [True, False, True]
    assert DECODER.agreement(found, wanted, 0.3).all()
    apart = DECODER.differences(found, wanted)
    assert apart["largest_difference"] == pytest.approx(10)  # of depth
    assert apart["mean_difference"] == pytest.approx((0.1 + 10 + 0.18 + 4.5) / 6)
    near = DECODER.decode(wanted)
    assert DECODER.is_near(near, near + np.array([0.09, 2.4]))
    assert not DECODER.is_near(near, near + np.array([0.11, 0.0]))


def test_a_tile_is_as_damaged_as_its_number_lies_high_among_those_of_the_training_images() -> None:
    grid = Grid(32, 16, (16, 16), (16, 16))
    predictions = np.array([[6.0, 30.0], [2.0, 90.0]], np.float32)
    assert DECODER.damage == ("width",)
    assert DECODER.threshold(None, ("depth",)) == 150
    found = DECODER.findings(predictions, grid, ("width",), 6.0)
    assert found.tiles == 1
    assert found.span == (0.0, 10.0)
    assert found.surest == pytest.approx(0.6)
    assert found.numbers == {"width": 4.0, "depth": 60.0}
    assert found.is_damaged[0, 0]
    assert not found.is_damaged[-1, -1]
    assert {found.names[place] for place in found.labels.ravel()} == {"width"}
    beyond = DECODER.findings(10 * predictions, grid, ("width",), 10.0)
    assert beyond.surest == 1
    assert beyond.numbers["width"] == 40


@pytest.mark.parametrize(
    ("given_threshold", "damage", "said"),
    [
        (11.0, ("width",), "outside of what the model learned of width"),
        (0.0, ("width",), "outside of what"),
        (1.0, ("width", "depth"), "no threshold in common"),
    ],
)
def test_a_threshold_that_says_nothing_is_refused(
    given_threshold: float, damage: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        DECODER.threshold(given_threshold, damage)


def test_targets_with_other_scales_are_the_same_otherwise() -> None:
    targets = NumberTargets(("width",), (1.0,))
    assert targets.scaled((WIDTH,)) == replace(targets, scales=(WIDTH,))
