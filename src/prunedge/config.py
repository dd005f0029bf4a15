"""What a run is asked to do: every setting once, with its default, its limits and its help.

A `RunConfig` has a section for each stage. The command line, a study's grid and a run's
`config.toml` are made from it: a new setting is a line here, and the place where it acts. A setting
is an attribute of its section (`config.recover.lr`), and has a key that is unique among all of them
(`finetune_lr`): what the command line and studies call it. The key is the attribute's name, unless
another is given.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from prunedge.edge.image.size import Resize, Size, parse_size
from prunedge.errors import DataError, PrunedgeError
from prunedge.utils.advice import option, speaking
from prunedge.utils.files import read_text
from prunedge.utils.formats import FORMAT, KEY, refuse_other
from prunedge.utils.machine import pass_on_reading

Metric = Literal["accuracy", "f1", "auroc"]
Augment = Literal["none", "flips", "full"]
Normalise = Literal["none", "l2", "mean", "rank"]
Compensation = Literal["none", "mean", "lstsq"]
Sparsity = Literal["none", "bn-l1", "group-lasso", "growing"]
Baseline = Literal["scratch", "random"]
Precision = Literal["auto", "32", "32-channels-last", "bf16"]
Runtime = Literal["onnx", "openvino", "tensorrt"]
AnySize = Size | int | str | tuple[int, int]

# Others are made of it by multiplying, and have to fit 64 bits.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Notes:
    """What is known of a setting beside its type, default, limits and help.

    `key` is its name among all settings, where that is not the attribute's. `kind` is the type in
    which the command line takes it, where that is not the attribute's. A `is_basic` one comes first
    in the help. One that `is_found` is worked out by the run itself, and nobody asks for it.
    """

    key: str | None = None
    kind: Any = None
    is_basic: bool = False
    is_found: bool = False


def setting(default: Any, help: str = "", notes: Notes | None = None, **limits: Any) -> Any:
    """A setting of a section, with what `--help` says of it and the limits of its values (`ge`,
    `gt`, `le`, `lt`).
    """
    field: Any = Field(default, description=help, **limits)
    field.metadata.append(notes or Notes())
    return field


def basic(default: Any, help: str, key: str | None = None, kind: Any = None, **limits: Any) -> Any:
    """A setting that comes first in the help."""
    return setting(default, help, Notes(key=key, kind=kind, is_basic=True), **limits)


def found(default: Any, key: str | None = None, **limits: Any) -> Any:
    """A setting that the run works out by itself."""
    return setting(default, "", Notes(key=key, is_found=True), **limits)


def as_size(size: AnySize) -> Size:
    """`224`, `"128x384"` (height x width), `(128, 384)` or a Size as a Size; DataError where it is
    none.
    """
    if isinstance(size, tuple | list) and len(size) == 2:
        return parse_size("x".join(str(side) for side in size))
    return parse_size(size)  # type: ignore[arg-type]


def plain_size(size: Size) -> int | str:
    """A size as files have it: `224`, or `"128x384"` (height x width)."""
    return size.height if size.height == size.width else str(size)


def _checked_size(size: Any) -> Size:
    try:
        return as_size(size)
    except DataError as error:
        raise ValueError(f"{error.what}: {error.remedy}") from None


ImageSize = Annotated[Size, BeforeValidator(_checked_size), PlainSerializer(plain_size)]


class Section(BaseModel):
    """The settings of one stage."""

    # No infinities, which a file could not hold, and after which nothing would end.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: ClassVar[str]


class DataSection(Section):
    """Which images there are, how they are read, and on which side of the split each lies."""

    title = "Data"

    path: str = setting(..., "Where the images lie.", Notes(key="data"))
    fingerprint: str = found("", key="data_fingerprint")
    classes: list[str] = found([])
    size: ImageSize = basic(
        224,
        "Pixels of the images that the model sees: 224, or 128x384 (height x width).",
        kind=int | str,
        validate_default=True,
    )
    resize: Resize = basic(
        "stretch",
        "How an image of another shape gets that size: stretch (its sides are scaled apart), pad "
        "(scaled alike, with grey borders), or crop (scaled alike, its middle alone).",
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
            "`parent`, or a regular expression on each path: images of one group stay on one "
            "side of the split."
        ),
    )
    skip_unreadable: bool = setting(False, "Go on without images that can't be read.")
    range: str | None = setting(
        None,
        "LOW:HIGH, the stored values that become black and white, for greys of more than eight "
        "bits (0:4095; "
        "-20:120 as --range=-20:120). Without it, what the training images need; it is kept with "
        "the run and its "
        "bundles.",
    )


class ModelSection(Section):
    """Which model is taught, and what it knows already."""

    title = "Model"

    name: str = basic(
        ..., "Any torchvision or timm name, or package.module:function of your own.", key="model"
    )
    weights: str = basic(
        "imagenet",
        "imagenet (downloaded), none (random), or a file (.pth, .safetensors), a run or a bundle.",
    )
    start: str | None = found(None)


class TaskSection(Section):
    """What is predicted, and by which figure it is judged."""

    title = "Task"

    metric: Metric = setting(
        "accuracy", "What makes an epoch the best, and what the stop rule watches."
    )


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
        ge=0,
    )
    lr: float | None = setting(
        None,
        "The peak learning rate, instead of the one that a short test on training images finds for "
        "pretrained "
        "weights, or of the usual one from random weights.",
        gt=0,
    )
    batch_size: int = setting(32, "Images in a training step.", ge=1)
    augment: Augment = setting(
        "full",
        "How training images are changed in every epoch: full (quarter turns if they are square, "
        "half turns, flips, a little brightness and contrast), flips (left for right, top for "
        "bottom: where an image turned by a quarter would never be seen, as of courses of bricks), "
        "or none.",
    )
    precision: Precision = setting("auto", "auto measures which is fastest here.")
    sparsity: Sparsity = setting(
        "none",
        "Draw channels to zero while training, so that they can be pruned: L1 on the scales of "
        "batch norms, group "
        "lasso over all weights of a channel, or a penalty that grows on those that are about to "
        "leave (on all, "
        "before anything is pruned).",
    )
    sparsity_strength: float | None = setting(
        None, "Of --sparsity, instead of its usual one.", gt=0
    )
    schedule_epochs: int = found(0, ge=0)


class PruneSection(Section):
    """How channels are ranked, and which may leave in a step."""

    title = "Pruning"

    criterion: str = basic(
        "taylor",
        "How channels are ranked: taylor, taylor-fo, taylor-bn, fisher, weight-l1, weight-l2, "
        "fpgm, bn-scale, "
        "activation-mean, activation-std, apoz, mutual-information, mutual-information-prediction, "
        "random, or your "
        "own. `prunedge audit` says which suits your model.",
    )
    step_ratio: float = basic(
        0.1, "Share of the remaining channels that a step removes.", gt=0, lt=1
    )
    normalise: Normalise = setting(
        "l2",
        "What each layer's scores are divided by before layers are compared: their Euclidean norm "
        "(l2), their mean, "
        "nothing (none), or their ranks are compared instead.",
    )
    per_layer: bool = setting(False, "Don't compare layers: each loses the same share.")
    macs_penalty: float = setting(
        0.0,
        (
            "Takes this much times a channel's share of the model's MACs off its score, so "
            "that costly channels go first."
        ),
        ge=0,
    )
    per_mac: bool = setting(False, "Divide scores by the MACs that the channel costs.")
    ignore: list[str] = setting(
        [],
        (
            "A pattern of layer or group names that keep all their channels (`layer1.*`; "
            "`prunedge groups` lists them); may be repeated."
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
        "The largest share that a group may lose in one step. Without it half, or twice the "
        "--step-ratio where that "
        "is more, so that groups still compare; but a group keeps at least a quarter of what the "
        "step leaves on "
        "average (--step-ratio 0.5: an eighth).",
        gt=0,
        le=1,
    )
    baseline: list[Baseline] = setting(
        [],
        "Also train the pruned shape from random weights for as many epochs (scratch), or prune as "
        "many channels of "
        "each layer at random with the same fine-tuning (random), and compare on test data; may be "
        "repeated.",
    )


class RecoverSection(Section):
    """What brings a smaller model back to what it was."""

    title = "Recovery"

    epochs: int = basic(1, "Epochs of fine-tuning in each step.", ge=1)
    lr: float | None = setting(
        None,
        "Peak learning rate of the fine-tuning in each step, instead of the training's.",
        Notes(key="finetune_lr"),
        gt=0,
    )
    rewind: bool = setting(
        False,
        (
            "Fine-tune with the last --epochs of the training's learning-rate schedule, "
            "instead of a whole schedule of its own."
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
        "Hand what the removed channels gave on average to their consumers' biases (mean), or "
        "solve the consumers' "
        "weights anew for the least squared difference (lstsq), before fine-tuning.",
    )
    extra_rounds: int = setting(
        1,
        (
            "How often a step that breaks the rule is fine-tuned for --epochs more before it "
            "is taken back."
        ),
        ge=0,
    )


class StopSection(Section):
    """How far the pruning goes."""

    title = "Stop rule"

    max_drop: float = basic(
        3.0,
        "The rule: percentage points that the metric may lose on validation data, against the "
        "unpruned model (with "
        "--from a run that was pruned, the first of that chain).",
        ge=0,
    )
    confidence: float | None = setting(
        None,
        "Call the rule broken only when accuracy has dropped by more with this confidence (0.95), "
        "from the validation "
        "images; patches of one source count together.",
        ge=0.5,
        lt=1,
    )
    target_macs: float | None = setting(
        None, "Stop at this share of the unpruned model's MACs.", gt=0, le=1
    )
    target_params: float | None = setting(
        None, "Stop at this share of the unpruned model's parameters.", gt=0, le=1
    )
    target_latency: float | None = setting(
        None,
        "Stop when the model takes this long for an image on the --device: 5ms, 0.8ms.",
        gt=0,
    )
    max_steps: int | None = setting(None, "Stop after this many steps.", ge=1)
    judged_from: int = found(0, ge=0)


class DeviceSection(Section):
    """The device whose time is what channels cost."""

    title = "Device"

    address: str | None = setting(
        None,
        "What channels cost is the time that they take on this device: local (this machine), or "
        "ssh://user@host with "
        "prunedge installed there. The layers are timed there first (seconds, kept for the next "
        "time), every step's "
        "model is timed there before it is fine-tuned, and a step that makes it no faster is not "
        "taken.",
        Notes(key="device"),
    )
    runtime: Runtime = setting(
        "onnx", "The runtime that the device will use: onnx, openvino, tensorrt."
    )
    threads: int = setting(
        1, "Threads that one inference may use there.", Notes(key="device_threads"), ge=1
    )


class RunConfig(Section):
    """Everything that decides a run's result, apart from the images themselves."""

    data: DataSection
    model: ModelSection
    task: TaskSection = TaskSection()
    train: TrainSection = TrainSection()
    prune: PruneSection = PruneSection()
    recover: RecoverSection = RecoverSection()
    stop: StopSection = StopSection()
    device: DeviceSection = DeviceSection()

    title = "Run"

    @model_validator(mode="after")
    def _settings_agree(self) -> RunConfig:
        """Settings that exclude each other, or need each other."""
        prune = self.prune
        stop = self.stop
        costs = prune.macs_penalty or prune.per_mac or prune.per_layer

        if prune.macs_penalty and prune.per_mac:
            raise ValueError("macs_penalty and per_mac exclude each other")
        if self.device.address is not None and costs:
            raise ValueError(
                "a device says itself what channels cost: leave per_mac, macs_penalty and "
                "per_layer out"
            )
        if stop.target_latency is not None and self.device.address is None:
            raise ValueError(f"{option('target_latency')} needs {option('device')}")
        if self.train.sparsity_strength is not None and self.train.sparsity == "none":
            raise ValueError(f"{option('sparsity_strength')} acts only with {option('sparsity')}")
        if self.device.address is None and self.device != DeviceSection():
            raise ValueError(
                f"{option('runtime')} and {option('device_threads')} act only with "
                f"{option('device')}"
            )
        if stop.confidence is not None and self.task.metric != "accuracy":
            raise ValueError(f"confidence is that of accuracy, and metric is {self.task.metric}")
        if self.data.fold and self.data.fold >= (self.data.folds or 1):
            folds = self.data.folds or "none"
            raise ValueError(f"fold {self.data.fold} of {folds}: folds count from 0")
        return self

    @model_validator(mode="after")
    def _range_is_one(self) -> RunConfig:
        from prunedge.edge.image.read import parse_range

        try:
            if self.data.range is not None:
                parse_range(self.data.range)
        except DataError as error:
            raise ValueError(f"{error.what}: {error.remedy}") from None
        return self

    @model_validator(mode="after")
    def _text_is_utf8(self) -> RunConfig:
        """A path whose bytes are no text could not be written into a file."""
        for key, value in self.flat().items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not _is_text(text):
                    raise ValueError(f"{key} is not UTF-8: rename {text!r}")
        return self

    @classmethod
    def make(cls, where: str, **values: Any) -> RunConfig:
        """A config from values by their keys; PrunedgeError that lists every mistake at once."""
        unknown = [_unknown(key) for key in values if key not in settings()]
        sections: dict[str, dict[str, Any]] = {"data": {}, "model": {}}
        for key, value in values.items():
            if key in settings():
                place = settings()[key]
                sections.setdefault(place.section, {})[place.attribute] = value

        problems = unknown
        try:
            config = cls(**sections)  # type: ignore[arg-type]
        except ValidationError as error:
            problems = unknown + [
                _explain(e["loc"], e["msg"], e["type"], e["input"]) for e in error.errors()
            ]
        if problems:
            raise PrunedgeError("; ".join(problems), where=where, remedy="mend these values")
        return config

    def flat(self, *, only_asked: bool = False) -> dict[str, Any]:
        """Every setting by its key, as a file has it; with `only_asked`, those that differ from
        their defaults.
        """
        plain = self.model_dump()
        values = {}
        for key, place in settings().items():
            value = plain[place.section][place.attribute]
            if not only_asked or value != place.default:
                values[key] = value
        return values

    def image_settings(self) -> dict[str, Any]:
        """What decides which images a run sees, on which side: arguments of
        `prunedge.data.load`.
        """
        values = self.flat()
        return {key: values[key] for key in IMAGE_KEYS}

    def with_values(self, **values: Any) -> RunConfig:
        """The same config with other values of these keys; PrunedgeError where they don't fit."""
        return RunConfig.make("config", **{**self.flat(), **values})

    def to_toml(self) -> str:
        """TOML text: the format, then a table for each section; what is None is left out."""
        return toml_text({KEY: FORMAT, **self.model_dump(exclude_none=True)})

    @classmethod
    def from_toml(cls, file: Path) -> RunConfig:
        """The config in a run's file; PrunedgeError when it is none, or one of another format."""
        values = read_toml(file, "config")
        refuse_other(values.pop(KEY, None), "run", file.parent)
        with speaking("study"):  # a file's keys, not options
            return cls.make(str(file), **flattened(values))


@dataclass(frozen=True)
class Setting:
    """A setting of `RunConfig`: its section, its attribute there, and what is known of it."""

    key: str
    section: str
    title: str
    attribute: str
    field: FieldInfo
    notes: Notes

    @property
    def default(self) -> Any:
        """What it is where nobody says anything."""
        return self.field.get_default(call_default_factory=True)

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.field.is_required()

    @property
    def kind(self) -> Any:
        """The type of its values, where they are given."""
        return self.notes.kind or self.field.annotation

    @property
    def help(self) -> str:
        """What it does, for whoever sets it."""
        return self.field.description or ""


@cache
def settings() -> dict[str, Setting]:
    """Every setting by its key, section by section."""
    return {setting.key: setting for setting in _all_settings()}


def _all_settings() -> Iterator[Setting]:
    for section, field in RunConfig.model_fields.items():
        kind: Any = field.annotation
        for attribute, own in kind.model_fields.items():
            notes = next(note for note in own.metadata if isinstance(note, Notes))
            yield Setting(notes.key or attribute, section, kind.title, attribute, own, notes)


def asked() -> tuple[str, ...]:
    """The keys of what a user may ask for."""
    return tuple(key for key, setting in settings().items() if not setting.notes.is_found)


# What decides which images a run sees, on which side, beside where they lie: the arguments of
# `prunedge.data.load`.
IMAGE_KEYS = tuple(key for key in asked() if settings()[key].section == "data" and key != "data")
# What a run that goes on from another keeps of it: what was trained on what, and how its images
# come.
TRAINING_KEYS = ("data", "model", "weights", "batch_size", "metric", "augment", *IMAGE_KEYS)
# What decides the model that pruning starts from.
START_KEYS = (*TRAINING_KEYS, "train_epochs", "lr", "precision", "sparsity", "sparsity_strength")


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file's tables by their keys; what stands outside of a table is named by its
    key already.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            found[name] = value
            continue
        keys = {place.attribute: key for key, place in settings().items() if place.section == name}
        for attribute, own in value.items():
            found[keys.get(attribute, f"{name}.{attribute}")] = own
    return found


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a TOML file; PrunedgeError when this `what` can't be read."""
    try:
        return tomllib.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, path)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        remedy = "name a TOML file in UTF-8, as `key = value` in each line"
        raise PrunedgeError(f"can't read the {what}: {why}", where=path, remedy=remedy) from None


def toml_text(values: Mapping[str, Any]) -> str:
    """TOML text; what is None is left out."""
    import tomli_w  # the device has none

    return tomli_w.dumps({key: value for key, value in values.items() if value is not None})


def _is_text(text: str) -> bool:
    """Whether this is proper text, and no name whose bytes are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown(key: str) -> str:
    """A key that no setting has, with the nearest that one has."""
    near = get_close_matches(key, settings(), n=1)
    return f"unknown key '{key}'" + (f" (did you mean '{near[0]}'?)" if near else "")


def _explain(place: tuple[int | str, ...], message: str, kind: str, given: Any) -> str:
    """A mistake, with the setting as the user calls it and the value that was given."""
    text = message.removeprefix("Value error, ")
    said = f"{text[0].lower()}{text[1:]}"
    # Of several settings together, which the message names.
    if not place:
        return said

    section, attribute = str(place[0]), str(place[1])
    key = next(k for k, s in settings().items() if (s.section, s.attribute) == (section, attribute))
    if kind == "missing":
        return f"{option(key)} is missing"
    value = given if isinstance(given, (str, int, float)) else None
    return f"{option(key, value)}: {said}"
