"""Segmentation: the class of each pixel.

The loss is cross-entropy plus Dice, both of each image by itself, so that it is a mean over images:
cross-entropy alone learns thin damage late, since it is a few pixels in a hundred. Metrics are
pooled: pixels of all images are counted together, and of several damage classes the mean is taken
over those that these images show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.segmentation import IGNORE, METRICS, NAME, MaskTargets, Target, damage_of
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import centrelines, mask_counts
from prunedge.tasks import figures as of
from prunedge.tasks.base import (
    Categories,
    ConstantAnswer,
    Example,
    Metrics,
    Table,
    TaskDefinition,
    Titles,
)
from prunedge.tasks.logits import logits_of
from prunedge.tasks.weighting import LossWeighting
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced

OUTPUTS_REMEDY = (
    "use a model of pixels, such as lraspp_mobilenet_v3_large or smp:unet-resnet18, or one of your "
    "own with a map of logits for each class, as large as the images"
)
TARGETS_REMEDY = "give each image a mask of its size, with the number of each pixel's class"
WEIGHTLESS = "classes of pixels are weighted by the Dice loss already"
WEIGHTLESS_REMEDY = "train with balance by the sampler, or with focal"
SAME_OUTPUTS = 1e-6  # logits, below which outputs don't differ
TELLING = (
    1.5  # times as probable as elsewhere damage is where it is, of a model that tells it apart
)
LESS = 0.05  # of its IoU that an image has to lose to be shown
OF_PARTS = ("iou", "dice", "precision", "recall")  # metrics of each class


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
    """`Metrics.to_json` of this task."""

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


@dataclass(frozen=True)
class Segmentation:
    """One of `spec.classes` for each pixel.

    Outputs are logits (n, classes, height, width), targets the class of each pixel (n, height,
    width) uint8, `IGNORE` where it doesn't count.
    """

    spec: TaskSpec

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """`iou`, `dice`, `precision` and `recall` of the damage classes; `cliou` and `cldice` of
        the centrelines of all damage together.
        """
        return METRICS

    @property
    def targets(self) -> MaskTargets:
        """Which classes masks show."""
        return MaskTargets(self.spec.classes)

    @property
    def outputs(self) -> int:
        """One for each class."""
        return len(self.spec.classes)

    @property
    def needs_negative(self) -> bool:
        """No: only which output is the highest counts."""
        return False

    @cached_property
    def damage(self) -> tuple[int, ...]:
        """The numbers of the classes that are damage."""
        return tuple(self.spec.classes.index(name) for name in self._damage_names)

    def require(self, metric: str) -> None:
        """ExtraMissing for a metric of centrelines where nothing draws them."""
        if metric in mask_counts.OF_LINES:
            centrelines.require_drawing(metric)

    def undefined(self, metric: str, targets: Sequence[Target]) -> str | None:
        """A split without any damage has nothing to find."""
        shown = {number for target in targets for number in target} | {0}
        return None if shown & set(self.damage) else self.spec.classes[self.damage[0]]

    def outputs_of(self, output: Any) -> torch.Tensor:
        """The logits (n, classes, height, width)."""
        logits = logits_of(output)
        is_map = logits.dim() == 4 and logits.shape[1] == self.outputs
        if not logits.is_floating_point() or not is_map:
            shape = f"{tuple(logits.shape)} {str(logits.dtype).removeprefix('torch.')}"
            raise ModelError(
                f"the model gives {shape}, and no map for each of {self.outputs} classes",
                remedy=OUTPUTS_REMEDY,
            )
        return logits

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError where there is not a map for each class, as large as the images."""
        try:
            logits = self.outputs_of(output)
        except ModelError as error:
            raise ModelError(error.what, where=name, remedy=error.remedy) from None
        if tuple(logits.shape[2:]) != tuple(self.spec.size):
            raise ModelError(
                f"the model gives maps of {tuple(logits.shape[2:])} for images of {self.spec.size}",
                where=name,
                remedy=OUTPUTS_REMEDY,
            )

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """Cross-entropy plus Dice, the mean over the images of each image's own."""
        logits = self.outputs_of(output)
        logits = logits.double() if double else logits.float()
        masks = self.checked(targets, logits)
        return mask_counts.losses(logits, masks, label_smoothing).mean()

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """The same with the focal form of cross-entropy. TrainError for weights of classes: Dice
        counts each alike already.
        """
        if weighting.weights is not None:
            raise TrainError(WEIGHTLESS, remedy=WEIGHTLESS_REMEDY)
        logits = self.outputs_of(output).float()
        masks = self.checked(targets, logits)
        return mask_counts.losses(logits, masks, label_smoothing, weighting.focal).mean()

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """TrainError: the Dice loss counts each class alike already."""
        raise TrainError(WEIGHTLESS, remedy=WEIGHTLESS_REMEDY)

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """KL divergence of each pixel from the teacher's softened answer, times temperature^2, the
        mean over the pixels.
        """
        student = F.log_softmax(self.outputs_of(output).float() / temperature, 1)
        teacher = F.log_softmax(self.outputs_of(teacher_output).float() / temperature, 1)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True)
        return divergence.sum(1).mean() * temperature**2

    def categories(self, targets: Any, output: Any) -> Categories:
        """For each class but the first whether an image shows it."""
        masks = self.checked(targets, self.outputs_of(output))
        return self._shown(masks)

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """For each class but the first whether any pixel is taken for it; those that are `IGNORE`,
        as the border around an image that is padded, are not asked.
        """
        logits = self.outputs_of(output)
        answer = logits.argmax(1)
        if targets is not None:
            masks = self.checked(targets, logits)
            answer = torch.where(masks == IGNORE, IGNORE, answer)
        return self._shown(answer)

    def meter(self) -> SegmentationMeter:
        """Keeps counts of each image's pixels, and no map."""
        return SegmentationMeter(self)

    def kept(self, meter: SegmentationMeter) -> tuple[np.ndarray, np.ndarray]:
        """TrainError: whether an image shows damage is no question of this task's."""
        raise TrainError("no map is kept of an image", remedy="judge the pixels")

    def figures(self, meter: SegmentationMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; of several damage classes those of each as well."""
        counts = meter.counts()
        parts = []
        for number in self.damage:
            there, answered, both = counts[:, number].T
            values = mask_counts.class_values(weights, there, answered, both)
            figures = tuple(of.Figure(METRICS[name], values[name]) for name in OF_PARTS)
            parts.append(of.Part(self.spec.classes[number], int((there > 0).sum()), figures))

        metrics = []
        for place, name in enumerate(OF_PARTS):
            columns = [part.figures[place].values for part in parts]
            metrics.append(of.Figure(METRICS[name], of.mean_of(columns)))
        lines = mask_counts.line_values(weights, meter.lines())
        metrics += [of.Figure(METRICS[name], lines[name]) for name in mask_counts.OF_LINES]
        return of.Figures(tuple(metrics), tuple(parts) if len(parts) > 1 else ())

    def only_answer(self, metrics: Metrics) -> int | None:
        """The class that every pixel was taken for, though there are pixels of at least two.

        None as well where damage is more probable where it is than elsewhere: a class of few pixels
        is told apart long before it is anywhere the most probable one.
        """
        records = metrics.details["classes"]
        answered = [number for number, record in enumerate(records) if record["answered"]]
        if sum(record["pixels"] > 0 for record in records) < 2 or len(answered) > 1:
            return None
        probability = metrics.details["probability"]
        on_damage = probability["damage"]
        elsewhere = probability["elsewhere"]
        is_told = None not in (on_damage, elsewhere) and on_damage > TELLING * elsewhere
        return None if is_told else answered[0]

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The damage class with the most pixels, and what taking every pixel for it scores; it has
        no centreline to speak of.
        """
        pixels = [record["pixels"] for record in metrics.details["classes"]]
        number = max(self.damage, key=lambda damage: pixels[damage])
        classes = max(1, sum(pixels[damage] > 0 for damage in self.damage))
        share = pixels[number] / max(1, sum(pixels))
        scores = {
            "iou": share,
            "dice": 2 * share / (1 + share),
            "precision": share,
            "recall": float(pixels[number] > 0),
        }
        return ConstantAnswer(number, scores.get(metric, 0.0) / classes)

    @property
    def answers(self) -> int:
        """One for each class."""
        return self.outputs

    def answer_name(self, answer: int) -> str:
        """The class's name."""
        return self.spec.classes[answer]

    def uninformed_loss(self, metrics: Metrics) -> float:
        """That of equal scores for all classes everywhere."""
        return float(metrics.details["uninformed"]["loss"])

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether all pixels of all images get equal scores."""
        return max(metrics.details["spread"]) < SAME_OUTPUTS

    @property
    def titles(self) -> Titles:
        """Of masks that fit more or less."""
        return Titles(
            table="Pixel by pixel",
            examples="Where the pruned model's mask fits worse than the original's",
            taken_for="found with",
        )

    def purpose(self) -> str:
        """Finding the pixels of its damage."""
        return f"finding the pixels of {', '.join(self._damage_names)}"

    def table(self, metrics: Metrics) -> Table:
        """Each class: how well its pixels are found, and how many of all there are."""
        rows = []
        records = metrics.details["classes"]
        total = max(1, sum(record["pixels"] for record in records))
        for name, record in zip(self.spec.classes, records, strict=True):
            cells = [_percent(record[metric]) for metric in OF_PARTS]
            rows.append((name, *cells, _percent(record["pixels"] / total)))
        columns = ("IoU", "Dice", "precision", "recall", "share of the pixels")
        return Table("class", columns, tuple(rows))

    def examples(self, before: SegmentationMeter, after: SegmentationMeter) -> list[Example]:
        """Images whose damage `after` finds with less IoU than `before`, by more than `LESS`, the
        worst first.
        """
        was = self._iou_by_image(before)
        now = self._iou_by_image(after)
        lost = was - now

        examples = []
        for index in np.argsort(-lost, kind="stable").tolist():
            if lost[index] <= LESS:
                break
            example = Example(
                index=index,
                truth=self._shares(after.counts()[index, :, 0]),
                before=f"IoU {was[index]:.0%}",
                after=f"IoU {now[index]:.0%}",
            )
            examples.append(example)
        return examples

    @property
    def _damage_names(self) -> tuple[str, ...]:
        return damage_of(self.spec.classes, self.spec.damage.classes)

    def _iou_by_image(self, meter: SegmentationMeter) -> np.ndarray:
        """The IoU of all damage of each image (n,); 1 where there is none and none was answered."""
        there, answered, both = meter.counts()[:, self.damage].sum(1).T
        union = there + answered - both
        return np.where(union > 0, both / np.maximum(union, 1), 1.0)

    def _shares(self, pixels: np.ndarray) -> str:
        """Which damage is on what share of an image's pixels."""
        total = max(1, int(pixels.sum()))
        there = [number for number in self.damage if pixels[number]]
        shares = [f"{self.spec.classes[i]} {pixels[i] / total:.1%}" for i in there]
        return ", ".join(shares) or "no damage"

    def _shown(self, masks: torch.Tensor) -> Categories:
        """Which classes but the first masks (n, height, width) show."""
        numbers = range(1, self.outputs)
        shown = [(masks == number).flatten(1).any(1) for number in numbers]
        return Categories(torch.stack(shown, dim=1).long(), 2)

    def checked(self, targets: Any, logits: torch.Tensor) -> torch.Tensor:
        """The masks (n, height, width) int64 on the logits' device, where they are of as many
        images and as large. TrainError.
        """
        wanted = (len(logits), *logits.shape[2:])
        if not isinstance(targets, torch.Tensor) or tuple(targets.shape) != wanted:
            shape = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets)
            raise TrainError(f"masks of {shape} for maps of {wanted}", remedy=TARGETS_REMEDY)
        if targets.is_floating_point() or targets.dtype == torch.bool:
            raise TrainError(f"masks of {targets.dtype}, not integers", remedy=TARGETS_REMEDY)
        masks = targets.to(logits.device).long()
        counting = torch.where(masks == IGNORE, 0, masks)
        low, high = (int(end) for end in torch.aminmax(counting))
        if low < 0 or high >= self.outputs:
            raise TrainError(
                f"masks with numbers from {low} to {high} for {self.outputs} classes",
                remedy=TARGETS_REMEDY,
            )
        return masks


class SegmentationMeter:
    """The loss, the metrics and counts of each class's pixels."""

    def __init__(self, task: Segmentation) -> None:
        self._task = task
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
            "losses": mask_counts.losses(logits, masks, 0.0).double(),
            "counts": mask_counts.pixel_counts(masks, answer, logits.shape[1]),
            "ends": torch.stack((logits.amin((2, 3)), logits.amax((2, 3))), dim=1),
            "probable": torch.stack(
                [
                    (probable * is_damage).sum((1, 2)),
                    (probable * (counting & ~is_damage)).sum((1, 2)),
                ],
                dim=1,
            ),
            "lines": mask_counts.line_counts(
                is_damage, torch.isin(answer, torch.tensor(damage, device=answer.device)), counting
            ),
        }

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
                "uninformed": {"loss": mask_counts.uninformed_loss(counts[:, :, 0])},
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


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


DEFINITION = TaskDefinition(NAME, Segmentation, METRICS, MetricsRecord)
