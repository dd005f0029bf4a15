"""What masks are labelled with, and what a model's maps mean on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunedge.edge.inspect.grid import Grid
from prunedge.edge.inspect.overlay import grey_map
from prunedge.edge.tasks import decoder_of, mask_map, targets_of
from prunedge.edge.tasks.base import Labels, TaskSpec
from prunedge.edge.tasks.mask_map import map_edges
from prunedge.edge.tasks.mask_targets import IGNORE, damage_of
from prunedge.edge.tasks.segmentation import Segmentation
from prunedge.errors import BundleError, DataError

SPEC = TaskSpec(name="segmentation", classes=("background", "crack"), size=(8, 8))
DECODER = Segmentation(SPEC)
KINDS = Segmentation(
    SPEC.model_copy(update={"classes": ("sound", "crack", "rust")}),
)


@dataclass(frozen=True)
class Listed:
    label: str
    name: str = "0.png"


def labels(*names: str, classes: tuple[str, ...] = ("sound", "crack", "rust")) -> Labels:
    images = [Listed(name, f"{index}.png") for index, name in enumerate(names)]
    return Labels(images, "photos", "masks in masks", "", mask_classes=classes)


def logits_for(numbers: np.ndarray, classes: int = 2, high: float = 6.0) -> np.ndarray:
    """Logits (n, classes, h, w) of a model that is sure of these numbers (n, h, w)."""
    one_hot = np.arange(classes)[None, :, None, None] == numbers[:, None]
    return (high * one_hot).astype(np.float32)


def test_targets_are_the_classes_that_masks_show_but_for_the_first() -> None:
    targets = targets_of("segmentation", labels("crack", "", "crack;rust"))
    found = [targets.target(image) for image in labels("crack", "", "crack;rust").images]
    assert found == [(1,), (), (1, 2)]
    assert targets.strata(found).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert targets.strata_names == ("crack", "rust")
    assert targets.missing(found[:2]) == ("rust",)
    assert targets.outputs == 3
    assert targets.baseline(found) == "an empty mask is right for 33.3% of the images"


def test_labels_are_no_masks_and_masks_no_labels() -> None:
    with pytest.raises(DataError, match="all 2 masks are empty"):
        targets_of("segmentation", labels("", ""))
    with pytest.raises(DataError, match=r"learns from masks.*masks='MASKS'"):
        targets_of("segmentation", labels("a", "b", classes=()))
    with pytest.raises(DataError, match=r"no labels, but masks.*task='segmentation' takes them so"):
        targets_of("classification", labels("crack", "rust"))


@pytest.mark.parametrize(
    ("classes", "damage"),
    [
        (("background", "crack"), ("crack",)),
        (("a", "b", "c"), ("b", "c")),
        (("crack", "sound"), ("crack",)),
        (("background", "plant", "crack"), ("plant", "crack")),
    ],
)
def test_damage_is_told_by_names_or_all_but_the_first(
    classes: tuple[str, ...], damage: tuple[str, ...]
) -> None:
    assert damage_of(classes) == damage


def test_predictions_are_probabilities_of_each_pixel() -> None:
    outputs = np.random.default_rng(0).normal(0, 50, (3, 3, 8, 8)).astype(np.float32)
    predictions = KINDS.decode(outputs)
    np.testing.assert_allclose(predictions.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(predictions.argmax(1), outputs.argmax(1))
    assert KINDS.check(outputs, 3) is None
    assert KINDS.check_predictions(predictions, 3) is None
    for wrong in (outputs[:, :2], outputs[:2], outputs[..., :4], outputs.mean((2, 3))):
        assert KINDS.check(wrong, 3) is not None
        assert KINDS.check_predictions(wrong, 3) is not None
    assert KINDS.check_predictions(outputs, 3) == "answers that are no probabilities"
    broken = predictions.copy()
    broken[1, 2, 3, 4] = np.nan
    assert KINDS.check_predictions(broken, 3) == "answers that are no numbers"
    assert KINDS.warning(predictions, lambda: predictions) is not None
    assert KINDS.warning(outputs, lambda: outputs) is None


def test_an_answer_names_classes_and_a_table_has_their_shares() -> None:
    numbers = np.zeros((3, 8, 8), int)
    numbers[1, :2] = 1
    numbers[2, 0, 0] = 2
    predictions = KINDS.decode(logits_for(numbers, 3))
    assert KINDS.answers(predictions) == ["", "crack", "rust"]
    shares = KINDS.values(predictions)
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.75, 0.25, 0], [63 / 64, 0, 1 / 64]])


def test_agreement_is_the_share_of_pixels_but_for_those_that_are_as_good_as_equal() -> None:
    numbers = np.zeros((2, 8, 8), int)
    wanted = logits_for(numbers)
    other = wanted.copy()
    other[1, :, 0, :4] = other[1, ::-1, 0, :4]
    assert DECODER.agreement(other, wanted, 0.0).tolist() == [1.0, 60 / 64]
    # Where torch itself can't tell the classes apart, either is right.
    close = wanted.copy()
    close[1, :, 0, :4] = [[0.0], [1e-4]]
    assert DECODER.agreement(other, close, 0.0)[1] == 1.0
    assert DECODER.agreement(wanted, close, 0.0)[1] == 60 / 64
    assert DECODER.agreement(wanted, close, 2e-4)[1] == 1.0


def test_predictions_are_near_unless_a_pixel_differs() -> None:
    predictions = DECODER.decode(logits_for(np.zeros((1, 8, 8), int)))
    other = predictions.copy()
    assert DECODER.is_near(predictions, other)
    other[0, :, 3, 3] = other[0, ::-1, 3, 3]
    assert not DECODER.is_near(predictions, other)


def whole_of(decoder: Segmentation, grid: Grid, truth: np.ndarray, batch: int = 3) -> np.ndarray:
    """What `joined` makes of tiles that each answer the truth (height, width) of their place."""
    tiles = []
    for left, top, right, bottom in grid.boxes():
        tiles.append(truth[top:bottom, left:right])
    predictions = [np.stack((1 - tile, tile)).astype(np.float32) for tile in tiles]
    batches = [predictions[i : i + batch] for i in range(0, len(predictions), batch)]
    return decoder.joined((np.stack(each) for each in batches), grid)


@given(
    width=st.integers(8, 40),
    height=st.integers(8, 40),
    across=st.integers(1, 8),
    down=st.integers(1, 8),
)
@settings(max_examples=30, deadline=None)
def test_tiles_are_blended_without_a_seam(width: int, height: int, across: int, down: int) -> None:
    grid = Grid(width, height, (8, 8), (across, down))
    truth = np.random.default_rng(0).random((height, width))
    np.testing.assert_allclose(whole_of(DECODER, grid, truth)[0], truth, atol=4e-3)


def test_probabilities_that_halves_round_above_1_are_1() -> None:
    # Sums of float16 over many tiles: as a grey image of eight bits, 1.003 is black.
    grid = Grid(48, 48, (16, 16), (2, 2))
    joined = whole_of(
        Segmentation(SPEC.model_copy(update={"size": (16, 16)})), grid, np.ones((48, 48))
    )
    assert round(255 * float(joined.max())) > 255
    every = Segmentation(SPEC)
    for damage, value in ((("crack",), 1.0), (("background",), 0.0), (SPEC.classes, 1.0)):
        findings = every.findings(joined, grid, damage, 0.5)
        assert findings.mean.min() >= 0
        assert findings.mean.max() <= 1
        np.testing.assert_allclose(findings.mean, value, atol=4e-3)
        assert findings.surest == findings.mean.max()
        grey = np.asarray(grey_map(findings.mean))
        assert np.abs(grey - 255 * value).max() <= 1


def test_a_tile_counts_the_less_the_nearer_to_its_edge() -> None:
    grid = Grid(12, 8, (8, 8), (4, 8))
    predictions = np.zeros((2, 2, 8, 8), np.float32)
    predictions[0, 0] = 1
    predictions[1, 1] = 1
    row = DECODER.joined([predictions], grid)[0, 4].astype(float)
    assert row[:4].tolist() == [0] * 4
    assert row[8:].tolist() == [1] * 4
    np.testing.assert_allclose(row[4:8], np.array([1, 2, 3, 4]) / 5, atol=1e-3)


def test_findings_are_places_of_the_photograph_with_the_surest_class() -> None:
    grid = Grid(16, 8, (8, 8), (8, 8))
    numbers = np.zeros((2, 8, 8), int)
    numbers[0, 2:4, 1:7] = 1
    numbers[1, 5, 5] = 2
    joined = KINDS.joined([KINDS.decode(logits_for(numbers, 3))], grid)
    findings = KINDS.findings(joined, grid, ("crack", "rust"), 0.5)
    wanted = np.concatenate(tuple(numbers), axis=1)
    np.testing.assert_array_equal(findings.is_damaged, wanted > 0)
    assert findings.names == ("crack", "rust")
    assert findings.labels.dtype == np.uint8
    assert set(findings.labels[wanted == 1]) == {0}
    assert set(findings.labels[wanted == 2]) == {1}
    assert findings.tiles == 2
    assert findings.surest == pytest.approx(float(findings.mean.max()))
    only = KINDS.findings(joined, grid, ("rust",), 0.5)
    np.testing.assert_array_equal(only.is_damaged, wanted == 2)
    assert only.tiles == 1
    first = KINDS.findings(joined, grid, ("sound",), 0.5)
    np.testing.assert_array_equal(first.is_damaged, wanted == 0)


def test_a_border_is_no_part_of_the_photograph() -> None:
    decoder = Segmentation(SPEC.model_copy(update={"resize": "pad"}))
    grid = Grid(16, 8, (16, 8), (16, 8))
    prediction = np.zeros((1, 2, 8, 8), np.float32)
    prediction[0, 0] = 1
    prediction[0, :, :2] = prediction[0, :, 6:] = [[[0.0]], [[1.0]]]  # damage in the border alone
    findings = decoder.findings(decoder.joined([prediction], grid), grid, ("crack",), 0.5)
    assert findings.mean.shape == (8, 16)
    assert not findings.is_damaged.any()


def test_a_mask_is_as_large_as_its_image_and_knows_what_was_not_seen() -> None:
    numbers = np.zeros((8, 8), int)
    numbers[:, 4:] = 2
    prediction = KINDS.decode(logits_for(numbers[None], 3))[0]
    mask = KINDS.mask(prediction, 16, 24)
    np.testing.assert_array_equal(mask, np.repeat(np.repeat(numbers, 3, 0), 2, 1))

    cropping = Segmentation(KINDS.spec.model_copy(update={"resize": "crop"}))
    mask = cropping.mask(prediction, 16, 8)
    assert (mask[:, :4] == IGNORE).all()
    np.testing.assert_array_equal(mask[:, 4:12], numbers)

    padding = Segmentation(KINDS.spec.model_copy(update={"resize": "pad"}))
    mask = padding.mask(prediction, 16, 8)
    np.testing.assert_array_equal(mask[::2, ::2], numbers[2:6])


def test_a_large_photograph_has_a_map_of_several_pixels_a_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mask_map, "MOST_PIXELS", 16 * 16)
    grid = Grid(47, 33, (8, 8), (4, 4))
    down, across = map_edges(grid)
    assert down.tolist() == [*range(0, 33, 3), 33]
    assert across[-1] == 47
    joined = whole_of(DECODER, grid, np.ones((33, 47)))
    assert joined.shape == (1, 11, 16)
    np.testing.assert_allclose(joined, 1, atol=4e-3)


def test_a_manifest_with_one_class_is_refused() -> None:
    with pytest.raises(BundleError, match="one class"):
        decoder_of(SPEC.model_copy(update={"classes": ("crack",)}))
    assert isinstance(decoder_of(SPEC), Segmentation)
