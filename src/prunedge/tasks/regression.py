"""Regression: one number or several for a whole image, in their own units.

Outputs are standardised: by how many standard deviations of the training images a number lies above
their mean (`prunedge.edge.tasks.base.Scale`). So the last layer of any architecture has to learn
neither the unit nor the size of the numbers, and several weigh alike. The loss is Huber's (1964) of
the standardised numbers with delta 1: squared up to one deviation, absolute beyond, so that a few
wrong labels don't decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt

from prunedge.edge.tasks.base import TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.edge.tasks.regression import METRICS, NAME, NumberTargets, Target
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
from prunedge.tasks.weighting import LossWeighting
from prunedge.utils.records import Loss, Record
from prunedge.utils.tracing import traced
from prunedge.utils.wording import figure

OUTPUTS_REMEDY = "build it with one output for each number"
TARGETS_REMEDY = "give each image its numbers in their own units, as (n, numbers) float32"
CLASSLESS = "numbers have no classes that could be rare"
CLASSLESS_REMEDY = "train without balance and focal"
MEDIAN = 0  # the constant answer that others have to beat
ONE_NUMBER = 1  # the answer of a model that gives every image the same
CONSTANT = 1e-6  # deviations, below which outputs don't differ
FAR = 0.5  # deviations, by which an answer has to be farther off to be shown
QUARTILE = 0.6745  # deviations between the mean and a quartile of a normal distribution


class NumberRecord(Record):
    """How well one number is estimated."""

    mae: NonNegativeFloat
    rmse: NonNegativeFloat
    r2: float | None


class ConstantRecord(Record):
    """What always answering the median of the training images scores."""

    loss: float
    mae: NonNegativeFloat
    rmse: NonNegativeFloat
    r2: float | None


class MetricsRecord(Record):
    """`Metrics.to_json` of this task."""

    loss: Loss
    mae: NonNegativeFloat
    rmse: NonNegativeFloat
    r2: float | None
    numbers: list[NumberRecord]
    constant: ConstantRecord
    spread: list[NonNegativeFloat]
    n: PositiveInt
    correct: str = ""


@dataclass(frozen=True)
class Regression:
    """The numbers that `spec.classes` names, of each image.

    Outputs are standardised (n, numbers), targets (n, numbers) float32 in their own units. Of
    several numbers the metrics are the means over them.
    """

    spec: TaskSpec

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """`mae` and `rmse`, the mean absolute error and the root of the mean squared error, in the
        numbers' own unit; `r2`, the share of the variance that is explained.
        """
        return METRICS

    @property
    def targets(self) -> NumberTargets:
        """The numbers."""
        return NumberTargets(self.spec.classes, scales=self.spec.scales)

    @property
    def outputs(self) -> int:
        """One for each number."""
        return len(self.spec.classes)

    @property
    def needs_negative(self) -> bool:
        """Yes: numbers below the mean."""
        return True

    def require(self, metric: str) -> None:
        """Nothing: all metrics are computed with what every training has."""

    def undefined(self, metric: str, targets: Sequence[Target]) -> str | None:
        """There is no variance to explain where a number is the same in all images."""
        if metric != "r2":
            return None
        for name, column in zip(self.spec.classes, zip(*targets, strict=True), strict=True):
            if len(set(column)) < 2:
                return f"another {name}"
        return None

    def outputs_of(self, output: Any) -> torch.Tensor:
        """The standardised numbers (n, numbers); those of a model with a single one may be (n,)."""
        outputs = logits_of(output)
        if outputs.dim() == 1 and self.outputs == 1:
            outputs = outputs[:, None]
        is_right = outputs.dim() == 2 and outputs.shape[1] == self.outputs
        if not outputs.is_floating_point() or not is_right:
            shape = f"{tuple(outputs.shape)} {str(outputs.dtype).removeprefix('torch.')}"
            wanted = "the number" if self.outputs == 1 else f"each of {self.outputs} numbers"
            raise ModelError(
                f"the model gives {shape}, and not an output for {wanted}", remedy=OUTPUTS_REMEDY
            )
        return outputs

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError where there is not one output for each number."""
        try:
            self.outputs_of(output)
        except ModelError as error:
            raise ModelError(error.what, where=name, remedy=error.remedy) from None

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """Huber's loss of the standardised numbers, the mean over numbers and images. Numbers have
        no labels to smooth.
        """
        outputs = self.outputs_of(output)
        outputs = outputs.double() if double else outputs.float()
        wanted = self.standardised(self.checked(targets, len(outputs)).to(outputs.device))
        return F.huber_loss(outputs, wanted.to(outputs.dtype))

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """TrainError: no number is rarer than another."""
        raise TrainError(CLASSLESS, remedy=CLASSLESS_REMEDY)

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """TrainError: no number is rarer than another."""
        raise TrainError(CLASSLESS, remedy=CLASSLESS_REMEDY)

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """Huber's loss against the teacher's numbers; they have no temperature."""
        return F.huber_loss(
            self.outputs_of(output).float(), self.outputs_of(teacher_output).float()
        )

    def categories(self, targets: Any, output: Any) -> Categories:
        """For each number in which of four ranges it lies, those between the quartiles of a normal
        distribution.
        """
        wanted = self.checked(targets, len(self.outputs_of(output)))
        return _quarters(self.standardised(wanted))

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """The ranges of the numbers that the model answers."""
        return _quarters(self.outputs_of(output))

    def meter(self, *, is_quick: bool = False) -> RegressionMeter:
        """Keeps the outputs, a number or a few an image, which the report's gallery reads."""
        return RegressionMeter(self)

    def kept(self, meter: RegressionMeter) -> tuple[np.ndarray, np.ndarray]:
        """The outputs, and the numbers in their own units."""
        return meter.outputs().numpy(), meter.targets().numpy()

    def figures(self, meter: RegressionMeter, weights: np.ndarray) -> of.Figures:
        """The metrics; of several numbers those of each as well."""
        truth = meter.targets().double().numpy()
        errors = self.in_units(meter.outputs()).numpy() - truth
        parts = []
        for place, name in enumerate(self.spec.classes):
            figures = _weighted(weights, errors[:, place], truth[:, place])
            parts.append(of.Part(name, None, figures))

        metrics = []
        for place, metric in enumerate(METRICS.values()):
            # As the meter has it: not defined where it is not of one of the numbers.
            columns = [part.figures[place].values for part in parts]
            metrics.append(of.Figure(metric, np.mean(columns, axis=0)))
        return of.Figures(tuple(metrics), tuple(parts) if len(parts) > 1 else ())

    def only_answer(self, metrics: Metrics) -> int | None:
        """That every image was given the same numbers."""
        return ONE_NUMBER if self.has_constant_outputs(metrics) else None

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The median of the training images, and what always answering it scores."""
        score = metrics.details["constant"][metric]
        # Where it is not defined of the images, nobody asks for it (`undefined`).
        return ConstantAnswer(MEDIAN, 0.0 if score is None else score)

    @property
    def answers(self) -> int:
        """The median, and any other number."""
        return 2

    def answer_name(self, answer: int) -> str:
        """The median in its unit."""
        if answer == ONE_NUMBER:
            return "the same number" if self.outputs == 1 else "the same numbers"
        return ", ".join(figure(scale.median, 4) for scale in self.spec.scales) or "the median"

    def uninformed_loss(self, metrics: Metrics) -> float:
        """That of always answering the median."""
        return float(metrics.details["constant"]["loss"])

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether all images got the same numbers."""
        return bool(metrics.n > 1 and max(metrics.details["spread"]) < CONSTANT)

    @property
    def titles(self) -> Titles:
        """Of answers that are more or less far off."""
        return Titles(
            table="How far off",
            examples="Where the pruned model is farther off than the original",
            taken_for="estimated at",
        )

    def purpose(self) -> str:
        """Estimating its numbers."""
        return f"estimating {', '.join(self.spec.classes)}"

    def table(self, metrics: Metrics) -> Table:
        """Each number: how far off the answers are, in its unit, and how much of it is explained;
        and the same of the constant answer.
        """
        rows = []
        for name, record in zip(self.spec.classes, metrics.details["numbers"], strict=True):
            rows.append((name, *_cells(record)))
        median = f"always the median ({self.answer_name(MEDIAN)})"
        rows.append((median, *_cells(metrics.details["constant"])))
        columns = ("mean absolute error", "root mean squared error", "variance explained")
        return Table("number", columns, tuple(rows))

    def examples(self, before: RegressionMeter, after: RegressionMeter) -> list[Example]:
        """Images of which `after` is farther off than `before` by more than half a deviation, the
        worst first.
        """
        wanted = self.standardised(after.targets())
        off = [(meter.outputs() - wanted).abs().amax(1) for meter in (before, after)]
        lost = off[1] - off[0]

        examples = []
        for index in lost.argsort(descending=True, stable=True).tolist():
            if lost[index] <= FAR:
                break
            example = Example(
                index=index,
                truth=_text(after.targets()[index]),
                before=_text(self.in_units(before.outputs()[index])),
                after=_text(self.in_units(after.outputs()[index])),
            )
            examples.append(example)
        return examples

    def standardised(self, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers (..., numbers) in their own units as deviations from the mean, float64."""
        means, deviations = self._scales(numbers.device)
        return (numbers.double() - means) / deviations

    def in_units(self, outputs: torch.Tensor) -> torch.Tensor:
        """The inverse: outputs (..., numbers) in the numbers' own units, float64."""
        means, deviations = self._scales(outputs.device)
        return outputs.double() * deviations + means

    def _scales(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the deviation of each number (numbers,) float64."""
        if len(self.spec.scales) != self.outputs:
            raise TrainError(
                f"{len(self.spec.scales)} scales for {self.outputs} numbers",
                remedy="take the task of a data set or a bundle, which knows the training images",
            )
        means = [scale.mean for scale in self.spec.scales]
        deviations = [scale.deviation for scale in self.spec.scales]
        both = torch.tensor([means, deviations], dtype=torch.float64, device=device)
        return both[0], both[1]

    def checked(self, targets: Any, images: int) -> torch.Tensor:
        """The targets, where they are finite numbers of so many images. TrainError."""
        wanted = (images, self.outputs)
        if not isinstance(targets, torch.Tensor) or tuple(targets.shape) != wanted:
            shape = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets)
            raise TrainError(f"targets of {shape}, and not {wanted}", remedy=TARGETS_REMEDY)
        if not bool(targets.isfinite().all()):
            raise TrainError("targets that are no finite numbers", remedy=TARGETS_REMEDY)
        return targets


class RegressionMeter:
    """The loss, how far off answers are, and what the constant answer scores."""

    def __init__(self, task: Regression) -> None:
        self._task = task
        self._observed = Observed()

    def observe(self, outputs: Any, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs (n, numbers) float32, and the targets (n, numbers) in their own units."""
        found = self._task.outputs_of(outputs).float()
        return Observed.observation(found, self._task.checked(targets, len(found)))

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch."""
        self._observed.update(observation)

    def outputs(self) -> torch.Tensor:
        """(n, numbers) float32, standardised, in the images' order."""
        return self._observed.outputs()

    def targets(self) -> torch.Tensor:
        """(n, numbers) float32, in their own units."""
        return self._observed.targets()

    @traced("metrics")
    def compute(self) -> Metrics:
        """The metrics; `r2` is None where a number is the same in all images."""
        task = self._task
        outputs = self._observed.finite_outputs()
        targets = self.targets()
        truth = targets.double()
        numbers = _scores(task.in_units(outputs), truth)

        medians = torch.tensor([scale.median for scale in task.spec.scales], dtype=torch.float64)
        dull = medians.expand_as(truth)
        constant = _mean(_scores(dull, truth))
        loss = float(task.loss(task.standardised(dull), targets, double=True))
        return Metrics(
            loss=float(task.loss(outputs, targets, double=True)),
            values=_mean(numbers),
            n=len(targets),
            details={
                "numbers": numbers,
                "constant": {"loss": loss, **constant},
                "spread": (outputs.amax(0) - outputs.amin(0)).tolist(),
            },
        )


def _scores(answers: torch.Tensor, truth: torch.Tensor) -> list[dict[str, float | None]]:
    """The metrics of each number by its column, of answers (n, numbers) float64 in their units.

    `r2` is 1 - sum of squared errors / sum of squared deviations from the mean of these images.
    """
    errors = answers - truth
    squares = errors.square().mean(0)
    variance = (truth - truth.mean(0)).square().mean(0)
    scores: list[dict[str, float | None]] = []
    for column in range(truth.shape[1]):
        square = float(squares[column])
        varies = bool((truth[:, column] != truth[0, column]).any())
        score = {
            "mae": float(errors[:, column].abs().mean()),
            "rmse": square**0.5,
            "r2": 1 - square / float(variance[column]) if varies else None,
        }
        scores.append(score)
    return scores


def _weighted(weights: np.ndarray, errors: np.ndarray, truth: np.ndarray) -> tuple[of.Figure, ...]:
    """The same of one number, of errors and truth (n,), where images count as `weights` say."""
    squares = of.mean(weights, errors**2)
    centred = truth - truth.mean()
    variance = of.mean(weights, centred**2) - of.mean(weights, centred) ** 2
    # Rounding leaves a little of where there is none.
    varies = variance > 1e-12 * max(float((centred**2).max()), 1e-300)
    explained = 1 - of.ratio(squares, np.where(varies, variance, 0.0))
    values = {"mae": of.mean(weights, np.abs(errors)), "rmse": np.sqrt(squares), "r2": explained}
    return tuple(of.Figure(metric, values[name]) for name, metric in METRICS.items())


def _mean(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Each metric's mean over the numbers; None where it is not defined of one."""
    means: dict[str, float | None] = {}
    for name in METRICS:
        values = [score[name] for score in scores]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if len(known) == len(values) else None
    return means


def _quarters(standardised: torch.Tensor) -> Categories:
    """In which of four ranges standardised numbers (n, numbers) lie."""
    edges = torch.tensor([-QUARTILE, 0.0, QUARTILE], device=standardised.device)
    return Categories(torch.bucketize(standardised.float().contiguous(), edges), 4)


def _cells(record: Mapping[str, float | None]) -> list[str]:
    r2 = record["r2"]
    cells = [figure(error, 4) for error in (record["mae"], record["rmse"]) if error is not None]
    return [*cells, "" if r2 is None else _percent(r2)]


def _percent(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f} %"  # and no -0.0


def _text(numbers: torch.Tensor) -> str:
    return ", ".join(figure(number) for number in numbers.tolist())


DEFINITION = TaskDefinition(NAME, Regression, METRICS, MetricsRecord)
