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

KINDS = ("grid", "crossval", "epochs", "criteria", "models")

MOST_TRIALS = 10_000  # of a study: a slip of the pen asks for millions

# What a run finds out or is given by what starts it: no study asks for it.
FOUND_OUT = tuple(key for key, setting in settings().items() if setting.notes.is_derived)


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
        return tuple(key for key, listed in _listed(self.values).items() if len(listed) > 1)

    @classmethod
    def from_toml(cls, file: Path) -> Grid:
        """Read a study's file; PrunedgeError when it is none. Paths of images are relative to it.

        A file that somebody wrote may name no format; one that names another is refused.
        """
        values = flattened(read_toml(file, "study"))
        refuse_other(values.pop(KEY, FORMAT), "study", file)
        kind = values.pop("kind", "grid")
        bench = values.pop("bench", 0)
        if kind not in KINDS:
            raise PrunedgeError(
                f"unknown kind '{kind}'", where=file, remedy=f"use one of {', '.join(KINDS)}"
            )
        if not isinstance(bench, int) or bench < 0:
            raise PrunedgeError(
                f"bench = {bench}", where=file, remedy="give a number of patches, or 0"
            )
        if "data" in values:
            paths = [absolute(path, file.parent) for path in _as_list(values["data"])]
            values["data"] = paths if isinstance(values["data"], list) else paths[0]
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
        axes = [f"{key} ({len(values):,})" for key, values in listed.items() if len(values) > 1]
        what = f"the grid asks for {count:,} trials, more than {MOST_TRIALS:,}"
        raise PrunedgeError(what, where=where, remedy=f"give fewer values: {', '.join(axes)}")

    # Two combinations that ask for the same are one trial.
    named: dict[str, Trial] = {}
    for combination in itertools.product(*listed.values()):
        values = dict(zip(listed, combination, strict=True))
        trial = _trial(RunConfig.make(where, **values))
        named.setdefault(trial.name, trial)
    return tuple(named.values())


def data_name(path: str) -> str:
    """What a set of images is called: its folder, the manifest's or the shard's name (its
    folder's for a manifest.csv or a pattern).
    """
    file = Path(path.partition("{")[0] + "_") if has_braces(path) else Path(path)
    return file.parent.name if file.name == "manifest.csv" or has_braces(path) else file.stem


def _trial(config: RunConfig) -> Trial:
    """The trial of a config, with the start that it shares with others; both are named for what
    they are of, and by a digest of all that was asked for.
    """
    asked = config.flat(only_asked=True)
    training = {key: value for key, value in asked.items() if key in START_KEYS}

    words = [data_name(config.data.path) or "data"]
    words.append(config.model.name.replace("/", "_").replace(":", "."))
    if config.data.folds:
        words.append(f"f{config.data.fold}of{config.data.folds}")
    words.append(f"seed{config.data.seed}")
    start_name = "-".join([*words, _digest(training)])
    start = Start(start_name, RunConfig.make("study", **training))

    words.append(config.prune.criterion.replace(":", "."))
    words.append(f"e{config.recover.epochs}")
    words.append(f"s{config.prune.step_ratio:g}")
    return Trial("-".join([*words, _digest(asked)]), config, start)


def _listed(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each key with all its values."""
    listed = {}
    for key, value in values.items():
        own_list = get_origin(settings()[key].kind) is list
        is_list = isinstance(value, list)
        is_axis = is_list and (not own_list or any(isinstance(item, list) for item in value))
        listed[key] = list(value) if is_axis else [value]
        if key == "folds" and isinstance(value, int) and "fold" not in values:
            listed["fold"] = list(range(min(value, MOST_TRIALS + 1)))
    return listed


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    problems = []
    for key, value in values.items():
        if key not in settings() or key in FOUND_OUT:
            near = get_close_matches(key, set(settings()) - set(FOUND_OUT), n=1)
            suggestion = f" (did you mean '{near[0]}'?)" if near else ""
            problems.append(f"unknown key '{key}'{suggestion}")
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
