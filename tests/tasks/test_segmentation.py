"""Segmentation: the loss, the metrics pooled over images, what a constant answer scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_jaccard_index, multiclass_precision

import prunedge as pe
from prunedge.config import RunConfig
from prunedge.edge.tasks import DEFINITIONS
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.decision import DamageSpec
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import ExtraMissing, ModelError, PrunedgeError, TrainError
from prunedge.pruning.judging import refuse_undefined
from prunedge.tasks import TASKS, Metrics, centrelines, make_task
from prunedge.tasks.segmentation import Segmentation, SegmentationMeter
from prunedge.tasks.weighting import LossWeighting
from prunedge.train.intervals import intervals_of
from prunedge.utils.records import require
from tests.masked_images import numbers_with, write_pair

SPEC = TaskSpec(name="segmentation", classes=("background", "crack"), size=(16, 16))
TASK = make_task(SPEC)
KINDS = make_task(SPEC.model_copy(update={"classes": ("background", "crack", "spalling")}))

assert isinstance(TASK, Segmentation)
assert isinstance(KINDS, Segmentation)


def random_pair(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks that have something to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(classes, (n, 16, 16), generator=generator, dtype=torch.uint8)
    logits = torch.randn(n, classes, 16, 16, generator=generator)
    return logits + F.one_hot(masks.long(), classes).movedim(-1, 1), masks


def meter_of(
    logits: torch.Tensor, masks: torch.Tensor, task: Segmentation = TASK, batch: int = 100
) -> SegmentationMeter:
    meter = task.meter()
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        meter.update(meter.observe(logits[part], masks[part]))
    return meter


def measure(logits: torch.Tensor, masks: torch.Tensor, task: Segmentation = TASK) -> Metrics:
    return meter_of(logits, masks, task).compute()


def sure(numbers: torch.Tensor, classes: int = 2, high: float = 20.0) -> torch.Tensor:
    """Logits of a model that is sure of these numbers (n, h, w)."""
    return high * F.one_hot(numbers.long(), classes).movedim(-1, 1).float()


def line_at(row: int, thick: int = 3) -> torch.Tensor:
    mask = torch.zeros(1, 16, 16, dtype=torch.uint8)
    mask[0, row : row + thick] = 1
    return mask


def test_metrics_are_torchmetrics_of_all_pixels_together() -> None:
    logits, masks = random_pair(6, 3)
    masks[2, :4] = IGNORE
    found = measure(logits, masks, KINDS)
    labels = masks.long()
    each = multiclass_jaccard_index(
        logits, labels, num_classes=3, average="none", ignore_index=IGNORE
    )
    assert found.iou == pytest.approx(float(each[1:].mean()), rel=1e-6)
    assert [record["iou"] for record in found.classes] == pytest.approx(each.tolist(), rel=1e-6)
    precision = multiclass_precision(
        logits, labels, num_classes=3, average="none", ignore_index=IGNORE
    )
    assert found.precision == pytest.approx(float(precision[1:].mean()), rel=1e-6)
    assert found.dice == pytest.approx(
        np.mean([2 * record["iou"] / (1 + record["iou"]) for record in found.classes[1:]]), rel=1e-6
    )
    assert sum(record["pixels"] for record in found.classes) == 6 * 256 - 4 * 16


def test_the_loss_is_cross_entropy_and_dice_of_each_image_alone() -> None:
    logits, masks = random_pair(5, 3)
    masks[1, 3:9] = IGNORE
    together = float(KINDS.loss(logits, masks))
    alone = [float(KINDS.loss(logits[i : i + 1], masks[i : i + 1])) for i in range(5)]
    assert together == pytest.approx(np.mean(alone), rel=1e-6)
    assert measure(logits, masks, KINDS).loss == pytest.approx(together, rel=1e-6)

    by_hand = []
    for scores, mask in zip(logits.double(), masks, strict=True):
        counting = mask != IGNORE
        picked = scores[:, counting]
        entropy = F.cross_entropy(picked.T, mask[counting].long())
        probable = picked.softmax(0)
        dice = []
        for number in (1, 2):
            truth = (mask[counting] == number).double()
            both = (probable[number] * truth).sum()
            dice.append((2 * both + 1) / (probable[number].sum() + truth.sum() + 1))
        by_hand.append(float(entropy + 1 - (dice[0] + dice[1]) / 2))
    assert float(KINDS.loss(logits, masks, double=True)) == pytest.approx(np.mean(by_hand))
    assert KINDS.loss(logits, masks, double=True).dtype == torch.float64
    assert float(KINDS.loss(logits, masks, label_smoothing=0.2)) > together


def test_what_is_ignored_changes_nothing_and_an_image_of_it_alone_is_no_trouble() -> None:
    logits, masks = random_pair(4, 2)
    masks[0, 5:] = IGNORE
    before = measure(logits, masks)
    other = logits.clone()
    other[0, :, 5:] = -7
    after = measure(other, masks)
    assert {**after.to_json(), "spread": 0} == {**before.to_json(), "spread": 0}
    masks[0] = IGNORE
    logits.requires_grad_(True)
    loss = TASK.loss(logits, masks)
    loss.backward()
    assert bool(loss.isfinite())
    assert logits.grad is not None
    assert float(logits.grad[0].abs().max()) == 0
    assert float(logits.grad[1].abs().max()) > 0


def test_metrics_per_image_are_the_mean_over_images_and_1_where_nothing_is_there_nor_answered() -> (
    None
):
    nothing = torch.zeros_like(line_at(4))
    masks = torch.cat([line_at(4, 4), line_at(4, 4), nothing, nothing, nothing])
    answers = torch.cat([line_at(4, 4), line_at(6, 4), nothing, line_at(9), nothing])
    masks[4] = IGNORE  # counts for nothing
    found = measure(sure(answers), masks)
    assert found.iou_per_image == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)
    assert found.dice_per_image == pytest.approx((1 + 1 / 2 + 1 + 0) / 4)
    assert found.iou == pytest.approx((64 + 32) / (64 + 96 + 48))
    # Within four pixels all of both lines is found.
    assert found.cliou_per_image == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert 0.5 <= found.cldice_per_image <= 0.75
    missed = measure(sure(torch.zeros_like(masks[:1])), masks[:1])
    for name in ("iou", "dice", "cliou", "cldice"):
        assert missed.values[f"{name}_per_image"] == 0


def test_metrics_per_image_of_several_classes_are_means_over_those_that_are_shown() -> None:
    logits, masks = random_pair(6, 3)
    masks[masks == 2] = 0
    masks[3] = 0
    found = measure(logits, masks, KINDS)
    each = []
    for answer, mask in zip(logits.argmax(1), masks, strict=True):
        there = mask == 1
        both = int((there & (answer == 1)).sum())
        each.append(both / int((there | (answer == 1)).sum()))
    assert found.iou_per_image == pytest.approx(np.mean(each))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_of_one_image_with_damage_metrics_per_image_are_the_pooled_ones(seed: int, n: int) -> None:
    logits, masks = random_pair(n, 2, seed)
    meter = meter_of(logits, masks)
    weights = np.eye(n)
    figures = {one.metric.name: one.values for one in TASK.figures(meter, weights).metrics}
    for name in ("iou", "dice", "cliou", "cldice"):
        np.testing.assert_allclose(figures[f"{name}_per_image"], figures[name])
        together = measure(logits, masks).values[f"{name}_per_image"]
        assert together == pytest.approx(figures[name].mean())


def test_batches_and_the_order_they_come_in_change_no_metric() -> None:
    logits, masks = random_pair(7, 3)
    whole = meter_of(logits, masks, KINDS).compute()
    parts = meter_of(logits, masks, KINDS, batch=2).compute()
    assert parts.values == pytest.approx(whole.values)
    assert parts.details["classes"] == whole.details["classes"]


def test_metrics_without_damage_are_not_defined_and_false_alarms_alone_are_precision_0() -> None:
    empty = torch.zeros(2, 16, 16, dtype=torch.uint8)
    assert set(measure(sure(empty), empty).values.values()) == {None}
    assert TASK.undefined("iou", [(), ()]) == "crack"
    assert TASK.undefined("iou", [(), (1,)]) is None
    missed = measure(sure(empty[:1]), line_at(5))
    assert (missed.iou, missed.precision, missed.recall) == (0, 0, 0)
    # Of several kinds those count that the images show.
    masks = line_at(5)
    answer = masks.clone()
    answer[0, 0, 0] = 2
    assert measure(sure(answer, 3), masks, KINDS).iou == 1.0


def test_a_centreline_may_be_four_pixels_off_and_its_width_does_not_count() -> None:
    truth = line_at(4, 3)
    same = measure(sure(line_at(4, 3)), truth)
    assert same.cliou == same.cldice == 1.0
    near = measure(sure(line_at(8, 3)), truth)
    assert near.iou == 0
    assert near.cliou == 1.0
    assert near.cldice == 0
    assert measure(sure(line_at(9, 3)), truth).cliou == 0
    wide = measure(sure(line_at(3, 5)), truth)
    assert wide.iou == 0.6
    assert wide.cldice == 1.0
    # Half of the line found, and a false one: of 16 pixels 8 and 4 beside them, and 16 false ones.
    thin = line_at(4, 1)
    half = thin.clone()
    half[0, :, 8:] = 0
    half[0, 13] = 1
    assert measure(sure(half), thin).cliou == pytest.approx(12 / (16 + 16))


def test_a_quick_meter_draws_no_lines_and_measures_the_rest_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, masks = random_pair(4, 3)
    whole = meter_of(logits, masks, KINDS).compute()
    monkeypatch.setattr(centrelines, "counts_of", None)
    quick = KINDS.meter(is_quick=True)
    quick.update(quick.observe(logits, masks))
    found = quick.compute()
    for name, metric in KINDS.metrics.items():
        assert found.values[name] == (None if metric.is_slow else whole.values[name])
    assert found.loss == whole.loss


@given(density=st.floats(0, 0.1), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_near_a_line_is_within_four_pixels_of_it(density: float, seed: int) -> None:
    line = np.random.default_rng(seed).random((17, 23)) < density
    far = np.ones_like(line)
    for row, column in np.argwhere(line):
        rows, columns = np.mgrid[: line.shape[0], : line.shape[1]]
        far &= (rows - row) ** 2 + (columns - column) ** 2 > centrelines.TOLERANCE**2
    np.testing.assert_array_equal(centrelines._near(line), ~far)


def test_without_scikit_image_the_rest_is_measured_and_its_metrics_name_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(centrelines, "find_spec", lambda name: None)
    found = measure(sure(line_at(4)), line_at(5))
    assert found.iou == 0.5
    assert found.cliou is None
    assert found.cldice is None
    for metric in TASK.metrics:
        assert TASK.undefined(metric, [(1,)]) is None
        assert TASK.undefined(metric, [()]) == "crack"
    TASK.require("iou")
    with pytest.raises(ExtraMissing, match=r"cliou needs scikit-image.*prunedge\[measure\]"):
        TASK.require("cliou")


def test_without_scikit_image_a_split_without_damage_is_what_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(centrelines, "find_spec", lambda name: None)
    for index in range(9):
        side = ("train", "val", "test")[index % 3]
        write_pair(tmp_path, f"{side}/{index}", numbers_with(index, line=side != "val"), seed=index)
    photos = tmp_path / "photos"
    masks = tmp_path / "masks"
    data = pe.load_folder(photos, masks=masks, size=32)

    def refuse(metric: str) -> None:
        chosen = {"masks": str(masks), "metric": metric}
        config = RunConfig.make("x", data=str(photos), model="m", **chosen)
        refuse_undefined(config, data, ("val", "test"))

    with pytest.raises(PrunedgeError, match=r"validation split.*'damage'.*: give it such images$"):
        refuse("iou")
    for metric in ("cliou", "cldice-per-image"):
        with pytest.raises(ExtraMissing, match=rf"{metric.replace('-', '_')} needs scikit-image"):
            refuse(metric)


def test_metrics_go_through_json_and_are_the_task_s_record() -> None:
    logits, masks = random_pair(3, 2)
    for truth in (masks, torch.zeros_like(masks)):
        found = measure(logits, truth)
        plain = json.loads(json.dumps(found.to_json()))
        require(TASKS["segmentation"].record, plain)
        assert Metrics.from_json(plain) == found
    assert list(found.values) == list(DEFINITIONS["segmentation"].metrics)


def test_a_constant_answer_scores_what_measuring_it_gives() -> None:
    masks = torch.cat([line_at(3, 2), line_at(9, 1)])
    found = measure(sure(torch.zeros_like(masks)), masks)
    everywhere = measure(sure(torch.ones_like(masks)), masks)
    for metric in ("iou", "dice", "precision", "recall"):
        constant = TASK.constant(found, metric)
        assert TASK.answer_name(constant.answer) == "crack"
        assert constant.score == pytest.approx(everywhere.values[metric])
    # By metrics per image no damage anywhere may be the best answer.
    many = torch.cat([masks, *[torch.zeros_like(line_at(0))] * 3])
    found = measure(sure(many), many)
    nowhere = measure(sure(torch.zeros_like(many)), many)
    for metric in ("iou_per_image", "dice_per_image", "cliou_per_image", "cldice_per_image"):
        constant = TASK.constant(found, metric)
        assert TASK.answer_name(constant.answer) == "background"
        assert constant.score == pytest.approx(nowhere.values[metric]) == pytest.approx(3 / 5)
    few = measure(sure(masks), masks)
    everywhere = measure(sure(torch.ones_like(masks)), masks)
    constant = TASK.constant(few, "dice_per_image")
    assert TASK.answer_name(constant.answer) == "crack"
    assert constant.score == pytest.approx(everywhere.values["dice_per_image"])
    assert TASK.constant(found, "cliou").score == 0


def test_a_model_that_answers_one_class_is_noticed_unless_it_tells_damage_apart() -> None:
    masks = torch.cat([line_at(3), line_at(9)])
    nothing = torch.zeros(2, 2, 16, 16)
    nothing[:, 0] = 5
    assert TASK.only_answer(measure(nothing, masks)) == 0
    assert TASK.has_constant_outputs(measure(nothing, masks))
    knows = nothing.clone()
    knows[:, 1][masks == 1] = 4
    assert not TASK.has_constant_outputs(measure(knows, masks))
    assert TASK.only_answer(measure(knows, masks)) is None
    assert TASK.only_answer(measure(sure(masks), masks)) is None
    assert TASK.only_answer(measure(nothing, torch.zeros_like(masks))) is None


def test_the_uninformed_loss_is_that_of_equal_scores() -> None:
    logits, masks = random_pair(4, 3)
    masks[1, :5] = IGNORE
    found = measure(logits, masks, KINDS)
    equal = float(KINDS.loss(torch.zeros_like(logits), masks, double=True))
    assert KINDS.uninformed_loss(found) == pytest.approx(equal)
    assert equal > math.log(3)


def test_intervals_hold_the_metrics_and_draw_images_of_one_source_together() -> None:
    logits, masks = random_pair(12, 3)
    meter = meter_of(logits, masks, KINDS)
    found = meter.compute()
    intervals = intervals_of(KINDS, meter, [i // 2 for i in range(12)], resamples=200)
    assert intervals.groups == 6
    for estimate in intervals.metrics:
        assert estimate.value == pytest.approx(found.values[estimate.metric.name])
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high or estimate.value == 1
    assert [part.name for part in intervals.parts] == ["crack", "spalling"]
    # A resample of one image is that image.
    weights = np.zeros((1, 12))
    weights[0, 3] = 5
    alone = measure(logits[3:4], masks[3:4], KINDS)
    drawn = {one.metric.name: one.values[0] for one in KINDS.figures(meter, weights).metrics}
    assert drawn == pytest.approx(alone.values)


def test_examples_are_where_the_mask_fits_worse_the_worst_first() -> None:
    masks = torch.cat([line_at(3), line_at(5), line_at(7), torch.zeros_like(line_at(1))])
    before = meter_of(sure(masks), masks)
    answers = masks.clone()
    answers[0, 3] = 0  # a third of it missed
    answers[2] = 0
    answers[3, 0, 0] = 1
    after = meter_of(sure(answers), masks)
    shown = TASK.examples(before, after)
    assert [(one.index, one.before, one.after) for one in shown] == [
        (2, "IoU 100%", "IoU 0%"),
        (3, "IoU 100%", "IoU 0%"),
        (0, "IoU 100%", "IoU 67%"),
    ]
    assert [one.truth for one in shown] == ["crack 18.8%", "no damage", "crack 18.8%"]
    assert TASK.examples(after, before) == []


def test_the_table_has_a_line_for_each_class() -> None:
    masks = line_at(4, 4)
    table = KINDS.table(measure(sure(masks, 3), masks, KINDS))
    assert table.rows == (
        ("background", "100.0%", "100.0%", "100.0%", "100.0%", "75.0%"),
        ("crack", "100.0%", "100.0%", "100.0%", "100.0%", "25.0%"),
        ("spalling", "", "", "", "", "0.0%"),
    )
    assert len(table.columns) == 5


def test_categories_say_which_classes_are_there() -> None:
    masks = torch.cat([line_at(3), 2 * line_at(3), torch.zeros_like(line_at(3))])
    logits = sure(masks.flip(0), 3)
    assert KINDS.categories(masks, logits).chosen.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert KINDS.predicted_categories(logits).chosen.tolist() == [[0, 0], [0, 1], [1, 0]]
    unseen = torch.full_like(masks, IGNORE)  # as in the border around an image that is padded
    assert KINDS.predicted_categories(logits, unseen).chosen.tolist() == [[0, 0]] * 3
    assert KINDS.predicted_categories(logits, masks).chosen.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_distillation_draws_pixels_to_the_teacher_s_answers() -> None:
    student, _ = random_pair(2, 2)
    teacher, _ = random_pair(2, 2, seed=1)
    assert float(TASK.distance(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-7)
    far = float(TASK.distance(student, teacher, 3.0))
    assert far > 0
    assert float(TASK.distance((student + teacher) / 2, teacher, 3.0)) < far


@pytest.mark.parametrize(
    ("shape", "said"),
    [((2, 2), "no map for each of 2 classes"), ((2, 3, 16, 16), "no map for each of 2 classes")],
)
def test_outputs_that_are_no_maps_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        TASK.refuse_outputs(torch.zeros(shape), "mine")


def test_what_doesn_t_fit_is_refused() -> None:
    logits, masks = random_pair(2, 2)
    with pytest.raises(ModelError, match=r"maps of \(8, 8\) for images of 16"):
        TASK.refuse_outputs(logits[:, :, :8, :8], "mine")
    TASK.refuse_outputs({"out": logits}, "mine")
    with pytest.raises(TrainError, match=r"masks of \(1, 16, 16\)"):
        TASK.loss(logits, masks[:1])
    with pytest.raises(TrainError, match="numbers from 0 to 2 for 2 classes"):
        TASK.loss(logits, masks * 2)
    with pytest.raises(TrainError, match="not integers"):
        TASK.loss(logits, masks.float())
    with pytest.raises(TrainError, match="outputs aren't finite"):
        measure(logits / 0, masks)
    with pytest.raises(TrainError, match="Dice"):
        TASK.weighted_loss(logits, masks, LossWeighting(torch.ones(2)))


def test_the_focal_form_counts_sure_pixels_less() -> None:
    logits, masks = random_pair(3, 2)
    masks[0, :4] = IGNORE
    plain = float(TASK.loss(logits, masks))
    assert float(TASK.weighted_loss(logits, masks, LossWeighting())) == pytest.approx(plain)
    found = float(TASK.weighted_loss(logits, masks, LossWeighting(None, 2.0)))
    by_hand = []
    for scores, mask in zip(logits, masks, strict=True):
        counting = mask != IGNORE
        right = scores.softmax(0).gather(0, mask.long().clamp_max(1)[None])[0][counting]
        by_hand.append(float(((1 - right) ** 2 * -right.log() - -right.log()).mean()))
    assert found == pytest.approx(plain + np.mean(by_hand), rel=1e-5)


def test_the_user_says_which_classes_are_damage() -> None:
    spec = KINDS.spec.model_copy(update={"damage": DamageSpec(classes=("spalling",))})
    said = make_task(spec)
    assert isinstance(said, Segmentation)
    masks = line_at(4)
    masks[0, 12:14] = 2
    answer = masks.clone()
    answer[answer == 1] = 0
    assert measure(sure(answer, 3), masks, said).iou == 1.0
    assert measure(sure(answer, 3), masks, KINDS).iou == 0.5
    assert said.undefined("iou", [(1,)]) == "spalling"
