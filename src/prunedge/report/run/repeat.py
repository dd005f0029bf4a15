"""How to repeat a run: its command, and everything that it was asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prunedge.config import START_KEYS, RunConfig, Setting, asked, settings
from prunedge.pruning.prune_with import GIVEN, is_of_the_loop
from prunedge.utils import advice

LOOP = ("prune", "recover", "stop")  # sections
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
# What the page of a run of the user's own training can tell of: what the loop goes by.
OF_AN_OWN_TRAINER = (
    "trainer",
    "own_metric",
    "higher_is_better",
    "seed",
    "device",
    "runtime",
    "device_threads",
    *(key for key in asked() if settings()[key].section in LOOP and is_of_the_loop(key)),
)
OF_THE_FIRST_TRAINING = ("train_epochs", "lr", "patience", "freeze")
OF_A_DEVICE = ("device", "runtime", "device_threads")
GIVEN_OTHERWISE = ("data", "model", "weights", "start")


def command(
    config: RunConfig, path: Path, verb: str | None = "prune", precision: str | None = None
) -> str:
    """The command that repeats the run, which `train` or `prune` (`verb`) made, with the
    `precision` that it was computed with: measured anew, it might be another.
    """
    if config.has_own_trainer:
        return _own_command(config, path)
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


def _own_command(config: RunConfig, path: Path) -> str:
    """The command that repeats a run of the user's own training; a call where it has no name."""
    own = config.trainer
    again = f"{path.name}-again"
    given = []
    asked_for = config.flat(only_asked=True)
    for key in (key for key in OF_AN_OWN_TRAINER if key in asked() and key in asked_for):
        given.append((key, asked_for[key]))
    if own.name == GIVEN:
        words = [f"{key}={value!r}" for key, value in given if key not in OF_A_DEVICE]
        words = [*words, f"metric={own.metric!r}", f"higher_is_better={own.higher_is_better}"]
        return f"pe.prune(model, example, fit=..., evaluate=..., {', '.join(words)}, out={again!r})"
    options = ["--trainer", own.name, "--metric", own.metric]
    for key, value in given:
        options += _option(settings()[key], advice.flag(key, "prune"), value)
    return advice.command("prune", *options, "--out", again)


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
