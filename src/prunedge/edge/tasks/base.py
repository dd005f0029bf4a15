"""A task's half without torch: what images are labelled with, what a model's outputs mean, and
whether these can be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from prunedge.edge.image.read import InChannels
from prunedge.edge.image.size import LARGEST, Resize, Size
from prunedge.edge.tasks.decision import NOTHING_SAID, DamageSpec, Decision
from prunedge.edge.tasks.metric import Metric, MetricFamily

SEPARATOR = ";"  # between several labels of one image


class Scale(BaseModel):
    """What the training images say of a number that is predicted, in the number's own unit: models
    answer by how many deviations a number lies above the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: float
    deviation: float = Field(gt=0)
    median: float
    lowest: float
    highest: float


def scale_rows(scales: Sequence[Scale]) -> list[list[float]]:
    """Scales as plain numbers, which a config keeps."""
    return [list(scale.model_dump().values()) for scale in scales]


def scales_in(rows: Sequence[Sequence[float]]) -> tuple[Scale, ...]:
    """The inverse of `scale_rows`."""
    return tuple(Scale(**dict(zip(Scale.model_fields, row, strict=True))) for row in rows)


class TaskSpec(BaseModel):
    """What a model predicts, and from which images: JSON, in a run's config and a bundle's
    manifest.

    `size` is (height, width) of the images that it sees, `resize` how others become such, and
    `in_channels` whether they have three colours or are grey. `damage` is what the user says of it.
    `decision` is how one model's outputs become an answer; None by what its task does usually.
    `scales` are those of the numbers that `classes` names, of tasks that predict numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    classes: tuple[str, ...] = Field(min_length=1)
    size: Size
    resize: Resize = "stretch"
    in_channels: InChannels = 3
    damage: DamageSpec = NOTHING_SAID
    decision: Decision | None = None
    scales: tuple[Scale, ...] = ()

    @model_validator(mode="after")
    def _damage_is_known(self) -> Self:
        named = {*self.damage.classes, *(self.decision.damage if self.decision else ())}
        unknown = named - set(self.classes)
        if unknown:
            raise ValueError(f"no class is called '{min(unknown)[:100]}'")
        return self

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, size: Size) -> Size:
        if not (1 <= size.height <= LARGEST and 1 <= size.width <= LARGEST):
            raise ValueError(f"sides from 1 to {LARGEST:,} pixels")
        return size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image, as models take them."""
        return self.in_channels, self.size.height, self.size.width


class ListedImage(Protocol):
    """What is listed of an image before it is opened (`prunedge.data.records.Record`)."""

    @property
    def name(self) -> str:
        """Where it lies below its root, with slashes."""

    @property
    def label(self) -> str:
        """What the user calls it: a folder's name, a cell of a manifest. Several labels have a
        `SEPARATOR` between them; it is empty where there is none.
        """


@dataclass(frozen=True)
class Labels:
    """The labels of all listed images.

    For messages, `where` is the place that has them, `held` what they are there (`column label`),
    and `layout` how images may be laid out. `order` are labels from the lowest up, where the user
    says so. `columns` are the names of the numbers that each label holds, with a `SEPARATOR`
    between them, where a table has a column for each. `mask_classes` are the classes that masks
    number from 0 up, where images have masks: their labels are then those of these that a mask
    shows, but for the first.
    """

    images: Sequence[ListedImage]
    where: str
    held: str
    layout: str
    order: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unmatched:
    """Why an image has no target among what a model knows: `class 'graffiti'`."""

    what: str


class Targets(Protocol):
    """What images are labelled with; numpy only.

    A target is what a task makes of a listed image: for classification the index of its class.
    Targets are hashable and equal where images are labelled alike, and their text says all of
    them: fingerprints are made of it.

    Strata are what splits keep in the same proportions: for classification the classes.
    """

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the `TaskSpec`."""

    @property
    def outputs(self) -> int:
        """How many outputs a model's head has."""

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Those of the `TaskSpec`; () before the training images are known (`scaled`)."""

    @property
    def heading(self) -> str:
        """What a stratum is called: `class`."""

    @property
    def strata_names(self) -> tuple[str, ...]:
        """The (k,) names of the strata."""

    def target(self, image: ListedImage) -> Any:
        """What is predicted of an image."""

    def matched(self, labels: Labels) -> list[Any | Unmatched]:
        """What is predicted of each image of other data, whose labels are matched by their names.
        DataError where they are of another kind altogether.
        """

    def collate(self, targets: Sequence[Any]) -> np.ndarray:
        """A batch of targets, an image along the first axis: for classification (n,) int64."""

    def strata(self, targets: Sequence[Any]) -> np.ndarray:
        """(n, k) int64: how often each image counts in each stratum; in several, or in none."""

    def missing(self, targets: Sequence[Any]) -> tuple[str, ...]:
        """The names of the strata that none of these images counts in."""

    def scales_of(self, targets: Sequence[Any]) -> tuple[Scale, ...]:
        """The scales of these targets, which are those of the training images; () of tasks that
        predict no numbers. DataError where there are none.
        """

    def scaled(self, scales: Sequence[Scale]) -> Targets:
        """The same with these scales."""

    def baseline(self, targets: Sequence[Any]) -> str:
        """What always giving the same answer scores on these images, in words."""

    def doubt(self, counts: Mapping[str, int]) -> str | None:
        """Why labels that are taken for this task's may not be, with the remedy; None where they
        are. `counts` are the images of each stratum, by its name.
        """


class Tiles(Protocol):
    """The overlapping tiles that a photograph was cut into (`prunedge.edge.inspect.grid.Grid`), and
    the cells that their edges make.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the photograph in pixels."""

    def boxes(self) -> Iterator[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each tile in pixels, row by row."""

    def maps(self, values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """From a value a tile (rows, columns) to each cell's mean (float32), and the place of its
        highest in `values.ravel()` (int64).
        """

    def damaged(self, values: np.ndarray, mean: np.ndarray, threshold: float) -> np.ndarray:
        """Which cells are damaged (bool), by the tiles' values and the means of `maps`."""


@dataclass(frozen=True)
class Findings:
    """What a photograph's tiles tell of its damage. Arrays are (rows, columns) of cells.

    `edges` are those of the rows and of the columns of cells, in pixels; None: those of the tiles.

    `mean` float32 is the probability of damage; `peak` float32 that of the surest tile that holds
    the cell, `labels` (integers) the place of that tile's damage class among `names`; `is_damaged`
    bool. `surest` is the highest probability of a tile, `tiles` how many reach the threshold.

    Of a task that predicts numbers, a number's place between the lowest and the highest of the
    training images stands for the probability; `span` are these two. `numbers` are what the
    photograph is estimated at, by name: the mean over its tiles.
    """

    mean: np.ndarray
    peak: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    is_damaged: np.ndarray
    surest: float
    tiles: int
    span: tuple[float, float] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    edges: tuple[np.ndarray, np.ndarray] | None = None


class Decoder(Protocol):
    """What a task makes of a model's outputs; numpy only.

    Outputs are the model's, float32, an image along the first axis; predictions are what `decode`
    makes of them.
    """

    @property
    def allows_none(self) -> bool:
        """Whether an image may show none of the classes: then all of them may be damage."""

    @property
    def damage(self) -> tuple[str, ...]:
        """The classes that count as damage unless the user names others; () where only their names
        tell.
        """

    @property
    def noun(self) -> str:
        """What the answers are called: `labels`."""

    def threshold(self, given: float | None, damage: Sequence[str]) -> float:
        """From which probability, or number, on there is damage; the usual one where none is
        `given`. DataError where it can be none of these `damage` classes.
        """

    def choice(self, damage: Sequence[str], threshold: float) -> str:
        """What counts as damage, in words."""

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The predictions: for classification probabilities (n, classes) of as many logits."""

    def answers(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[str]:
        """The answer to each image, in the words of its labels. `sizes` are the images' own widths
        and heights, where they may have been of another size than the model's.
        """

    def values(
        self, predictions: np.ndarray, sizes: Sequence[tuple[int, int]] | None = None
    ) -> np.ndarray:
        """A number for each class of each image, for a table (n, classes): for classification its
        probability. `sizes` as for `answers`.
        """

    def mask(self, prediction: np.ndarray, width: int, height: int) -> np.ndarray | None:
        """The number of each pixel's class (height, width) uint8, by the prediction of one image of
        this size; None where answers are of whole images.
        """

    def check(self, outputs: np.ndarray, count: int) -> str | None:
        """Why outputs of this shape can't be those of `count` images, in words; None where they
        can.
        """

    def check_predictions(self, predictions: np.ndarray, count: int) -> str | None:
        """Why these can't be right for `count` images, in words; None where they can."""

    def is_near(self, predictions: np.ndarray, others: np.ndarray) -> bool:
        """Whether predictions of the same images, made in other batches, differ by no more than a
        quantised model's rounding.
        """

    def agreement(self, outputs: np.ndarray, wanted: np.ndarray, tolerance: float) -> np.ndarray:
        """For each image whether outputs mean the same as those that are `wanted`, (n,) bool, or
        in what share of it they do, (n,) float64; what these can't tell apart within `tolerance`
        counts as the same.
        """

    def differences(self, outputs: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
        """How far the answers are apart in their own unit: `largest_difference` and
        `mean_difference`; {} where they have none, and `agreement` says it.
        """

    def warning(self, outputs: np.ndarray, loud: Callable[[], np.ndarray]) -> str | None:
        """What is wrong with a model whose outputs are decoded already, None where they are not.

        `loud` gives the outputs of the same images `prunedge.edge.probabilities.LOUD` times as
        strong; it costs a pass.
        """

    def joined(self, batches: Iterable[np.ndarray], tiles: Tiles) -> np.ndarray:
        """What `findings` reads of a photograph's tiles, whose predictions come a batch at a time,
        row by row: all of them, or what is kept of maps, which together would fill the memory.
        """

    def findings(
        self, predictions: np.ndarray, tiles: Tiles, damage: Sequence[str], threshold: float
    ) -> Findings:
        """What an inspection draws, measures and sends of a photograph, by what `joined` gives of
        its tiles. `damage` are the classes that count, from a probability (or number) of
        `threshold` on.
        """


class Detection(Protocol):
    """Whether damage is there, of a task whose answers tell it from what is sound; numpy only. What
    is decided are images, or, where an image may have several labels, each label of each image.
    """

    @property
    def unit(self) -> Literal["image", "label"]:
        """What is decided."""

    def scores(self, predictions: np.ndarray) -> np.ndarray:
        """The probability of damage of each decision (m,) float64."""

    def is_damaged(self, targets: np.ndarray) -> np.ndarray:
        """Whether it is there (m,) bool, by a batch of targets (`Targets.collate`)."""

    def likelihoods(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The probability that is given to what each image (or label) truly is, float64."""

    def confusion(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """How many images of each class are answered by each, [true, answered] int64; None where an
        image may have several labels.
        """


@dataclass(frozen=True)
class DeviceDefinition:
    """A task's half without torch, by the task's name.

    `metrics` are by name, first the one that is used unless another is asked for. `decoder` reads
    a model's outputs. `targets` are what images are labelled with: DataError where the labels are
    none of this task's. `has_order`: it asks for the order of the
    labels (`Labels.order`). `doubt` says why labels that it takes may be another's, None where they
    are its own. `has_several`: an image may have several labels. `reads_columns`: it takes columns
    of numbers (`Labels.columns`). `reads_masks`: it takes masks (`Labels.mask_classes`), and
    nothing else.

    `detection` tells damage from what is sound, by a spec and the classes that are damage; None of
    tasks that call no image (or label) damaged or sound, for which `without_detection` says what to
    do instead.

    `balances` are the ways in which rare classes can be given more weight while a model learns
    (`sampler`, `loss`), the one to try first before others; `samples_rare`: unless the user says
    otherwise an epoch has as many images of each class (`sampler`) where most training images show
    none; `has_focal`: its loss has a focal form.
    `losses` are the forms of its loss that can be asked for by name, the usual one first; () of
    tasks that have one.
    `rare_metrics` suit images of which one class has most: the first is used there unless another
    is asked for; () where the usual ones do. `families` are metrics of any level, of which
    `metrics` has the usual ones. `usual_model` is the name of a model that torchvision has, where
    nobody names one. `in_words` is what its models are, for a sentence, `{shown}` being what they
    are shown. `in_metadata` is Ultralytics' word for the task, which programs look for in a file's
    metadata; empty where it has none that means the same.
    """

    name: str
    metrics: Mapping[str, Metric]
    decoder: Callable[[TaskSpec], Decoder]
    targets: Callable[[Labels], Targets]
    doubt: Callable[[Labels], str | None] = lambda labels: None
    has_order: bool = False
    has_several: bool = False
    reads_columns: bool = False
    reads_masks: bool = False
    detection: Callable[[TaskSpec, Sequence[str]], Detection] | None = None
    without_detection: str = ""
    balances: tuple[str, ...] = ()
    samples_rare: bool = False
    has_focal: bool = False
    losses: tuple[str, ...] = ()
    rare_metrics: tuple[str, ...] = ()
    families: tuple[MetricFamily, ...] = ()
    usual_model: str = "resnet18"
    in_words: str = "a classifier of {shown}"
    in_metadata: str = ""
