"""What a model of pixels does, measured batch by batch: counts of each image, and no map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from prunedge.edge.tasks.mask_targets import IGNORE
from prunedge.errors import TrainError
from prunedge.tasks import centrelines, mask_counts
from prunedge.tasks.base import Metrics
from prunedge.tasks.mask_figures import constants
from prunedge.tasks.mask_losses import losses, uninformed_loss
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced

if TYPE_CHECKING:
    from prunedge.tasks.segmentation import Segmentation


class ClassRecord(Record):
    """How well the pixels of one class are found; `pixels` are its own, `answered` those taken for
    it.
    """

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    pixels: NonNegativeInt
    answered: NonNegativeInt


class MetricsRecord(Record):
    """`Metrics.to_json` of this task. `constants` are what taking every pixel for each class scores
    by the metrics per image.
    """

    loss: Loss
    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    cliou: float | None
    cldice: float | None
    classes: list[ClassRecord]
    uninformed: dict[str, float]
    probability: dict[str, float | None]
    spread: list[float] = Field(min_length=2)
    n: PositiveInt
    correct: str = ""
    # Runs of before there were any have none.
    iou_per_image: float | None = None
    dice_per_image: float | None = None
    cliou_per_image: float | None = None
    cldice_per_image: float | None = None
    constants: dict[str, list[float]] = Field(default_factory=dict)


class SegmentationMeter:
    """The loss, the metrics and counts of each class's pixels."""

    def __init__(self, task: Segmentation, *, draws_lines: bool = True) -> None:
        self._task = task
        self._draws_lines = draws_lines and centrelines.can_draw()
        self._observed: dict[str, list[torch.Tensor]] = {}

    def observe(self, outputs: Any, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of each image its loss (n,), how many pixels of each class there are, were answered, and
        both (n, classes, 3), the lowest and highest logit of each class (n, 2, classes), the sums
        of the probability of damage on damage and elsewhere (n, 2), and what centrelines have in
        common (n, 6), or (n, 0) where nothing draws them.
        """
        logits = self._task.outputs_of(outputs).float()
        masks = self._task.checked(targets, logits)
        answer = logits.argmax(1)
        damage = list(self._task.damage)
        counting = masks != IGNORE
        is_damage = torch.isin(masks, torch.tensor(damage, device=masks.device))
        probable = logits.softmax(1)[:, damage].sum(1).double()
        return {
            "losses": losses(logits, masks, 0.0).double(),
            "counts": mask_counts.pixel_counts(masks, answer, logits.shape[1]),
            "ends": torch.stack((logits.amin((2, 3)), logits.amax((2, 3))), dim=1),
            "probable": torch.stack(
                [
                    (probable * is_damage).sum((1, 2)),
                    (probable * (counting & ~is_damage)).sum((1, 2)),
                ],
                dim=1,
            ),
            "lines": self._lines(masks, answer),
        }

    def _lines(self, masks: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        """What the centrelines of all damage have in common (n, 6), (n, 0) where none are drawn."""
        if not self._draws_lines:
            return torch.zeros(len(masks), 0, dtype=torch.int64)
        damage = torch.tensor(self._task.damage, device=masks.device)
        is_damage = torch.isin(masks, damage)
        return mask_counts.line_counts(is_damage, torch.isin(answer, damage), masks != IGNORE)

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch."""
        for name, values in observation.items():
            self._observed.setdefault(name, []).append(values)

    def counts(self) -> np.ndarray:
        """(n, classes, 3) int64: pixels that are there, that were answered, and both."""
        return self._all("counts").numpy()

    def lines(self) -> np.ndarray:
        """(n, 6) int64: what the centrelines of each image have in common
        (`prunedge.tasks.centrelines.COUNTS`); (n, 0) where nothing draws them.
        """
        return self._all("lines").numpy()

    @traced("metrics")
    def compute(self) -> Metrics:
        """The metrics; None where there is no damage, or nothing draws centrelines."""
        each = self._all("losses")
        if not bool(each.isfinite().all()):
            raise TrainError(
                "the model's outputs aren't finite", remedy="train it at a lower learning rate"
            )
        once = np.ones((1, len(each)))
        figures = self._task.figures(self, once)
        counts = self.counts()
        ends = self._all("ends")
        return Metrics(
            loss=float(each.mean()),
            values={figure.metric.name: _known(figure.values[0]) for figure in figures.metrics},
            n=len(each),
            details={
                "classes": [
                    _class_record(once, counts[:, number]) for number in range(counts.shape[1])
                ],
                "constants": constants(self._task.damage, counts, self.lines()),
                "uninformed": {"loss": uninformed_loss(counts[:, :, 0])},
                "probability": self._probability(counts[:, :, 0]),
                "spread": (ends[:, 1].amax(0) - ends[:, 0].amin(0)).tolist(),
            },
        )

    def _probability(self, pixels: np.ndarray) -> dict[str, float | None]:
        """The mean probability of damage where it is, and elsewhere."""
        on_damage, elsewhere = self._all("probable").sum(0).tolist()
        damaged = int(pixels[:, list(self._task.damage)].sum())
        sound = int(pixels.sum()) - damaged
        return {
            "damage": on_damage / damaged if damaged else None,
            "elsewhere": elsewhere / sound if sound else None,
        }

    def _all(self, name: str) -> torch.Tensor:
        return torch.cat(self._observed[name])


def _class_record(once: np.ndarray, counts: np.ndarray) -> dict[str, float | int | None]:
    """A class's metrics over all images, of its pixels (n, 3)."""
    there, answered, both = counts.T
    values = mask_counts.class_values(once, there, answered, both)
    record: dict[str, float | int | None] = {
        name: _known(value[0]) for name, value in values.items()
    }
    return {**record, "pixels": int(there.sum()), "answered": int(answered.sum())}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
