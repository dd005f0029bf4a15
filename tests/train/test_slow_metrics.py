"""What takes long to measure is measured of the model that is kept, and not after every epoch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from prunedge.edge.tasks.base import TaskSpec
from prunedge.runs import checkpoint
from prunedge.runs.checkpoint import RunCheckpointer
from prunedge.tasks import Metrics, centrelines, make_task
from prunedge.train import FitResult, TrainConfig, TrainExtras, fit, make_engine

TASK = make_task(TaskSpec(name="segmentation", classes=("background", "crack"), size=(16, 16)))
SLOW = ("cliou", "cldice", "cliou_per_image", "cldice_per_image")


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two batches of images with a bright line."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(2):
        images = torch.randn(4, 3, 16, 16, generator=generator)
        masks = torch.zeros(4, 16, 16, dtype=torch.uint8)
        for image in range(4):
            row = int(torch.randint(1, 14, (1,), generator=generator))
            masks[image, row : row + 2] = 1
        made.append((images + 3 * masks[:, None], masks))
    return made


MODEL = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize(
    ("metric", "lr", "is_trial", "by_epoch"),
    [
        ("iou", 0.1, False, [0, 0, 8]),
        ("cldice", 0.1, False, [8, 8, 8]),
        ("iou", 1e-12, False, [0, 0, 8, 8]),  # the first epoch is the best, and judged again
        ("iou", 0.1, True, [0, 0, 0]),
    ],
)
def test_lines_are_drawn_for_the_last_epoch_and_the_best_unless_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, metric: str, lr: float, is_trial: bool, by_epoch: list[int]
) -> None:
    drawn = []
    counts_of = centrelines.counts_of

    def counted(*masks: object) -> object:
        drawn.append(1)
        return counts_of(*masks)  # type: ignore[arg-type]

    monkeypatch.setattr(centrelines, "counts_of", counted)
    result = fit(
        copy.deepcopy(MODEL),
        batches(0),
        epochs=3,
        config=TrainConfig(lr=lr, metric=metric, area_loss="cldice"),
        engine=make_engine("32"),
        seed=0,
        val=batches(1),
        task=TASK,
        extras=TrainExtras(is_trial=is_trial),
    )
    assert len(drawn) == sum(by_epoch)
    for epoch, lines in zip(result.history, by_epoch, strict=False):
        assert isinstance(epoch.val, Metrics)
        assert [epoch.val.values[name] is not None for name in SLOW] == [lines > 0] * 4
        assert epoch.val.iou is not None
    assert result.val is not None
    assert [result.val.values[name] is None for name in SLOW] == [is_trial] * 4
    assert (result.best_epoch == 2) == (len(by_epoch) == 3)


class Cut(Exception):
    """As a kill would end it."""


def test_a_training_that_was_cut_goes_on_to_the_same_model_and_all_of_its_metrics(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)

    def train(folder: Path | None, cut_after: int | None = None) -> FitResult:
        def progress(done: int, total: int, what: str) -> None:
            if cut_after is not None and done > cut_after:
                raise Cut

        keeper = None if folder is None else RunCheckpointer(folder)
        return fit(
            copy.deepcopy(MODEL),
            batches(0),
            epochs=3,
            config=TrainConfig(lr=0.1, area_loss="boundary"),
            engine=make_engine("32"),
            seed=0,
            val=batches(1),
            task=TASK,
            extras=TrainExtras(progress=progress, checkpointer=keeper),
        )

    with pytest.raises(Cut):
        train(tmp_path, cut_after=3)  # batches: in the second epoch
    kept = RunCheckpointer(tmp_path).kept()
    assert kept is not None
    assert kept.epochs == 1
    found = train(tmp_path)
    whole = train(None)
    for name, weights in found.model.state_dict().items():
        assert torch.equal(weights, whole.model.state_dict()[name])
    assert found.val == whole.val
    assert [epoch.val for epoch in found.history] == [epoch.val for epoch in whole.history]
