"""The config of a run, made of its sections: checked, read from a file, looked up by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from prunedge.config.sections import (
    DataSection,
    DeviceSection,
    ModelSection,
    PruneSection,
    RecoverSection,
    StopSection,
    TaskSection,
    TrainerSection,
    TrainSection,
)
from prunedge.config.setting import Notes, Section, Setting
from prunedge.config.toml import read_toml, toml_text
from prunedge.edge.tasks import DEFINITIONS, refusal_of, refusal_of_masks, with_task_of_masks
from prunedge.errors import ConfigError, DataError
from prunedge.utils.advice import option, speaking
from prunedge.utils.formats import FORMAT, KEY, refuse_other


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
    trainer: TrainerSection = TrainerSection()

    title = "Run"

    @model_validator(mode="after")
    def _settings_agree(self) -> RunConfig:
        """Settings that exclude each other, or need each other."""
        prune = self.prune
        stop = self.stop
        costs = prune.macs_penalty or prune.per_mac or prune.per_layer

        if prune.cost not in (None, "channels") and costs:
            raise ValueError(
                f"{option('cost', prune.cost)} says itself what channels cost: leave per_mac, "
                "macs_penalty and per_layer out"
            )
        if prune.macs_penalty and prune.per_mac:
            raise ValueError("macs_penalty and per_mac exclude each other: give one of them")
        if self.device.address is not None and costs:
            raise ValueError(
                "a device says itself what channels cost: leave per_mac, macs_penalty and "
                "per_layer out"
            )
        if stop.target_latency is not None and self.device.address is None:
            raise ValueError(f"{option('target_latency')} needs {option('device')}")
        if self.train.sparsity_strength is not None and self.train.sparsity == "none":
            raise ValueError(f"{option('sparsity_strength')} acts only with {option('sparsity')}")
        if self.train.freeze and self.model.weights == "none":
            raise ValueError(
                f"{option('freeze', self.train.freeze)} keeps what pretrained weights know: random "
                "ones have to learn"
            )
        train = self.train
        refusal = refusal_of(self.task.name, train.balance, train.focal, train.area_loss)
        if refusal is None and self.data.masks is not None:
            refusal = refusal_of_masks(self.task.name, self.data.masks)
        if refusal is not None:
            raise ValueError(refusal)
        if self.data.tile is not None and not DEFINITIONS[self.task.name].reads_masks:
            raise ValueError(f"{option('tile')} cuts photographs with {option('masks')} alone")
        if self.data.overlap and self.data.tile is None:
            raise ValueError(f"{option('overlap')} acts only with {option('tile')}")
        if self.device.address is None and self.device != DeviceSection():
            raise ValueError(
                f"{option('runtime')} and {option('device_threads')} act only with "
                f"{option('device')}"
            )
        fold = self.data.fold
        folds = self.data.folds
        if fold and folds is None:
            raise ValueError(f"{option('fold', fold)} needs {option('folds')}, how many there are")
        if folds is not None and fold >= folds:
            raise ValueError(f"{option('fold', fold)}: of {folds} folds the last is {folds - 1}")
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
            texts = value if isinstance(value, list) else [value]
            for text in texts:
                if isinstance(text, str) and not _is_text(text):
                    raise ValueError(f"{key} is not UTF-8: rename {text!r}")
        return self

    @classmethod
    def make(cls, where: str, **values: Any) -> RunConfig:
        """A config from values by their keys; ConfigError that lists every mistake at once."""
        values = with_task_of_masks(values)
        problems: list[tuple[str, str | None]] = [
            (_unknown(key), None) for key in values if key not in settings()
        ]
        sections: dict[str, dict[str, Any]] = {"data": {}, "model": {}}
        for key, value in values.items():
            if key == "metric" and value is None:
                continue  # as where it is not asked for
            if key in settings():
                setting = settings()[key]
                sections.setdefault(setting.section, {})[setting.attribute] = value

        try:
            config = cls(**sections)  # type: ignore[arg-type]
        except ValidationError as error:
            for mistake in error.errors():
                message, remedy = _with_remedy(mistake["msg"], mistake["type"])
                what = _explain(mistake["loc"], message, mistake["type"], mistake["input"])
                problems.append((what, remedy))
        if len(problems) == 1:
            what, remedy = problems[0]
            raise ConfigError(what, where=where, remedy=remedy or "mend this value")
        if problems:
            texts = [f"{what}: {remedy}" if remedy else what for what, remedy in problems]
            raise ConfigError("; ".join(texts), where=where, remedy="mend these values")
        return config

    def flat(self, *, only_asked: bool = False) -> dict[str, Any]:
        """Every setting by its key, as a file has it; with `only_asked`, those that differ from
        their defaults, and a metric that was named.
        """
        plain = self.model_dump()
        values = {}
        for key, setting in settings().items():
            value = plain[setting.section][setting.attribute]
            usual = getattr(self, setting.section).usual(setting.attribute)
            # Unless it is asked for, the images may have another.
            is_metric_asked = key == "metric" and self.task.is_metric_asked
            if not only_asked or value != usual or is_metric_asked:
                values[key] = value
        return values

    @property
    def has_own_trainer(self) -> bool:
        """Whether functions of the user's own train and judge, in the place of prunedge."""
        return self.trainer.name is not None

    def image_settings(self) -> dict[str, Any]:
        """What decides which images a run sees, as what, on which side: arguments of
        `prunedge.data.load`.
        """
        values = self.flat()
        return {key: values[key] for key in IMAGE_KEYS}

    def with_values(self, **values: Any) -> RunConfig:
        """The same config with other values of these keys; ConfigError where they don't fit."""
        kept = self.flat()
        if not self.task.is_metric_asked:
            del kept["metric"]
        return RunConfig.make("config", **{**kept, **values})

    def to_toml(self) -> str:
        """TOML text: the format, then a table for each section; what is None is left out."""
        sections = self.model_dump(exclude_none=True)
        written = {name: values for name, values in sections.items() if values}
        return toml_text({KEY: FORMAT, **written})

    @classmethod
    def from_toml(cls, file: Path) -> RunConfig:
        """The config in a run's file; PrunedgeError when it is none, or one of another format."""
        values = read_toml(file, "config")
        refuse_other(values.pop(KEY, None), "run", file.parent)
        with speaking("study"):  # a file's keys, not options
            return cls.make(str(file), **flattened(values))


@cache
def settings() -> dict[str, Setting]:
    """Every setting by its key, section by section."""
    return {setting.key: setting for setting in _all_settings()}


def _all_settings() -> Iterator[Setting]:
    for section, section_field in RunConfig.model_fields.items():
        kind: Any = section_field.annotation
        for attribute, field in kind.model_fields.items():
            notes = next(note for note in field.metadata if isinstance(note, Notes))
            yield Setting(notes.key or attribute, section, kind.title, attribute, field, notes)


def asked() -> tuple[str, ...]:
    """The keys of what a user may ask for."""
    return tuple(key for key, setting in settings().items() if not setting.notes.is_derived)


# What decides which images a run sees, on which side, beside where they lie: the arguments of
# `prunedge.data.load`.
IMAGE_KEYS = (
    *(key for key in asked() if settings()[key].section == "data" and key != "data"),
    "task",
    "order",
    "damage",
    "costs",
)
# What decides the model that pruning starts from.
START_KEYS = tuple(
    key for key in asked() if settings()[key].section in ("data", "model", "task", "train")
)
# What a run that goes on from another keeps of it: what was trained on what, and how its images
# come.
TRAINING_KEYS = tuple(key for key in START_KEYS if settings()[key].notes.is_inherited)


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file's tables by their keys; what stands outside of a table is named by its
    key already.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            flat[name] = value
            continue
        for attribute, attribute_value in value.items():
            flat[_key_of(name, attribute) or f"{name}.{attribute}"] = attribute_value
    return flat


def _key_of(section: str, attribute: str) -> str | None:
    """The key of a section's attribute; None where it has none of that name."""
    for key, setting in settings().items():
        if (setting.section, setting.attribute) == (section, attribute):
            return key
    return None


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


def _with_remedy(message: str, kind: str) -> tuple[str, str | None]:
    """What is wrong, and what to do, which a rule of ours says itself behind a colon."""
    if kind != "value_error":
        return message, None
    what, _, remedy = message.partition(": ")
    return what, remedy or None


def _explain(location: tuple[int | str, ...], message: str, kind: str, given: Any) -> str:
    """A mistake, with the setting as the user calls it and the value that was given."""
    text = message.removeprefix("Value error, ")
    reason = f"{text[0].lower()}{text[1:]}"
    # Of several settings together, which the message names.
    if len(location) < 2:
        return reason

    section = str(location[0])
    attribute = str(location[1])
    key = _key_of(section, attribute) or f"{section}.{attribute}"
    if kind == "missing":
        return f"{option(key)} is missing"
    value = given if isinstance(given, (str, int, float)) else None
    return f"{option(key, value)}: {reason}"
