"""Segmentation: the class of each pixel.

The loss is cross-entropy plus one of areas (Dice, unless another is asked for), both of each image
by itself, so that it is a mean over images: cross-entropy alone learns thin damage late, since it
is a few pixels in a hundred. Models are judged by cross-entropy plus Dice, whatever they learn by.
Metrics are pooled (pixels of all images are counted together) or means over images; of several
damage classes the mean is taken over those that these images show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.mask_targets import IGNORE, NAME, MaskTargets, Target, damage_of
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.segmentation import METRICS
from prunedge.errors import ModelError, TrainError
from prunedge.tasks import centrelines
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
from prunedge.tasks.mask_counts import OF_LINES
from prunedge.tasks.mask_figures import SUFFIX, best_constant, figures_of
from prunedge.tasks.mask_losses import losses
from prunedge.tasks.mask_meter import MetricsRecord, SegmentationMeter
from prunedge.tasks.mask_report import examples_of, table_of
from prunedge.tasks.weighting import LossWeighting

OUTPUTS_REMEDY = (
    "use a model of pixels, such as lraspp_mobilenet_v3_large or smp:unet-resnet18, or one of your "
    "own with a map of logits for each class, as large as the images"
)
TARGETS_REMEDY = "give each image a mask of its size, with the number of each pixel's class"
WEIGHTLESS = "classes of pixels are weighted by the Dice loss already"
WEIGHTLESS_REMEDY = "train with balance by the sampler, or with focal"
SAME_OUTPUTS = 1e-6  # logits, below which outputs don't differ
TELLING = 1.5  # times as probable as elsewhere damage is where it is, of a model that tells it


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
        the centrelines of all damage together; of four also the mean over the images.
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
        if metric.removesuffix(SUFFIX) in OF_LINES:
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
        return losses(logits, masks, label_smoothing).mean()

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """The same with the focal form of cross-entropy, or another loss of areas than Dice.
        TrainError for weights of classes: losses of areas count each alike already.
        """
        if weighting.weights is not None:
            raise TrainError(WEIGHTLESS, remedy=WEIGHTLESS_REMEDY)
        logits = self.outputs_of(output).float()
        masks = self.checked(targets, logits)
        return losses(logits, masks, label_smoothing, weighting).mean()

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

    def meter(self, *, is_quick: bool = False) -> SegmentationMeter:
        """Keeps counts of each image's pixels, and no map; one that `is_quick` draws no
        centrelines.
        """
        return SegmentationMeter(self, draws_lines=not is_quick)

    def kept(self, meter: SegmentationMeter) -> tuple[np.ndarray, np.ndarray]:
        """TrainError: whether an image shows damage is no question of this task's."""
        raise TrainError("no map is kept of an image", remedy="judge the pixels")

    def figures(self, meter: SegmentationMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; of several damage classes those of each as well."""
        return figures_of(self.spec.classes, self.damage, meter.counts(), meter.lines(), weights)

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
        """What taking every pixel for one class scores; it has no centreline to speak of."""
        return best_constant(metrics.details, metric, self.damage)

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
        return table_of(self.spec.classes, metrics.details["classes"])

    def examples(self, before: SegmentationMeter, after: SegmentationMeter) -> list[Example]:
        """Images whose damage `after` finds with less IoU than `before`, the worst first."""
        return examples_of(self.spec.classes, self.damage, before.counts(), after.counts())

    @property
    def _damage_names(self) -> tuple[str, ...]:
        return damage_of(self.spec.classes, self.spec.damage.classes)

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


DEFINITION = TaskDefinition(NAME, Segmentation, METRICS, MetricsRecord)
