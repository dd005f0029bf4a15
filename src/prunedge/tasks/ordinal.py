"""Ordinal regression: one of several degrees for a whole image, in their order.

The form is that of CORN (Shi, Cao and Raschka 2021, arXiv:2111.08851): of K degrees, output k is
the logit of the conditional probability P(y > k | y >= k), and by the chain rule

    P(y > k) = product over j <= k of P(y > j | y >= j)

which falls with k whatever the outputs are, so that answers are consistent. CORAL (Cao, Mirjalili
and Raschka 2020) and proportional odds (McCullagh 1980) have it only where all outputs share one
weight vector, which an architecture's last linear layer does not; this form takes any layer with
K - 1 outputs.

The loss is the negative log-likelihood of the degree, -log P(y), the mean over the images. For an
image it is the sum of the binary cross-entropies of the questions that it takes part in (those up
to its own degree), as in CORN's loss. CORN divides by the number of all questions of a batch, which
differs from batch to batch; the mean over images is what ranking needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveInt

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.ordinal import METRICS, NAME, DegreeTargets
from prunedge.errors import ModelError, TrainError
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
from prunedge.tasks.observed import Observed
from prunedge.tasks.packed import packed
from prunedge.tasks.weighting import LossWeighting, class_weights
from prunedge.utils.advice import option
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced

OUTPUTS_REMEDY = "build it with one output less than there are degrees"
TARGETS_REMEDY = "give the number of each image's degree, as int64, the lowest is 0"
FAR = 2  # degrees: how far off an answer is that counts as such


class ExpectedRecord(Record):
    """The lowest and the highest expected degree of an image, counted from 0."""

    lowest: float
    highest: float


class MetricsRecord(Record):
    """`Metrics.to_json` of this task."""

    loss: Loss
    kappa: float | None
    degrees_off: float
    two_off: float
    accuracy: float
    degrees: list[list[NonNegativeInt]]
    expected: ExpectedRecord
    n: PositiveInt
    correct: str = ""


@dataclass(frozen=True)
class Ordinal:
    """One of `spec.classes` for each image, the degrees from the lowest up.

    Outputs are logits (n, degrees - 1) of going beyond each degree but the last (the module's
    docstring), targets the degree of each image (n,) int64 from 0.
    """

    spec: TaskSpec

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """`kappa`, Cohen's with quadratic weights; `degrees_off`, by how many degrees an answer is
        off in the mean; `two_off`, the share of images that are two degrees off or more;
        `accuracy`.
        """
        return METRICS

    @property
    def targets(self) -> DegreeTargets:
        """Indices of the degrees."""
        return DegreeTargets(self.spec.classes)

    @property
    def degrees(self) -> int:
        """How many there are."""
        return len(self.spec.classes)

    @property
    def outputs(self) -> int:
        """One between each two degrees."""
        return self.degrees - 1

    @property
    def needs_negative(self) -> bool:
        """Yes: from 0 on it is as probable as a half that an image goes beyond a degree."""
        return True

    def require(self, metric: str) -> None:
        """Nothing: all metrics are computed with what every training has."""

    def undefined(self, metric: str, targets: Sequence[int]) -> str | None:
        """Kappa compares with chance, which is always right where all images have one degree."""
        if metric != "kappa" or len(set(targets)) > 1:
            return None
        return next(iter(self.targets.missing(targets)), None)

    def outputs_of(self, output: Any) -> torch.Tensor:
        """The logits (n, degrees - 1)."""
        logits = logits_of(output)
        if not logits.is_floating_point() or logits.dim() != 2 or logits.shape[1] != self.outputs:
            shape = f"{tuple(logits.shape)} {str(logits.dtype).removeprefix('torch.')}"
            raise ModelError(
                f"the model gives {shape}, and not the {self.outputs} logits between "
                f"{self.degrees} degrees",
                remedy=OUTPUTS_REMEDY,
            )
        return logits

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError where there is not one output between each two degrees."""
        try:
            self.outputs_of(output)
        except ModelError as error:
            raise ModelError(error.what, where=name, remedy=error.remedy) from None

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """-log P(y), the mean over the images; with `label_smoothing` that share of each target is
        spread evenly over all degrees.
        """
        logits = self.outputs_of(output)
        logits = logits.double() if double else logits.float()
        wanted = self.checked(targets, len(logits)).long()
        log_likely = log_probabilities(logits)
        loss = F.nll_loss(log_likely, wanted)
        if not label_smoothing:
            return loss
        return (1 - label_smoothing) * loss - label_smoothing * log_likely.mean()

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """The same with the weight of each image's degree. TrainError for a focal form."""
        if weighting.focal or weighting.weights is None:
            raise TrainError("degrees have no focal loss", remedy=f"leave {option('focal')} out")
        logits = self.outputs_of(output).float()
        wanted = self.checked(targets, len(logits)).long()
        log_likely = log_probabilities(logits)
        right = log_likely.gather(1, wanted[:, None])[:, 0]
        losses = (1 - label_smoothing) * -right - label_smoothing * log_likely.mean(1)
        return (losses * weighting.weights.to(losses)[wanted]).mean()

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """The weight of each degree (degrees,)."""
        return class_weights(np.bincount(targets, minlength=self.degrees))

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """KL divergence from the degrees' probabilities by the teacher's softened logits, times
        temperature^2 (Hinton et al. 2015).
        """
        student = log_probabilities(self.outputs_of(output).float() / temperature)
        teacher = log_probabilities(self.outputs_of(teacher_output).float() / temperature)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return divergence * temperature**2

    def categories(self, targets: Any, output: Any) -> Categories:
        """The degrees of the images."""
        wanted = self.checked(targets, len(self.outputs_of(output)))
        return Categories(wanted.long()[:, None], self.degrees)

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """The degrees that the model answers."""
        return Categories(self.decided(self.outputs_of(output))[:, None], self.degrees)

    def meter(self, *, is_quick: bool = False) -> OrdinalMeter:
        """Keeps the logits, a few numbers an image, which the report's gallery reads."""
        return OrdinalMeter(self)

    def kept(self, meter: OrdinalMeter) -> tuple[np.ndarray, np.ndarray]:
        """The logits and degrees."""
        return meter.logits().numpy(), meter.degrees().numpy()

    def figures(self, meter: OrdinalMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; recall, precision and F1 of each degree."""
        truth = meter.degrees().numpy()
        answers = self.decided(meter.logits()).numpy()
        is_there = of.one_hot(truth, self.degrees)
        is_answered = of.one_hot(answers, self.degrees)
        off = np.abs(truth - answers)
        return of.Figures(
            metrics=(
                of.Figure(METRICS["kappa"], _weighted_kappa(weights, is_there, is_answered)),
                of.Figure(METRICS["degrees_off"], of.mean(weights, off)),
                of.share(METRICS["two_off"], weights, off >= FAR),
                of.share(METRICS["accuracy"], weights, off == 0),
            ),
            parts=of.parts_of(self.spec.classes, is_there, is_answered, weights),
        )

    def only_answer(self, metrics: Metrics) -> int | None:
        """The degree that every image was given, though there are images of at least two."""
        counts = metrics.details["degrees"]
        present = sum(any(row) for row in counts)
        columns = zip(*counts, strict=True)
        answered = [degree for degree, column in enumerate(columns) if any(column)]
        return answered[0] if present > 1 and len(answered) == 1 else None

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The degree that scores best where all images get it, and what it scores: by accuracy the
        most frequent one, by `degrees_off` the median; by kappa, which is 0 for all, that as well.
        """
        images = [sum(row) for row in metrics.details["degrees"]]
        judged = self.metrics["degrees_off" if metric == "kappa" else metric]
        scores = []
        for answer in range(self.degrees):
            counts = [[0] * self.degrees for _ in images]
            for degree, count in enumerate(images):
                counts[degree][answer] = count
            scores.append(scores_of(counts)[judged.name])
        best = max(range(self.degrees), key=lambda degree: judged.order(scores[degree]))
        return ConstantAnswer(best, 0.0 if metric == "kappa" else scores[best])

    @property
    def answers(self) -> int:
        """One for each degree."""
        return self.degrees

    def answer_name(self, answer: int) -> str:
        """The degree's name."""
        return self.spec.classes[answer]

    def uninformed_loss(self, metrics: Metrics) -> float:
        """That of equal probabilities for all degrees."""
        return math.log(self.degrees)

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether all images have the same expected degree, as after a step so large that all ReLUs
        died.
        """
        expected = metrics.details["expected"]
        return bool(expected["highest"] - expected["lowest"] < 1e-6)

    @property
    def titles(self) -> Titles:
        """Of answers that are right or wrong."""
        return Titles()

    def purpose(self) -> str:
        """Telling its degrees apart."""
        return f"grading {' < '.join(self.spec.classes)}"

    def table(self, metrics: Metrics) -> Table:
        """The confusion matrix, in the degrees' order."""
        names = self.spec.classes
        rows = []
        for name, counts in zip(names, metrics.details["degrees"], strict=True):
            rows.append((name, *(f"{count:,}" for count in counts)))
        return Table("truth \\ answer", names, tuple(rows), is_confusion=True)

    def examples(self, before: OrdinalMeter, after: OrdinalMeter) -> list[Example]:
        """Images that `after` gives a wrong degree and `before` the right one, in their order."""
        degrees = after.degrees()
        likely = [log_probabilities(meter.logits().double()).exp() for meter in (before, after)]
        decided = [self.decided(meter.logits()) for meter in (before, after)]
        is_lost = (decided[0] == degrees) & (decided[1] != degrees)

        examples = []
        for index in is_lost.nonzero().flatten().tolist():
            answer_before = int(decided[0][index])
            answer_after = int(decided[1][index])
            example = Example(
                index=index,
                truth=self.answer_name(int(degrees[index])),
                before=self.answer_name(answer_before),
                after=self.answer_name(answer_after),
                confidence_before=float(likely[0][index, answer_before]),
                confidence_after=float(likely[1][index, answer_after]),
            )
            examples.append(example)
        return examples

    def decided(self, logits: torch.Tensor) -> torch.Tensor:
        """(n,) int64, the degree that logits (n, degrees - 1) answer: how many degrees an image
        goes beyond with a probability of more than a half.
        """
        beyond = logits.double().sigmoid().cumprod(1)
        return (beyond > 0.5).sum(1)

    def checked(self, targets: Any, images: int) -> torch.Tensor:
        """The targets, where they are a degree for each of so many images. TrainError."""
        if not isinstance(targets, torch.Tensor) or targets.is_floating_point():
            kind = targets.dtype if isinstance(targets, torch.Tensor) else type(targets)
            raise TrainError(f"degrees of {kind}, and not integers", remedy=TARGETS_REMEDY)
        if targets.shape != (images,):
            what = f"degrees of {tuple(targets.shape)}, and not one for each of {images} images"
            raise TrainError(what, remedy=TARGETS_REMEDY)
        low, high = (int(end) for end in torch.aminmax(targets))
        if low < 0 or high >= self.degrees:
            what = f"degrees from {low} to {high}, of {self.degrees}"
            raise TrainError(what, remedy=TARGETS_REMEDY)
        return targets


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """log P(y = k) (n, degrees) of logits (n, degrees - 1): of going beyond every degree below k,
    and not beyond k. Finite for the largest logits, and the probabilities add up to 1.
    """
    reached = F.pad(F.logsigmoid(logits).cumsum(1), (1, 0))
    stays = F.pad(F.logsigmoid(-logits), (0, 1))
    return reached + stays


def _weighted_kappa(
    weights: np.ndarray, is_there: np.ndarray, is_answered: np.ndarray
) -> np.ndarray:
    """Cohen's kappa with quadratic weights (rows,) of truth and answers (n, degrees) bool; NaN
    where all images have one degree.
    """
    degrees = np.arange(is_there.shape[1], dtype=np.float64)
    apart = (degrees[:, None] - degrees) ** 2
    truths = weights @ is_there.astype(np.float64)
    answers = weights @ is_answered.astype(np.float64)
    seen = weights @ ((is_there @ degrees - is_answered @ degrees) ** 2)
    by_chance = ((truths @ apart) * answers).sum(1)
    kappa = 1 - of.ratio(seen * weights.sum(1), by_chance)
    return np.where((truths > 0).sum(1) > 1, kappa, np.nan)


def scores_of(counts: Sequence[Sequence[int]]) -> dict[str, float]:
    """The metrics that `counts[true][answered]` of images suffice for, by name."""
    images = sum(sum(row) for row in counts)
    off = [0] * len(counts)  # images by how many degrees they are off
    for degree, row in enumerate(counts):
        for answer, count in enumerate(row):
            off[abs(answer - degree)] += count
    return {
        "degrees_off": sum(far * count for far, count in enumerate(off)) / images,
        "two_off": sum(off[FAR:]) / images,
        "accuracy": off[0] / images,
    }


class OrdinalMeter:
    """The loss, kappa, how far answers are off, and the confusion matrix."""

    def __init__(self, task: Ordinal) -> None:
        self._task = task
        self._observed = Observed()

    def observe(self, outputs: Any, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The logits (n, degrees - 1) float32 and the degrees (n,)."""
        logits = self._task.outputs_of(outputs).float()
        return Observed.observation(logits, self._task.checked(targets, len(logits)))

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch."""
        self._observed.update(observation)

    def logits(self) -> torch.Tensor:
        """(n, degrees - 1) float32, in the images' order."""
        return self._observed.outputs()

    def degrees(self) -> torch.Tensor:
        """(n,) int64."""
        return self._observed.targets()

    @traced("metrics")
    def compute(self) -> Metrics:
        """The metrics; `kappa` is None where all images have one degree."""
        # Seconds to import.
        from torchmetrics.functional.classification import (
            multiclass_cohen_kappa,
            multiclass_confusion_matrix,
        )

        task = self._task
        logits = self._observed.finite_outputs()
        degrees = self.degrees()
        decided = task.decided(logits)
        kappa = None
        if len(degrees.unique()) > 1:
            kappa = float(multiclass_cohen_kappa(decided, degrees, task.degrees, "quadratic"))
        confusion = multiclass_confusion_matrix(decided, degrees, task.degrees).long()
        counts: list[list[int]] = confusion.tolist()
        likely = log_probabilities(logits.double()).exp()
        expected = likely @ torch.arange(task.degrees, dtype=likely.dtype)
        return Metrics(
            loss=float(task.loss(logits, degrees, double=True)),
            values={"kappa": kappa, **scores_of(counts)},
            n=len(degrees),
            correct=packed((decided == degrees).numpy()),
            details={
                "degrees": counts,
                "expected": {"lowest": float(expected.min()), "highest": float(expected.max())},
            },
        )


DEFINITION = TaskDefinition(NAME, Ordinal, METRICS, MetricsRecord)
