"""What a study runs: every combination of the values that its file lists. Pure: a grid in, trials out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

from prunedge.config import TRAINING_KEYS, Recipe, read_toml, toml_text
from prunedge.data.paths import absolute, has_braces
from prunedge.errors import PrunedgeError
from prunedge.formats import FORMAT, KEY, refuse_other
from prunedge.utils.advice import speaking

KINDS = ("grid", "crossval", "epochs", "criteria", "networks", "talk")

# What decides the transfer-learned network that trials share.
START_KEYS = (*TRAINING_KEYS, "train_epochs", "lr", "precision", "regularise", "strength")
# What a run finds out or is given by what starts it: no study asks for it.
OURS = ("start", "schedule_epochs", "classes", "data_fingerprint", "judged_from")


@dataclass(frozen=True)
class Start:
    """A starting network: the run folder's name, and the recipe that trains it."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Trial:
    """One run of a study: the run folder's name, the recipe (`start` is filled in where it runs), and the network that it starts from."""

    name: str
    recipe: Recipe
    start: Start

    @property
    def values(self) -> dict[str, Any]:
        """The recipe as a plain dict."""
        return self.recipe.model_dump()


@dataclass(frozen=True)
class Grid:
    """What a study's file says: keys of a recipe, each with a value or a list of values.

    `kind` says which question leads the report. With `bench`, the unpruned and the pruned network of one trial of each combination (the
    first fold and seed) are timed on so many patches.
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
        """Read a study's file; PrunedgeError when it is none. Paths of pictures are relative to it.

        A file that somebody wrote may name no format; one that names another is refused.
        """
        values = read_toml(file, "study")
        refuse_other(values.pop(KEY, FORMAT), "study", file)
        kind, bench = values.pop("kind", "grid"), values.pop("bench", 0)
        if kind not in KINDS:
            raise PrunedgeError(f"unknown kind '{kind}'", where=file, remedy=f"use one of {', '.join(KINDS)}")
        if not isinstance(bench, int) or bench < 0:
            raise PrunedgeError(f"bench = {bench}", where=file, remedy="give a number of patches, or 0")
        if "data" in values:
            several = [absolute(one, file.parent) for one in _as_list(values["data"])]
            values["data"] = several if isinstance(values["data"], list) else several[0]
        grid = cls(values, kind, bench)
        with speaking("study"):
            trials(grid, str(file))
        return grid

    def is_timed(self, trial: Trial) -> bool:
        """Whether a trial is one whose networks are timed."""
        first = _listed(self.values).get("seed", [0])[0]
        return self.bench > 0 and trial.recipe.fold == 0 and trial.recipe.seed == first

    def to_toml(self) -> str:
        """The text of such a file."""
        return toml_text({KEY: FORMAT, "kind": self.kind, "bench": self.bench or None, **self.values})


def trials(grid: Grid, where: str = "study") -> tuple[Trial, ...]:
    """Every combination, in the order of the file's keys (the last one varies fastest).

    PrunedgeError that lists every mistake at once: keys that no recipe has, values out of range.
    """
    _check_keys(grid.values, where)
    listed = _listed(grid.values)
    found: dict[str, Trial] = {}
    for combination in itertools.product(*listed.values()):
        values = dict(zip(listed, combination, strict=True))
        recipe = Recipe.make(where, **values)
        found.setdefault((trial := _trial(recipe)).name, trial)
    return tuple(found.values())


def data_name(path: str) -> str:
    """What a set of pictures is called: its folder, the manifest's or the shard's name (its folder's for a manifest.csv or a pattern)."""
    file = Path(path.partition("{")[0] + "_") if has_braces(path) else Path(path)
    return file.parent.name if file.name == "manifest.csv" or has_braces(path) else file.stem


def _trial(recipe: Recipe) -> Trial:
    asked = recipe.model_dump(exclude_defaults=True)
    training = {key: value for key, value in asked.items() if key in START_KEYS}
    said = [data_name(recipe.data) or "data", recipe.model.replace("/", "_").replace(":", ".")]
    said += [f"f{recipe.fold}of{recipe.folds}"] if recipe.folds else []
    said += [f"seed{recipe.seed}"]
    start = Start("-".join([*said, _digest(training)]), Recipe.make("study", **training))
    later = [recipe.criterion.replace(":", "."), f"e{recipe.epochs}", f"s{recipe.step:g}"]
    return Trial("-".join([*said, *later, _digest(asked)]), recipe, start)


def _listed(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each key with all its values."""
    listed = {}
    for key, value in values.items():
        own_list = get_origin(Recipe.model_fields[key].annotation) is list
        is_axis = isinstance(value, list) and (not own_list or any(isinstance(one, list) for one in value))
        listed[key] = list(value) if is_axis else [value]
        if key == "folds" and isinstance(value, int) and "fold" not in values:
            listed["fold"] = list(range(value))
    return listed


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    problems = []
    for key, value in values.items():
        if key not in Recipe.model_fields or key in OURS:
            near = get_close_matches(key, set(Recipe.model_fields) - set(OURS), n=1)
            problems.append(f"unknown key '{key}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        elif value == []:
            problems.append(f"{key}: an empty list leaves nothing to run")
        elif key == "folds" and isinstance(value, list):
            problems.append("folds: give one number; every fold is run, or those of `fold`")
    problems += [f"{key} is missing" for key in ("data", "model") if key not in values]
    if problems:
        raise PrunedgeError("; ".join(problems), where=where, remedy="mend these keys: a study has those of a recipe, with lists")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _as_list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]
