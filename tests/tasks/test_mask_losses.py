"""What models of pixels learn by: perfect answers, worse ones, and pixels that don't count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from segmentation_models_pytorch.losses import TverskyLoss
from skimage.morphology import skeletonize

from prunedge.config import RunConfig
from prunedge.edge.tasks import DEFINITIONS, refusal_of
from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import ConfigError, TrainError
from prunedge.pruning.from_config import finetuning, transfer_settings
from prunedge.tasks import make_task
from prunedge.tasks.mask_losses import BOUNDARY, OF_AREAS, SMOOTH, TVERSKY, Areas, losses
from prunedge.tasks.soft_skeleton import soft_skeleton
from prunedge.tasks.weighting import LossWeighting
from prunedge.train.config import TrainConfig
from prunedge.train.weighting import weighting_of

NAMES = list(OF_AREAS)
named = pytest.mark.parametrize("name", NAMES)


def masks_and_logits(seed: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (3, 12, 12) with an area of each class and ignored pixels, and logits of any kind."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(3, 12, 12, dtype=torch.int64)
    for image in range(3):
        for number in range(1, classes):
            top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
            masks[image, top : top + 3, left : left + 2] = number
    masks[1, :, 10:] = IGNORE
    return masks, 4 * torch.randn(3, classes, 12, 12, generator=generator)


def sure(masks: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that leave no doubt."""
    numbers = torch.where(masks == IGNORE, 0, masks)
    return 60 * F.one_hot(numbers, classes).movedim(-1, 1).float()


def loss_of(
    name: str, logits: torch.Tensor, masks: torch.Tensor, along: float = 1.0
) -> list[float]:
    values = losses(logits, masks, 0.0, LossWeighting(loss=name, along=along))
    assert values.shape == (len(masks),)
    return values.tolist()


@named
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 4), along=st.floats(0, 1))
def test_a_perfect_answer_has_no_loss_and_any_other_has_more(
    name: str, seed: int, classes: int, along: float
) -> None:
    masks, logits = masks_and_logits(seed, classes)
    perfect = loss_of(name, sure(masks, classes), masks, along)
    assert perfect == pytest.approx([0, 0, 0], abs=1e-4)
    other = loss_of(name, logits, masks, along)
    assert min(other) > 0.01
    nearer = loss_of(name, (logits + sure(masks, classes) / 4), masks, along)
    assert all(near < far for near, far in zip(nearer, other, strict=True))


@named
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 3))
def test_ignored_pixels_change_nothing_and_have_no_gradient(
    name: str, seed: int, classes: int
) -> None:
    masks, logits = masks_and_logits(seed, classes)
    before = loss_of(name, logits, masks)
    other = logits.clone()
    other[:, 1][masks == IGNORE] += 9
    assert loss_of(name, other, masks) == pytest.approx(before, rel=1e-5)

    other.requires_grad_(True)
    losses(other, masks, 0.0, LossWeighting(loss=name)).sum().backward()
    assert other.grad is not None
    assert bool(other.grad.isfinite().all())
    is_ignored = (masks == IGNORE)[:, None].expand_as(other)
    assert float(other.grad[is_ignored].abs().max()) == 0
    assert float(other.grad[~is_ignored].abs().max()) > 0


@named
def test_gradients_are_finite_where_nothing_is_there_counts_or_could_be_surer(name: str) -> None:
    masks = torch.zeros(4, 8, 8, dtype=torch.int64)
    masks[1] = 1
    masks[2] = IGNORE
    masks[3, 4] = 1
    for scale in (0.0, 1e3):
        logits = scale * torch.ones(4, 2, 8, 8)
        logits[:, 1] *= -1
        logits.requires_grad_(True)
        found = losses(logits, masks, 0.1, LossWeighting(loss=name, focal=2.0))
        assert bool(found.isfinite().all())
        found.mean().backward()
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())
    assert float(found[2].detach()) == 0


@named
def test_the_loss_is_a_mean_over_images(name: str) -> None:
    masks, logits = masks_and_logits(3, 3)
    together = loss_of(name, logits, masks)
    alone = [loss_of(name, logits[i : i + 1], masks[i : i + 1])[0] for i in range(3)]
    assert together == pytest.approx(alone, rel=1e-5)


def areas_of(masks: torch.Tensor, probable: torch.Tensor) -> Areas:
    """One class, of which these are the probabilities (height, width)."""
    counts = masks != IGNORE
    truth = (masks == 1).float()
    return Areas((probable * counts)[None, None], truth[None, None], counts[None])


def test_tversky_is_that_of_segmentation_models_pytorch_and_dice_where_both_weigh_the_same() -> (
    None
):
    masks, logits = masks_and_logits(5, 2)
    alpha, beta = TVERSKY
    theirs = TverskyLoss("multiclass", classes=[1], ignore_index=IGNORE, alpha=alpha, beta=beta)
    theirs.smooth = SMOOTH / 2
    for image in range(3):
        mask = masks[image]
        probable = logits[image].softmax(0)[1]
        ours = float(OF_AREAS["tversky"](areas_of(mask, probable), 1.0))
        assert ours == pytest.approx(float(theirs(logits[image : image + 1], mask[None])), rel=1e-5)


def test_tversky_punishes_a_miss_more_than_a_false_alarm() -> None:
    mask = torch.zeros(8, 8, dtype=torch.int64)
    mask[2:6, 2:6] = 1
    missed = (mask == 1).float()
    missed[2] = 0
    alarmed = (mask == 1).float()
    alarmed[6, 2:6] = 1
    tversky = OF_AREAS["tversky"]
    assert float(tversky(areas_of(mask, missed), 1.0)) > float(
        tversky(areas_of(mask, alarmed), 1.0)
    )


def test_boundary_grows_with_the_distance_and_with_the_training() -> None:
    mask = torch.zeros(9, 9, dtype=torch.int64)
    mask[:, 1] = 1
    boundary = OF_AREAS["boundary"]
    dice = float(OF_AREAS["dice"](areas_of(mask, (mask == 1).float()), 1.0))
    found = []
    for column in (2, 4, 7):
        answer = (mask == 1).float()
        answer[4, column] = 1
        found.append(float(boundary(areas_of(mask, answer), 1.0)))
    dice = float(OF_AREAS["dice"](areas_of(mask, answer), 1.0))
    # A pixel that is 0.5, 2.5 and 5.5 pixels from the edge, of 81.
    assert [value - dice for value in found] == pytest.approx(
        [0.5 / 81, 2.5 / 81, 5.5 / 81], abs=1e-6
    )
    first = float(boundary(areas_of(mask, answer), 0.0)) - dice
    assert first == pytest.approx(BOUNDARY[0] * 5.5 / 81, abs=1e-6)
    # What is missed inside counts as well, though the crack is a pixel wide.
    gap = (mask == 1).float()
    gap[4, 1] = 0
    dice = float(OF_AREAS["dice"](areas_of(mask, gap), 1.0))
    assert float(boundary(areas_of(mask, gap), 1.0)) - dice == pytest.approx(0.5 / 81, abs=1e-6)


def test_cldice_sees_a_gap_that_dice_hardly_does_and_no_width() -> None:
    mask = torch.zeros(21, 21, dtype=torch.int64)
    mask[8:13] = 1
    truth = (mask == 1).float()
    torn = truth.clone()
    torn[:, 9:12] = 0
    thin = truth.clone()
    thin[8] = thin[12] = 0
    dice = [float(OF_AREAS["dice"](areas_of(mask, answer), 1.0)) for answer in (torn, thin)]
    both = [float(OF_AREAS["cldice"](areas_of(mask, answer), 1.0)) for answer in (torn, thin)]
    assert dice[0] < dice[1]
    # Half of it is Dice.
    lines = [2 * together - of_areas for together, of_areas in zip(both, dice, strict=True)]
    assert lines[1] == pytest.approx(0, abs=1e-6)
    assert lines[0] > 0.05


@settings(deadline=None, max_examples=20)
@given(row=st.integers(3, 12), half=st.integers(0, 2))
def test_the_soft_skeleton_of_a_bar_is_its_middle(row: int, half: int) -> None:
    mask = np.zeros((16, 16), bool)
    mask[row - half : row + half + 1] = True
    soft = soft_skeleton(torch.from_numpy(mask)[None, None].float())[0, 0].numpy() > 0.5
    inner = (slice(None), slice(half + 1, 15 - half))  # ends are drawn otherwise
    np.testing.assert_array_equal(soft[inner], skeletonize(mask)[inner])


def spec(name: str) -> TaskSpec:
    return TaskSpec(name=name, classes=("sound", "crack"), size=(12, 12))


def test_tasks_without_the_loss_refuse_it_in_a_line_before_anything_is_read() -> None:
    for name, definition in DEFINITIONS.items():
        refused = refusal_of(name, "none", 0.0, "cldice")
        if definition.losses:
            assert refused is None
            continue
        assert refused is not None
        wanted = f"area_loss='cldice' can't be had with task='{name}', but with task='segmentation'"
        assert wanted in refused
        with pytest.raises(ConfigError, match=r"area_loss='dice' can't be had with task="):
            RunConfig.make("x", data="d", model="m", task=name, area_loss="dice")
    assert list(OF_AREAS) == list(DEFINITIONS["segmentation"].losses)
    with pytest.raises(ConfigError, match="loss"):
        RunConfig.make("x", data="d", model="m", masks="n", area_loss="lovasz")
    with pytest.raises(TrainError, match="area_loss = 'lovasz'"):
        TrainConfig(area_loss="lovasz")  # type: ignore[arg-type]


def test_a_run_hands_the_loss_to_its_training_and_its_fine_tuning() -> None:
    config = RunConfig.make("x", data="d", model="m", masks="n", area_loss="cldice")
    data: Any = SimpleNamespace(train=range(10))
    model = torch.nn.Conv2d(3, 2, 1)
    assert transfer_settings(config, data).config(model).area_loss == "cldice"
    assert finetuning(config, data, model).area_loss == "cldice"
    plain = RunConfig.make("x", data="d", model="m", masks="n")
    assert finetuning(plain, data, model).area_loss is None


def test_a_training_is_given_the_loss_that_its_config_names() -> None:
    task = make_task(spec("segmentation"))
    cpu = torch.device("cpu")
    assert weighting_of(task, None, TrainConfig(area_loss="tversky"), cpu) == LossWeighting(
        loss="tversky"
    )
    assert weighting_of(task, None, TrainConfig(), cpu) is None
    with pytest.raises(TrainError, match="can't be had with task='classification'"):
        weighting_of(make_task(spec("classification")), None, TrainConfig(area_loss="dice"), cpu)
    masks, logits = masks_and_logits(1, 2)
    plain = float(task.loss(logits, masks))
    assert float(task.weighted_loss(logits, masks, LossWeighting(loss="dice"))) == plain
    assert float(task.weighted_loss(logits, masks, LossWeighting(loss="cldice"))) != plain
