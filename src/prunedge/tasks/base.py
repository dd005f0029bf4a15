"""What a task is: what is predicted, learned and judged. Everything else asks the task.

A task has two halves. This one, with torch, teaches and judges; the other (`prunedge.edge.tasks`),
with numpy alone, says what images are labelled with, and reads a model's outputs on the device. A
new task is a module here and a module there: nothing else asks which task it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from prunedge.edge.tasks.base import Targets, TaskSpec
from prunedge.edge.tasks.metric import Metric
from prunedge.errors import TrainError
from prunedge.tasks.figures import Figures
from prunedge.tasks.weighting import LossWeighting
from prunedge.utils.advice import option
from prunedge.utils.records import Record


@dataclass(frozen=True)
class Metrics:
    """What a model does on `n` images.

    `loss` is the task's, the mean over the images. `values` are the task's metrics by name; None
    where one is not defined on these images. Each is also an attribute: `metrics.accuracy`.
    `correct` says which images were answered right, in their order (`prunedge.tasks.packed`), of a
    metric that has an interval. `details` is what the task's report shows beside: for
    classification `confusion[true][predicted]`, which counts images.
    """

    loss: float
    values: Mapping[str, float | None]
    n: int
    correct: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """The metric of that name. TrainError when there is none, or it is not defined here."""
        if metric not in self.values:
            raise TrainError(
                f"no metric is called {metric!r}", remedy=f"choose {', '.join(self.values)}"
            )
        value = self.values[metric]
        if value is None:
            other = next((name for name, held in self.values.items() if held is not None), None)
            raise TrainError(
                f"{metric} isn't defined: a class has no image in this split",
                remedy="give it some" if other is None else f"use {option('metric', other)}",
            )
        return float(value)

    def __getattr__(self, name: str) -> Any:
        # Only what is no field comes here. Nothing is there yet while an instance is unpickled.
        for named in ("values", "details"):
            held = self.__dict__.get(named, {})
            if name in held:
                return held[name]
        raise AttributeError(f"these metrics have no '{name}'")

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values, metrics and details by their names."""
        return {
            "loss": self.loss,
            **self.values,
            **self.details,
            "n": self.n,
            "correct": self.correct,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_json`: numbers are metrics, lists and objects details."""
        values: dict[str, float | None] = {}
        details: dict[str, Any] = {}
        for name, value in record.items():
            if name in ("loss", "n", "correct"):
                continue
            if isinstance(value, list | dict):
                details[name] = value
            else:
                values[name] = None if value is None else float(value)
        return Metrics(
            loss=float(record["loss"]),
            values=values,
            n=int(record["n"]),
            correct=record.get("correct", ""),
            details=details,
        )


@dataclass(frozen=True)
class Categories:
    """What images show, or are taken for, as answers to questions that have a few each.

    `chosen` (n, questions) int64 has an answer to each, from 0 to `choices` - 1: for classification
    the class, for multilabel for each class whether it is there.
    """

    chosen: torch.Tensor
    choices: int


@dataclass(frozen=True)
class ConstantAnswer:
    """What a model that always gives the same answer scores: what any other has to beat."""

    answer: int
    score: float


@dataclass(frozen=True)
class Example:
    """An image of the report's gallery: its index in the split, the truth, both models' answers.

    `confidence_before` and `confidence_after` are probabilities, from 0 to 1; None where answers
    have none.
    """

    index: int
    truth: str
    before: str
    after: str
    confidence_before: float | None = None
    confidence_after: float | None = None


@dataclass(frozen=True)
class Table:
    """What was right and wrong, for a reader: the heading of the first column and the others', and
    rows of a name and a cell for each of these. In a row whose number is that of a column that cell
    is of right answers, where `is_confusion`.
    """

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_confusion: bool = False


@dataclass(frozen=True)
class Titles:
    """What a report calls the task's table, its gallery (`Task.examples`), and what stands between
    the truth and the answer there.
    """

    table: str = "Right and wrong"
    examples: str = "What the pruned model gets wrong and the original got right"
    taken_for: str = "taken for"


@dataclass(frozen=True)
class TaskDefinition:
    """A task by its name: what makes it of a spec, its metrics by name (those of the other half),
    and what `Metrics.to_json` writes of it.
    """

    name: str
    make: Callable[[TaskSpec], Task]
    metrics: Mapping[str, Metric]
    record: type[Record]


class Meter(Protocol):
    """Measures a model batch by batch, in the images' order. No more is kept of an image than its
    metrics need.
    """

    def observe(self, outputs: Any, targets: Any) -> dict[str, torch.Tensor]:
        """What is kept of a batch, on whatever device it lies."""

    def update(self, observation: Mapping[str, torch.Tensor]) -> None:
        """Take in a batch that this process or another has observed, on the CPU."""

    def compute(self) -> Metrics:
        """The metrics of all that was taken in. TrainError when the outputs aren't finite."""


class Task(Protocol):
    """What a model predicts, how it is taught and how it is judged."""

    @property
    def spec(self) -> TaskSpec | None:
        """Its name, classes and images; None where a model is measured on bare batches."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics by name, first the one that is used unless another is asked for."""

    @property
    def targets(self) -> Targets:
        """What images are labelled with; only where there is a `spec`."""

    @property
    def outputs(self) -> int:
        """How many outputs the model's head has; only where there is a `spec`."""

    @property
    def needs_negative(self) -> bool:
        """Whether outputs mean nothing unless they can fall below 0, as none after a ReLU can."""

    def require(self, metric: str) -> None:
        """ExtraMissing where a metric needs a package that isn't there."""

    def undefined(self, metric: str, targets: Sequence[Any]) -> str | None:
        """What a split's targets lack that a metric needs, by name; None where it is defined."""

    def outputs_of(self, output: Any) -> torch.Tensor:
        """What loss and meter read of what a model gives; ModelError when it isn't there."""

    def refuse_outputs(self, output: Any, name: str) -> None:
        """ModelError, which names the model, where an output is not one of this task's."""

    def loss(
        self, output: Any, targets: Any, *, label_smoothing: float = 0.0, double: bool = False
    ) -> torch.Tensor:
        """The mean over the examples, a scalar (float64 with `double`): Taylor criteria scale by
        their number.
        """

    def weighted_loss(
        self,
        output: Any,
        targets: Any,
        weighting: LossWeighting,
        *,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """The loss that is trained with where rare classes or hard images count more, the mean over
        the examples. TrainError where the task has no such loss.
        """

    def loss_weights(self, targets: np.ndarray) -> torch.Tensor:
        """The weights of `LossWeighting` by the targets of the training images, as a batch holds
        them. TrainError where the task has no classes.
        """

    def distance(self, output: Any, teacher_output: Any, temperature: float) -> torch.Tensor:
        """How far a model's answers are from a teacher's, the mean over the examples."""

    def categories(self, targets: Any, output: Any) -> Categories:
        """What a batch's targets say; the output tells how many choices there are. PrunedgeError
        where targets and output are not of each other.
        """

    def predicted_categories(self, output: Any, targets: Any = None) -> Categories:
        """What the model takes the images for. `targets` are the batch's, where there are any: no
        answer counts where these say that nothing does.
        """

    def meter(self, *, is_quick: bool = False) -> Meter:
        """A new one; one that `is_quick` leaves out the metrics that are slow."""

    def kept(self, meter: Any) -> tuple[np.ndarray, np.ndarray]:
        """The outputs (n, ...) float32 and the targets, as a batch of them, that one of its meters
        has taken in; only of tasks that tell damage from what is sound (`Detection`).
        """

    def figures(self, meter: Any, weights: np.ndarray) -> Figures:
        """The metrics, and those of each class, where the images that one of its meters has taken
        in count as often as `weights` (rows, n) say.
        """

    def only_answer(self, metrics: Metrics) -> int | None:
        """The answer that every image got though targets differ; None where answers differ."""

    def constant(self, metrics: Metrics, metric: str) -> ConstantAnswer:
        """The best constant answer to the same images."""

    @property
    def answers(self) -> int:
        """How many constant answers there are, from 0."""

    def answer_name(self, answer: int) -> str:
        """A constant answer for a reader."""

    def uninformed_loss(self, metrics: Metrics) -> float:
        """The loss of a model that knows nothing and says so."""

    def has_constant_outputs(self, metrics: Metrics) -> bool:
        """Whether the outputs are the same whatever the image: the model's units have died."""

    @property
    def titles(self) -> Titles:
        """What a report calls the task's parts."""

    def purpose(self) -> str:
        """What a model does, after its name in a title: `telling crack from sound`."""

    def table(self, metrics: Metrics) -> Table:
        """The task's details of these metrics, for a report."""

    def examples(self, before: Any, after: Any) -> list[Example]:
        """What `after` gets wrong and `before` got right: two meters over the same images."""
