"""Every setting once, section by section: its type, its default, its limits and its help.

A new setting is one entry here, and the place where it acts.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from prunedge.config.criteria import CRITERION_NAMES
from prunedge.config.setting import Notes, Section, basic, derived, setting
from prunedge.config.sizes import ImageSize
from prunedge.config.small_networks import SmallNetwork
from prunedge.config.times import Milliseconds, Minutes
from prunedge.edge.image.normalise import ImageNorm
from prunedge.edge.image.read import InChannels
from prunedge.edge.image.size import LARGEST, SMALLEST, Resize
from prunedge.edge.tasks import DEFINITIONS, order_in
from prunedge.edge.tasks.classification import COST
from prunedge.edge.tasks.classification import NAME as CLASSIFICATION
from prunedge.edge.tasks.decision import OperatingRule, costs_in, rule_in
from prunedge.edge.tasks.metric import as_drop, called, forms_of
from prunedge.utils.advice import option
from prunedge.utils.files import is_address

Augment = Literal["none", "flips", "full"]
Normalise = Literal["none", "l2", "mean", "rank"]
Compensation = Literal["none", "mean", "lstsq"]
Optimizer = Literal["sgd", "adamw"]
Balance = Literal["auto", "none", "loss", "sampler"]
LossName = Literal["dice", "tversky", "boundary", "cldice"]
Sparsity = Literal["none", "bn-l1", "group-lasso", "growing"]
Baseline = Literal["scratch", "random"]
Currency = Literal["latency", "macs", "params", "memory", "channels"]
Precision = Literal["auto", "32", "32-channels-last", "bf16"]
Runtime = Literal["onnx", "openvino", "tensorrt"]

# In the metric's unit, as a number or a text, or a share of the first model's value: 5%.
MaxDrop = Annotated[float | str, BeforeValidator(as_drop)]

# Others are made of it by multiplying, and have to fit 64 bits.
LARGEST_SEED = 2**32 - 1


class DataSection(Section):
    """Which images there are, how they are read, and on which side of the split each lies."""

    title = "Data"

    path: str = setting(..., "Where the images lie.", Notes(key="data"))
    masks: str | None = setting(
        None,
        (
            "A folder with a mask for each image, by its name (white, or a class number above 0, "
            "where there is damage), or annotations: COCO, YOLO, LabelMe, CVAT, Label Studio. The "
            "task is segmentation then."
        ),
    )
    tile: int | None = setting(
        None,
        (
            "Cut photographs with masks into squares of so many pixels, each an image of its own; "
            "all of a photograph lie on one side of the split."
        ),
        ge=SMALLEST,
        le=LARGEST,
    )
    overlap: float = setting(
        0.0, "The share of such a square that the next one shows again.", ge=0, le=0.9
    )
    fingerprint: str = derived("", key="data_fingerprint")
    classes: list[str] = derived([])
    scales: list[list[float]] = derived([])
    size: ImageSize = basic(
        224,
        "Pixels of the images that the model sees: 224, or 128x384 (height x width).",
        kind=int | str,
        validate_default=True,
    )
    resize: Resize = basic(
        "stretch",
        (
            "How an image of another shape gets that size: stretch (its sides are scaled apart), "
            "pad (scaled alike, with grey borders), or crop (scaled alike, its middle alone)."
        ),
    )
    in_channels: InChannels = setting(
        3,
        (
            "What the model sees of an image: 3 (red, green and blue), or 1 (grey, which saves two "
            "thirds of the first convolution; a line says where all images are grey anyway). "
            "Pretrained weights of three are summed to one."
        ),
    )
    image_norm: ImageNorm = setting(
        "imagenet",
        (
            "What is taken off each colour, and what it is divided by: imagenet (its mean and "
            "standard deviation), or half (0.5 and 0.5), which some of timm's weights were trained "
            "with; a line says so of them. Of greys it is the mean over the three colours."
        ),
    )
    seed: int = setting(
        0,
        "Decides the split, the random weights and the order of the images.",
        ge=0,
        le=LARGEST_SEED,
    )
    folds: int | None = setting(
        None,
        (
            "Cross-validation: share all images out anew into this many parts, one of which is "
            "the test split."
        ),
        ge=2,
        le=100,
    )
    fold: int = setting(0, "Which part is the test split, from 0.", ge=0)
    group_by: str | None = setting(
        None,
        (
            "`parent`, `similar` (images that look alike, found by their pixels), or a regular "
            "expression on each path: images of one group stay on one side of the split."
        ),
    )
    skip_unreadable: bool = setting(False, "Go on without images that can't be read.")
    range: str | None = setting(
        None,
        (
            "LOW:HIGH, the stored values that become black and white, for greys of more than "
            "eight bits (0:4095; -20:120 as --range=-20:120). Without it, what the training "
            "images need; it is kept with the run and its bundles."
        ),
    )

    @field_validator("masks", mode="before")
    @classmethod
    def _masks_are_a_place(cls, masks: Any) -> Any:
        if not isinstance(masks, str | os.PathLike):
            return masks
        text = os.fspath(masks)
        if not text:
            raise ValueError("no folder: name the one that the masks lie in")
        if is_address(text):
            raise ValueError("masks behind a URL: copy them into a folder")
        # Wherever a run is gone on with from, they are the same.
        return os.path.abspath(text)


class ModelSection(Section):
    """Which model is taught, and what it knows already."""

    title = "Model"

    name: str = basic(
        ...,
        (
            "Any torchvision or timm name, smp:unet-resnet18 and the like "
            "(segmentation-models-pytorch), or package.module:function of your own."
        ),
        key="model",
    )
    weights: str = basic(
        "imagenet",
        (
            "imagenet (downloaded), none (random), or a file (.pth, .safetensors), a run or a "
            "bundle."
        ),
    )
    start: str | None = derived(None)


def _first_metric(task: str) -> str:
    """The name of the metric that a task is judged by unless another is asked for."""
    return next(iter(DEFINITIONS[task].metrics))


def _metrics_in_words() -> str:
    """Which metrics each task has."""
    tasks = []
    for name, task in DEFINITIONS.items():
        tasks.append(f"{name}: {', '.join(forms_of(task.metrics, task.families))}")
    listed = f"{'; '.join(tasks)}.".replace(CLASSIFICATION, CLASSIFICATION.capitalize(), 1)
    return f"{listed} A LEVEL is a share between 0 and 1, such as 0.05."


def _with_order() -> list[str]:
    """The tasks whose labels have an order."""
    return [name for name, task in DEFINITIONS.items() if task.has_order]


class TaskSection(Section):
    """What is predicted, and by which figure it is judged."""

    title = "Task"

    name: str = setting(
        CLASSIFICATION,
        "What images are labelled with, and models predict.",
        Notes(key="task", is_basic=True, choices=f"One of {', '.join(DEFINITIONS)}."),
    )
    metric: str = setting(
        None,
        (
            "What makes an epoch the best, and what the stop rule watches: a metric of the task. "
            "Unless given: its first, or balanced_accuracy where it has that and one class has "
            "over 80 % of the training images; a line says so."
        ),
        Notes(kind=str, choices=_metrics_in_words()),
        validate_default=True,
    )
    order: str | None = setting(
        None,
        (
            "The labels from the lowest degree up, with commas between them: none,light,severe. "
            "Those that are numbers have their own order."
        ),
        Notes(choices=f"Of {' and '.join(_with_order())} alone."),
        validate_default=True,
    )

    damage: str | None = setting(
        None,
        (
            "The classes that are damage, with commas between them, where their names don't tell "
            "it from what is sound."
        ),
    )
    operate: str | None = setting(
        None,
        (
            'Where damage is reported from: "recall >= 0.95" (the highest threshold that finds so '
            'much of it on validation data), "alarms <= 0.02" (the lowest that calls so few sound '
            "images damaged), or cost (where --cost adds up to the least). Every model gets its "
            "own threshold, and so does each form of a bundle. Unless given, the most probable "
            "answer counts."
        ),
    )
    costs: str | None = setting(
        None,
        (
            "What a miss and a false alarm cost, for --operate cost and --metric cost: "
            "miss=50,alarm=1."
        ),
    )

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name not in DEFINITIONS:
            raise ValueError(f"no such task: choose {', '.join(DEFINITIONS)}")
        return name

    @field_validator("metric", mode="before")
    @classmethod
    def _metric_is_the_task_s(cls, metric: Any, info: ValidationInfo) -> Any:
        # Of a task that is none, which is said of its name.
        task = info.data.get("name", CLASSIFICATION)
        if metric is None:
            return _first_metric(task)
        return called(metric) if isinstance(metric, str) else metric

    @field_validator("order")
    @classmethod
    def _order_is_one(cls, order: str | None, info: ValidationInfo) -> str | None:
        if order is None:
            return None
        task = info.data.get("name", CLASSIFICATION)
        if not DEFINITIONS[task].has_order:
            others = [option("task", name) for name in _with_order()]
            raise ValueError(f"acts only with {' or '.join(others)}")
        degrees = order_in(order)
        if len(set(degrees)) < len(degrees) or len(degrees) < 2 or not all(degrees):
            raise ValueError("give two different degrees or more, as none,light,severe")
        return order

    @field_validator("costs")
    @classmethod
    def _costs_are_two(cls, costs: str | None) -> str | None:
        if costs is not None:
            costs_in(costs)
        return costs

    @model_validator(mode="after")
    def _decision_is_one(self) -> Self:
        definition = DEFINITIONS[self.name]
        needs_costs = self.metric == COST
        for key in ("damage", "operate", "costs"):
            if getattr(self, key) is not None and definition.detection is None:
                raise ValueError(
                    f"{option(key)} can't be had with {option('task', self.name)}: "
                    f"{definition.without_detection}"
                )
        if self.operate is not None:
            needs_costs |= self.operate.strip() == "cost"
        if needs_costs and self.costs is None:
            given = option("costs", "miss=50,alarm=1")
            raise ValueError(f"cost goes by what a miss and a false alarm cost: {given}")
        if self.operate is not None:
            try:
                rule_in(self.operate, self._costs)
            except ValueError as error:
                raise ValueError(f"{option('operate', self.operate)}: {error}") from None
        return self

    @property
    def rule(self) -> OperatingRule | None:
        """What the threshold is chosen by."""
        return None if self.operate is None else rule_in(self.operate, self._costs)

    @property
    def _costs(self) -> tuple[float, float] | None:
        return None if self.costs is None else costs_in(self.costs)

    @property
    def is_metric_asked(self) -> bool:
        """Whether the metric was asked for, or chosen by the run's images: another may suit them
        better where it was not.
        """
        return "metric" in self.model_fields_set

    def usual(self, attribute: str) -> Any:
        """A metric is the task's first."""
        return _first_metric(self.name) if attribute == "metric" else super().usual(attribute)


class TrainSection(Section):
    """The training before anything is pruned; what it shares with the fine-tuning."""

    title = "Training"

    epochs: int = basic(
        10,
        (
            "Times that every training image is seen before anything is pruned; the epoch that "
            "is best on validation data is kept."
        ),
        key="train_epochs",
        is_inherited=False,
        ge=0,
    )
    lr: float | None = setting(
        None,
        (
            "The peak learning rate, instead of the one that a short test on training images "
            "finds for pretrained weights, or of the usual one from random weights."
        ),
        Notes(is_inherited=False),
        gt=0,
    )
    optimizer: Optimizer | None = setting(
        None,
        (
            "What takes the steps of the training, and of the fine-tuning: sgd (Nesterov momentum) "
            "or adamw. The test for the learning rate runs with it, over its own range of rates. "
            "Unless given: sgd, and adamw for the fine-tuning with --temporary-norms."
        ),
    )
    patience: int | None = setting(
        None,
        (
            "Stop the training before its epochs are over when the validation metric (or, where "
            "that is the same, the loss) has not got better for this many. The learning rate's "
            "cosine is that of all of them, so that a training which is stopped never comes to its "
            "low end. Fine-tuning always takes all its epochs."
        ),
        Notes(is_inherited=False),
        ge=1,
    )
    freeze: int = setting(
        0,
        (
            "Leave the first so many blocks of the model as they are until pruning begins, with "
            "their batch norms' statistics: the convolutions and stages that images pass, in order "
            "(of a ResNet conv1, layer1, layer2, ...; of a VGG each convolution). A line names "
            "them. Fine-tuning trains all of the model."
        ),
        Notes(is_inherited=False),
        ge=0,
    )
    layer_decay: float | None = setting(
        None,
        (
            "Multiply the learning rate by this once for each block that lies between a layer and "
            "the model's end, so that what comes first changes least: 0.75, say. In the "
            "fine-tuning as well."
        ),
        gt=0,
        lt=1,
    )
    ema: float | None = setting(
        None,
        (
            "Keep an exponential moving average of the weights and of the batch norms' statistics "
            "with this decay (0.999, say; less in the first steps), and evaluate and keep the "
            "average. In the fine-tuning as well."
        ),
        gt=0,
        lt=1,
    )
    batch_size: int | None = setting(
        None,
        (
            "Images in a training step. Unless given: 32, or 16 or 8 where there are fewer than "
            "2,048 or 1,024 training images, since few steps teach little."
        ),
        ge=1,
    )
    augment: Augment = setting(
        "full",
        (
            "How training images are changed in every epoch: full (quarter turns if they are "
            "square, half turns, flips, a little brightness and contrast), flips (left for "
            "right, top for bottom: where an image turned by a quarter would never be seen, as "
            "of courses of bricks), or none."
        ),
    )
    balance: Balance = setting(
        "auto",
        (
            "What rare classes get, by the training images alone: nothing (none), more weight in "
            "the loss (loss: n / (classes * images of the class), at most 20 times that of the "
            "commonest), or as "
            "many images in an epoch as the others (sampler: an epoch is as long as ever, rare "
            "images come several times). auto is sampler for masks where most training images "
            "show no damage, which nothing is learned from otherwise, and none for all else. In "
            "the fine-tuning as well. `prunedge check` says how rare they are."
        ),
    )
    focal: float = setting(
        0.0,
        (
            "Focal loss with this gamma (Lin et al. 2017; 2 is usual): what the model is sure of "
            "and right about counts less. In the fine-tuning as well; 0 is off."
        ),
        ge=0,
        le=10,
    )
    area_loss: LossName | None = setting(
        None,
        (
            "What a model of pixels learns by beside cross-entropy (segmentation alone): dice "
            "unless given, tversky (a miss counts more than a false alarm), boundary (the farther "
            "off, the more), or cldice (centrelines without gaps). In the fine-tuning as well."
        ),
    )
    precision: Precision = setting(
        "auto", "auto measures which is fastest here.", Notes(is_inherited=False)
    )
    sparsity: Sparsity = setting(
        "none",
        (
            "Draw channels to zero while training, so that they can be pruned: L1 on the scales "
            "of batch norms, group lasso over all weights of a channel, or a penalty that grows "
            "on those that are about to leave (on all, before anything is pruned)."
        ),
        Notes(is_inherited=False),
    )
    sparsity_strength: float | None = setting(
        None, "Of --sparsity, instead of its usual one.", Notes(is_inherited=False), gt=0
    )
    schedule_epochs: int = derived(0, ge=0)


class PruneSection(Section):
    """How channels are ranked, and which may leave in a step."""

    title = "Pruning"

    criterion: str = basic(
        "taylor",
        (
            f"How channels are ranked: {', '.join(CRITERION_NAMES)}, or your own. `prunedge audit` "
            "says which suits your model."
        ),
    )
    step_ratio: float = basic(
        0.9,
        "Share that a step removes of what is left: of the channels, or of what --for saves.",
        gt=0,
        lt=1,
    )
    cost: Currency | None = setting(
        None,
        (
            "What pruning is to save: latency (milliseconds on the --device; without one, as a "
            "processor's core is estimated to take them), macs, params, memory (weights and the "
            "largest layer's values) or channels. A step's share is of that, and the channels go "
            "first that take least of their layer's scores for what they save. Unless given: "
            "latency, or channels with --per-mac, --macs-penalty or --per-layer."
        ),
    )
    normalise: Normalise = setting(
        "l2",
        (
            "What each layer's scores are divided by before layers are compared: their Euclidean "
            "norm (l2), their mean, nothing (none), or their ranks are compared instead."
        ),
    )
    per_layer: bool = setting(False, "Don't compare layers: each loses the same share.")
    macs_penalty: float = setting(
        0.0,
        (
            "Takes this much times a channel's share of the model's MACs off its score, so that "
            "costly channels go first."
        ),
        ge=0,
    )
    per_mac: bool = setting(False, "Divide scores by the MACs that the channel costs.")
    ignore: list[str] = setting(
        [],
        (
            "Patterns of layer or group names that keep all their channels (`layer1.*`; "
            "`prunedge groups` lists them)."
        ),
    )
    min_channels: int = setting(2, "Every group keeps at least this many channels.", ge=1)
    round_to: int = setting(
        1,
        "Groups that lose channels keep a multiple of this many (8 or 16 suits many devices).",
        ge=1,
    )
    max_ratio: float | None = setting(
        None,
        (
            "The largest share that a group may lose in one step. Without it there is no limit; "
            "but with --for channels half, or twice the --step-ratio where that is more, so that "
            "groups still compare, and a group keeps at least a quarter of what the step leaves on "
            "average (--step-ratio 0.5: an eighth)."
        ),
        gt=0,
        le=1,
    )
    baseline: list[Baseline] = setting(
        [],
        (
            "Also train the pruned shape from random weights for as many epochs (scratch), or "
            "prune as many channels of each layer at random with the same fine-tuning (random), "
            "and compare on test data."
        ),
    )
    small: list[str] = setting(
        [],
        (
            "Is a network that is small by design better? Also teach this one for as many epochs, "
            "and compare on test data and in milliseconds: any --model, or MODEL=WEIGHTS with any "
            "--weights (squeezenet1_0=none); imagenet, unless given."
        ),
    )

    @field_validator("small")
    @classmethod
    def _small_are_networks(cls, small: list[str]) -> list[str]:
        for text in small:
            SmallNetwork.parse(text)
        return list(dict.fromkeys(small))


class RecoverSection(Section):
    """What brings a smaller model back to what it was."""

    title = "Recovery"

    epochs: int = basic(
        2,
        (
            "Epochs of fine-tuning in each step, of a model as large as the unpruned one; "
            "smaller ones get more (--growing-epochs)."
        ),
        ge=1,
    )
    lr: float | None = setting(
        None,
        (
            "Peak learning rate of the fine-tuning in each step, instead of the training's (with "
            "--temporary-norms AdamW's, 0.001)."
        ),
        Notes(key="finetune_lr"),
        gt=0,
    )
    temporary_norms: bool = setting(
        True,
        (
            "Give a model that has no normalisation (VGG, SqueezeNet) batch norms for as long as "
            "it is fine-tuned; afterwards they are folded into its weights. Without them a model "
            "that has lost most of its channels hardly learns."
        ),
    )
    growing_epochs: bool = setting(
        True,
        (
            "Fine-tune smaller models for longer: --epochs times the square root of the factor by "
            "which the MACs have fallen, eight times as long at the most. It takes less time than "
            "a step before."
        ),
    )
    rewind: bool = setting(
        False,
        (
            "Fine-tune with the last --epochs of the training's learning-rate schedule, instead "
            "of a whole schedule of its own."
        ),
    )
    distill: float = setting(
        0.0,
        "Weight (0 to 1) of the unpruned model's answers in the loss of the fine-tuning.",
        ge=0,
        le=1,
    )
    compensate: Compensation = setting(
        "none",
        (
            "Hand what the removed channels gave on average to their consumers' biases (mean), "
            "or solve the consumers' weights anew for the least squared difference (lstsq), "
            "before fine-tuning."
        ),
    )
    polish: int = basic(
        8,
        (
            "Epochs of fine-tuning, at the end, of the model that is handed over; or of a smaller "
            "one beyond the rule, which they may bring back."
        ),
        ge=0,
    )
    extra_rounds: int = setting(
        4,
        (
            "How often, at most, a step that breaks the rule is fine-tuned for --epochs more "
            "before it is judged: once, and again as long as the last time made good half as much "
            "as is still missing."
        ),
        ge=0,
    )


class StopSection(Section):
    """How far the pruning goes."""

    title = "Stop rule"

    max_drop: MaxDrop | None = basic(
        None,
        (
            "The rule: how much worse the metric may get on validation data than the unpruned "
            "model's (of a run that goes on from a pruned one: the first of that chain). "
            "Percentage points, or the metric's own unit where it has one; 5% is a share of that "
            "model's value. Unless given: 3 points, or 5% where the metric has a unit of its own."
        ),
        kind=float | str | None,
    )
    confidence: float | None = setting(
        None,
        (
            "Take a step back only when the metric has dropped by more with this confidence, from "
            "the validation images (patches of one source count together). What is handed over "
            "keeps the rule by its own figure in any case. Unless given: 0.95 where the metric has "
            "an interval (accuracy); 0.5 goes by the figure alone."
        ),
        ge=0.5,
        lt=1,
    )
    target_macs: float | None = setting(
        None, "Stop at this share of the unpruned model's MACs.", gt=0, le=1
    )
    target_params: float | None = setting(
        None, "Stop at this share of the unpruned model's parameters.", gt=0, le=1
    )
    target_latency: Milliseconds | None = setting(
        None,
        "Stop when the model takes this long for an image on the --device: 5ms, 0.8ms, 0.2s.",
        Notes(kind=float | str | None, unit="ms"),
        gt=0,
    )
    max_steps: int | None = setting(None, "Stop after this many steps.", ge=1)
    budget: Minutes | None = setting(
        None,
        (
            "Stop when the steps together would take longer than this: 30min, 90s, 2h. A step that "
            "has begun is finished, and time is left for --polish."
        ),
        Notes(kind=float | str | None, unit="min"),
        gt=0,
    )
    judged_from: int = derived(0, ge=0)


class TrainerSection(Section):
    """Who trains and judges in prunedge's place, and by which figure: a training of the user's own.

    Its `name` is `package.module:object`, or `given` where functions came from Python; None where
    prunedge trains.
    """

    title = "Own training"

    name: str | None = derived(None, key="trainer")
    metric: str | None = derived(None, key="own_metric")
    higher_is_better: bool | None = derived(None)


class DeviceSection(Section):
    """The device whose time is what channels cost."""

    title = "Device"

    address: str | None = setting(
        None,
        (
            "What channels cost is the time that they take on this device: local (this machine), "
            "or ssh://user@host with prunedge installed there. The layers are timed there first "
            "(seconds, kept for the next time), every step's model is timed there before it is "
            "fine-tuned, and a step that makes it no faster is not taken."
        ),
        Notes(key="device"),
    )
    runtime: Runtime = setting(
        "onnx", "The runtime that the device will use: onnx, openvino, tensorrt."
    )
    threads: int = setting(
        1, "Threads that one inference may use there.", Notes(key="device_threads"), ge=1
    )
