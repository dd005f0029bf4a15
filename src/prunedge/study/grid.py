"""What a study runs: every combination of the values that its file lists. Pure: a grid in, trials
out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any, get_origin

from prunedge.config import START_KEYS, RunConfig, flattened, read_toml, settings, toml_text
from prunedge.data.paths import absolute, has_braces
from prunedge.errors import PrunedgeError
from prunedge.utils.advice import speaking
from prunedge.utils.formats import FORMAT, KEY, refuse_other

KINDS = ("grid", "crossval", "epochs", "criteria", "models", "talk")

MOST_TRIALS = 10_000  # of a study: a slip of the pen asks for millions

# What a run finds out or is given by what starts it: no study asks for it.
OURS = tuple(key for key, setting in settings().items() if setting.notes.is_found)


@dataclass(frozen=True)
class Start:
    """A starting model: the run folder's name, and the config that trains it."""

    name: str
    config: RunConfig


@dataclass(frozen=True)
class Trial:
    """One run of a study: the run folder's name, the config (`start` is filled in where it runs),
    and the model that it starts from.
    """

    name: str
    config: RunConfig
    start: Start

    @property
    def values(self) -> dict[str, Any]:
        """The config as a plain dict."""
        return self.config.flat()


@dataclass(frozen=True)
class Grid:
    """What a study's file says: keys of a config, each with a value or a list of values.

    `kind` says which question leads the report. With `bench`, the unpruned and the pruned model
    of one trial of each combination (the first fold and seed) are timed on so many patches.
    """

    values: Mapping[str, Any]
    kind: str = "grid"
    bench: int = 0

    @property
    def axes(self) -> tuple[str, ...]:
        """The keys that have several values, `fold` among them where there are folds."""
        return tuple(key for key, several in _listed(self.values).items() if len(several) > 1)

    @classmethod
    def from_toml(cls, file: Path) -> Grid:
        """Read a study's file; PrunedgeError when it is none. Paths of images are relative to it.

        A file that somebody wrote may name no format; one that names another is refused.
        """
        values = flattened(read_toml(file, "study"))
        refuse_other(values.pop(KEY, FORMAT), "study", file)
        kind, bench = values.pop("kind", "grid"), values.pop("bench", 0)
        if kind not in KINDS:
            raise PrunedgeError(
                f"unknown kind '{kind}'", where=file, remedy=f"use one of {', '.join(KINDS)}"
            )
        if not isinstance(bench, int) or bench < 0:
            raise PrunedgeError(
                f"bench = {bench}", where=file, remedy="give a number of patches, or 0"
            )
        if "data" in values:
            several = [absolute(one, file.parent) for one in _as_list(values["data"])]
            values["data"] = several if isinstance(values["data"], list) else several[0]
        grid = cls(values, kind, bench)
        with speaking("study"):
            trials(grid, str(file))
        return grid

    def is_timed(self, trial: Trial) -> bool:
        """Whether a trial is one whose models are timed."""
        first = _listed(self.values).get("seed", [0])[0]
        return self.bench > 0 and trial.config.data.fold == 0 and trial.config.data.seed == first

    def to_toml(self) -> str:
        """The text of such a file."""
        return toml_text(
            {KEY: FORMAT, "kind": self.kind, "bench": self.bench or None, **self.values}
        )


def trials(grid: Grid, where: str = "study") -> tuple[Trial, ...]:
    """Every combination, in the order of the file's keys (the last one varies fastest).

    PrunedgeError that lists every mistake at once: keys that no config has, values out of range.
    """
    _check_keys(grid.values, where)
    listed = _listed(grid.values)
    count = prod(len(values) for values in listed.values())
    if count > MOST_TRIALS:
        several = ", ".join(
            f"{key} ({len(values):,})" for key, values in listed.items() if len(values) > 1
        )
        what = f"the grid asks for {count:,} trials, more than {MOST_TRIALS:,}"
        raise PrunedgeError(what, where=where, remedy=f"give fewer values: {several}")
    found: dict[str, Trial] = {}
    for combination in itertools.product(*listed.values()):
        values = dict(zip(listed, combination, strict=True))
        config = RunConfig.make(where, **values)
        found.setdefault((trial := _trial(config)).name, trial)
    return tuple(found.values())


def data_name(path: str) -> str:
    """What a set of images is called: its folder, the manifest's or the shard's name (its
    folder's for a manifest.csv or a pattern).
    """
    file = Path(path.partition("{")[0] + "_") if has_braces(path) else Path(path)
    return file.parent.name if file.name == "manifest.csv" or has_braces(path) else file.stem


def _trial(config: RunConfig) -> Trial:
    asked = config.flat(only_asked=True)
    training = {key: value for key, value in asked.items() if key in START_KEYS}
    said = [
        data_name(config.data.path) or "data",
        config.model.name.replace("/", "_").replace(":", "."),
    ]
    said += [f"f{config.data.fold}of{config.data.folds}"] if config.data.folds else []
    said += [f"seed{config.data.seed}"]
    start = Start("-".join([*said, _digest(training)]), RunConfig.make("study", **training))
    later = [
        config.prune.criterion.replace(":", "."),
        f"e{config.recover.epochs}",
        f"s{config.prune.step_ratio:g}",
    ]
    return Trial("-".join([*said, *later, _digest(asked)]), config, start)


def _listed(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each key with all its values."""
    listed = {}
    for key, value in values.items():
        own_list = get_origin(settings()[key].kind) is list
        is_axis = isinstance(value, list) and (
            not own_list or any(isinstance(one, list) for one in value)
        )
        listed[key] = list(value) if is_axis else [value]
        if key == "folds" and isinstance(value, int) and "fold" not in values:
            listed["fold"] = list(range(min(value, MOST_TRIALS + 1)))
    return listed


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    problems = []
    for key, value in values.items():
        if key not in settings() or key in OURS:
            near = get_close_matches(key, set(settings()) - set(OURS), n=1)
            problems.append(
                f"unknown key '{key}'" + (f" (did you mean '{near[0]}'?)" if near else "")
            )
        elif value == []:
            problems.append(f"{key}: an empty list leaves nothing to run")
        elif key == "folds" and isinstance(value, list):
            problems.append("folds: give one number; every fold is run, or those of `fold`")
    problems += [f"{key} is missing" for key in ("data", "model") if key not in values]
    if problems:
        raise PrunedgeError(
            "; ".join(problems),
            where=where,
            remedy="mend these keys: a study has those of a config, with lists",
        )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _as_list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]
