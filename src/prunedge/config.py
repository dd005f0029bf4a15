"""What a run was asked to do: one frozen record, written into the run as TOML, from which it can be repeated."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunedge.edge.image.read import parse_range
from prunedge.errors import DataError, PrunedgeError
from prunedge.formats import FORMAT, KEY, refuse_other
from prunedge.utils.advice import option, speaking
from prunedge.utils.machine import pass_on_reading

Metric = Literal["accuracy", "f1", "auroc"]

# What decides which pictures a run sees, on which side, beside where they lie: the arguments of `prunedge.data.load`.
PICTURE_KEYS = ("size", "seed", "folds", "fold", "group_by", "skip_unreadable", "range")
# What a run that goes on from another keeps of it: what was trained on what, and how its pictures come.
TRAINING_KEYS = ("data", "model", "weights", "batch_size", "metric", "augment", *PICTURE_KEYS)


LARGEST_SEED = 2**32 - 1  # others are made of it by multiplying, and have to fit 64 bits


class Recipe(BaseModel):
    """Everything that decides a run's result, apart from the pictures themselves."""

    # No infinities, which a file could not hold, and after which nothing would end.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str
    data_fingerprint: str = ""
    classes: list[str] = []
    model: str
    weights: str = "imagenet"
    start: str | None = None
    size: int = Field(224, ge=8, le=4096)
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    folds: int | None = Field(None, ge=2, le=100)
    fold: int = Field(0, ge=0)
    group_by: str | None = None
    skip_unreadable: bool = False
    range: str | None = None
    metric: Metric = "accuracy"
    precision: str = "auto"
    batch_size: int = Field(32, ge=1)
    augment: Literal["none", "flips", "full"] = "full"
    train_epochs: int = Field(10, ge=0)
    lr: float | None = Field(None, gt=0)
    criterion: str = "taylor"
    normalise: Literal["none", "l2", "mean", "rank"] = "l2"
    per_layer: bool = False
    macs_penalty: float = Field(0.0, ge=0)
    per_mac: bool = False
    step: float = Field(0.1, gt=0, lt=1)
    epochs: int = Field(1, ge=1)
    finetune_lr: float | None = Field(None, gt=0)
    rewind: bool = False
    schedule_epochs: int = Field(0, ge=0)
    distill: float = Field(0.0, ge=0, le=1)
    compensate: Literal["none", "mean", "lstsq"] = "none"
    regularise: Literal["none", "bn-l1", "group-lasso", "growing"] = "none"
    strength: float | None = Field(None, gt=0)
    control: list[Literal["scratch", "random"]] = []
    max_drop: float = Field(3.0, ge=0)
    confidence: float | None = Field(None, ge=0.5, lt=1)
    target_macs: float | None = Field(None, gt=0, le=1)
    target_params: float | None = Field(None, gt=0, le=1)
    target_latency: float | None = Field(None, gt=0)
    device: str | None = None
    runtime: Literal["onnx", "openvino", "tensorrt"] = "onnx"
    device_threads: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1)
    judged_from: int = Field(0, ge=0)
    extra_rounds: int = Field(1, ge=0)
    keep_out: list[str] = []
    least: int = Field(2, ge=1)
    multiple: int = Field(1, ge=1)
    cap: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _a_range_that_there_is(self) -> Recipe:
        try:
            if self.range is not None:
                parse_range(self.range)
        except DataError as error:
            raise ValueError(f"{error.what}: {error.remedy}") from None
        return self

    @model_validator(mode="after")
    def _text_that_a_file_can_hold(self) -> Recipe:
        for key, value in self:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not _is_text(text):
                    raise ValueError(f"{key} is not UTF-8: rename {text!r}")
        return self

    @model_validator(mode="after")
    def _one_way_to_count_costs(self) -> Recipe:
        if self.macs_penalty and self.per_mac:
            raise ValueError("macs_penalty and per_mac exclude each other")
        return self

    @model_validator(mode="after")
    def _a_device_counts_its_own_costs(self) -> Recipe:
        if self.device is not None and (self.macs_penalty or self.per_mac or self.per_layer):
            raise ValueError("a device says itself what channels cost: leave per_mac, macs_penalty and per_layer out")
        if self.target_latency is not None and self.device is None:
            raise ValueError("target_latency needs a device")
        return self

    @model_validator(mode="after")
    def _confidence_counts_right_answers(self) -> Recipe:
        if self.confidence is not None and self.metric != "accuracy":
            raise ValueError(f"confidence is that of accuracy, and metric is {self.metric}")
        return self

    @model_validator(mode="after")
    def _a_fold_that_there_is(self) -> Recipe:
        if self.fold and self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} of {self.folds or 'none'}: folds count from 0")
        return self

    @classmethod
    def make(cls, where: str, **values: Any) -> Recipe:
        """A recipe from these values; PrunedgeError that lists every mistake at once."""
        try:
            return cls(**values)
        except ValidationError as error:
            problems = [_explain(e["loc"], e["msg"], e["type"], e["input"]) for e in error.errors()]
            raise PrunedgeError("; ".join(problems), where=where, remedy="mend these values") from None

    @classmethod
    def from_toml(cls, path: Path) -> Recipe:
        """The recipe in a run's file; PrunedgeError when it is no recipe, or one of another format."""
        values = read_toml(path, "recipe")
        refuse_other(values.pop(KEY, None), "run", path.parent)
        with speaking("study"):  # a file's keys, not options
            return cls.make(str(path), **values)

    def to_toml(self) -> str:
        """TOML text: the format, then one key a line; what is not set is left out."""
        return toml_text({KEY: FORMAT, **self.model_dump()})


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a TOML file; PrunedgeError when this `what` can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        pass_on_reading(error, path)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        remedy = "name a TOML file in UTF-8, as `key = value` in each line"
        raise PrunedgeError(f"can't read the {what}: {why}", where=path, remedy=remedy) from None


def toml_text(values: Mapping[str, Any]) -> str:
    """TOML text: one key a line; what is None is left out."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None)


def _toml(value: Any) -> str:
    """A value in TOML: JSON's strings, numbers, booleans and lists are TOML's too, but for what is escaped in a string.

    JSON would write an emoji as two halves of a pair, which TOML refuses, and leaves alone the one control character that TOML does not.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
    except ValueError:
        raise PrunedgeError(f"{value} is no number that a file can hold", remedy="give a finite one") from None


def _is_text(text: str) -> bool:
    """Whether this is proper text, and no name whose bytes are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(place: tuple[int | str, ...], message: str, kind: str, given: Any) -> str:
    """A mistake, with the setting as the user calls it and the value that he gave."""
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        near = get_close_matches(name, Recipe.model_fields, n=1)
        return f"unknown key '{name}'" + (f" (did you mean '{near[0]}'?)" if near else "")
    said = f"{message[0].lower()}{message[1:]}"
    if not place:  # of several settings together, which the message names
        return said.removeprefix("value error, ")
    if kind == "missing":
        return f"{option(name)} is missing"
    value = given if isinstance(given, (str, int, float)) else None
    return f"{option(str(place[0]), value)}: {said}"
