"""How to repeat a run: its command, and everything that it was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prunedge.config import START_KEYS, RunConfig, Setting, asked, settings
from prunedge.utils import advice

# What the page of a loop without a run folder can tell of.
OF_A_LOOP = (
    "data",
    "classes",
    "size",
    "resize",
    "in_channels",
    "image_norm",
    "model",
    "task",
    "metric",
)
OF_THE_FIRST_TRAINING = ("train_epochs", "lr", "patience", "freeze")
GIVEN_OTHERWISE = ("data", "model", "weights", "start")


def command(
    config: RunConfig, path: Path, verb: str | None = "prune", precision: str | None = None
) -> str:
    """The command that repeats the run, which `train` or `prune` (`verb`) made, with the
    `precision` that it was computed with: measured anew, it might be another.
    """
    if precision is not None:
        config = config.with_values(precision=precision)
    is_training = verb == "train"
    words = ["train" if is_training else "prune", config.data.path]
    if config.model.start:
        words += ["--from", config.model.start]
    else:
        words += ["--model", config.model.name, "--weights", config.model.weights]

    for key, value in config.flat().items():
        is_of_start = bool(config.model.start) and key in OF_THE_FIRST_TRAINING
        is_of_pruning = is_training and key not in START_KEYS
        is_option = key in asked() and key not in GIVEN_OTHERWISE
        if not is_option or is_of_start or is_of_pruning:
            continue
        words += _option(settings()[key], advice.flag(key, verb), value)
    return advice.command(*words, "--out", f"{path.name}-again")


def facts(config: RunConfig, known: Collection[str] | None = None) -> list[tuple[str, str]]:
    """Every setting that a user may give with its value, in words; those that are `known`, where
    that is given.
    """
    shown = (*asked(), "start") if known is None else known
    listed = []
    for key, value in config.flat().items():
        if value is not None and key in shown:
            text = ", ".join(value) if isinstance(value, list) else settings()[key].written(value)
            name = advice.flag(key).removeprefix("--").replace("-", " ")
            listed.append((name, text))
    return listed


def _option(setting: Setting, flag: str, value: Any) -> Iterator[str]:
    """The words that give a setting this value; none where it has none."""
    if value is False and setting.default is True:
        yield flag.replace("--", "--no-", 1)
    if value is None or value is False:
        return
    for item in value if isinstance(value, list) else [value]:
        if item is True:
            yield flag
        elif str(item).startswith("-"):
            # A number that begins with a minus would be taken for a flag.
            yield f"{flag}={item}"
        else:
            yield flag
            yield setting.written(item)
