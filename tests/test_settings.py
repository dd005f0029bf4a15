"""What decides a result can be said everywhere: the recipe, the verbs, studies and the library have the same settings and defaults."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import prunedge as pe
from prunedge import data as pictures
from prunedge.cli.prune import prune
from prunedge.cli.study import Common
from prunedge.cli.study import study as study_app
from prunedge.cli.train import train
from prunedge.config import Recipe
from prunedge.latency import Timer
from prunedge.pruning.loop import Aids, Rule
from prunedge.pruning.select import Limits, Ranking
from prunedge.runs import session
from prunedge.runs.resumption import rule_of
from prunedge.study.grid import OURS, START_KEYS, Grid, trials
from prunedge.train import TrainConfig, make_engine

FIELDS = {name: field.get_default(call_default_factory=True) for name, field in Recipe.model_fields.items()}
# What a run finds out, or is given by how it began: nobody asks for it.
FOUND_OUT = {"classes", "data_fingerprint", "schedule_epochs", "judged_from"}
ASKED = set(FIELDS) - FOUND_OUT

ABOUT_THE_COMMAND = {"resume", "out", "profile", "json", "given", "trust_code"}
REQUIRED = {"data", "model"}

# Where `pe.prune` has each field of a recipe: an argument, or a field of one.
IN_THE_LIBRARY: dict[str, tuple[Any, str]] = {
    **{
        key: (Rule, key)
        for key in ("max_drop", "step", "metric", "target_macs", "target_params", "max_steps", "confidence", "target_latency")
    },
    **{key: (None, key) for key in ("criterion", "epochs", "seed", "extra_rounds")},
    **{key: (Limits, key) for key in ("keep_out", "least", "multiple", "cap")},
    **{key: (Ranking, key) for key in ("normalise", "per_layer", "macs_penalty", "per_mac")},
    **{key: (Aids, key) for key in ("compensate", "regularise", "strength")},
    **{key: (TrainConfig, key) for key in ("batch_size", "augment", "distill")},
    "finetune_lr": (TrainConfig, "lr"),
    "rewind": (TrainConfig, "start"),
    "runtime": (Timer, "target"),
    "device_threads": (Timer, "threads"),
    "device": (None, "device"),
    "precision": (None, "engine"),
}
ELSEWHERE_IN_THE_LIBRARY = {
    **dict.fromkeys(
        ("data", "size", "folds", "fold", "group_by", "skip_unreadable", "range"), "pe.load_folder and pe.load_manifest give `data`"
    ),
    **dict.fromkeys(("model", "weights", "start"), "pe.build and pe.load give `network`"),
    **dict.fromkeys(("train_epochs", "lr"), "`network` has been trained (pe.fit)"),
    "control": "prunes other networks beside this one, and decides nothing about it",
}
# Not said by a plain value: None in the recipe leaves the choice to the network, False a whole schedule, None no device.
OWN_DEFAULTS = {"finetune_lr", "rewind", "device", "precision"}


def parameters(function: Any) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(function).parameters.items()}


def differs(default: Any, wanted: Any) -> bool:
    """A verb's None stands for the recipe's default, an empty list or tuple for another."""
    return default is not None and (list(default) if isinstance(default, tuple) else default) != wanted


def test_prune_has_every_setting_with_the_recipes_default() -> None:
    found = parameters(prune)
    assert set(found) - ABOUT_THE_COMMAND == ASKED
    assert not {key for key in ASKED - REQUIRED if differs(found[key], FIELDS[key])}


def test_train_has_every_setting_that_decides_the_trained_network() -> None:
    found = {"train_epochs" if key == "epochs" else key: default for key, default in parameters(train).items()}
    assert set(found) - ABOUT_THE_COMMAND == set(START_KEYS)
    assert not {key for key in set(START_KEYS) - REQUIRED if differs(found[key], FIELDS[key])}


def test_studies_have_every_setting_with_the_recipes_default() -> None:
    """A study trains its starting networks itself: `start` alone is not asked for."""
    common = Common()
    found = {one.name: getattr(common, one.name) for one in dataclasses.fields(Common)}
    assert set(found) | REQUIRED == ASKED - {"start"}
    several = {"criterion", "epochs", "seed"}
    assert not {key for key in found if differs(found[key], [FIELDS[key]] if key in several else FIELDS[key])}
    assert set(FIELDS) - set(OURS) == ASKED - {"start"}, "a study's file"


@pytest.mark.parametrize("command", ["crossval", "epochs", "criteria", "networks", "talk"])
def test_every_study_takes_all_settings(command: str) -> None:
    function = study_app[command].default_command
    assert {"common", "where"} <= set(parameters(function))


def test_a_study_without_more_settings_is_the_study_it_was() -> None:
    """Names hold a digest of what is asked for: what 0.1 called its trials, so that what is done is not done again."""
    values = {**Common().values(), "data": "/pictures/cracks", "model": "resnet18"}
    (trial,) = trials(Grid(values))
    assert (trial.name, trial.start.name) == ("cracks-resnet18-seed0-taylor-e1-s0.1-21c98ccc", "cracks-resnet18-seed0-21c98ccc")
    (other,) = trials(Grid({"data": "/pictures/cracks", "model": "resnet18", "cap": 0.3, "keep_out": ["a"]}))
    assert other.name == "cracks-resnet18-seed0-taylor-e1-s0.1-caaa4936"


def test_the_settings_of_a_study_reach_its_trials() -> None:
    common = Common(
        normalise="mean", per_layer=True, target_params=0.5, extra_rounds=0, compensate="lstsq", rewind=True, distill=0.5,
        regularise="growing", strength=0.1, control=["random"], keep_out=["conv1"], least=8, multiple=4, metric="f1", augment="none",
        skip_unreadable=True, folds=3, fold=[1, 2],
    )  # fmt: skip
    found = trials(Grid({**common.values(), "data": "/pictures/cracks", "model": "resnet18"}))
    assert [trial.recipe.fold for trial in found] == [1, 2]
    for one in dataclasses.fields(Common):
        value = getattr(common, one.name)
        if one.name not in ("criterion", "epochs", "seed", "fold") and value is not None:
            assert getattr(found[0].recipe, one.name) == value, one.name
    # What trains the start otherwise starts from another network; what only prunes otherwise does not.
    assert (found[0].start.recipe.augment, found[0].start.recipe.regularise) == ("none", "growing")
    assert found[0].start.recipe.normalise == "l2"
    timed = trials(Grid({**Common(target_latency="0.2s").values(), "data": "/pictures/cracks", "model": "resnet18"}))
    assert (timed[0].recipe.target_latency, timed[0].recipe.device) == (200.0, "local")


def test_the_library_has_every_setting_with_the_recipes_default() -> None:
    assert set(IN_THE_LIBRARY) | set(ELSEWHERE_IN_THE_LIBRARY) == ASKED
    found = parameters(pe.prune)
    for key, (kind, name) in IN_THE_LIBRARY.items():
        if kind is None or kind is Rule:
            assert name in found, key
            default = found[name]
        else:
            default = next(one.default for one in dataclasses.fields(kind) if one.name == name)
        if key not in OWN_DEFAULTS:
            assert (list(default) if isinstance(default, tuple) else default) == FIELDS[key], key
    rule = {one.name for one in dataclasses.fields(Rule)} - FOUND_OUT
    assert rule <= set(found) and {key for key, (kind, _) in IN_THE_LIBRARY.items() if kind is Rule} == rule
    for kind in (Limits, Ranking):
        assert {one.name for one in dataclasses.fields(kind)} == {key for key, (home, _) in IN_THE_LIBRARY.items() if home is kind}
    for kind in (Limits, Ranking, Aids, TrainConfig, Timer):
        assert getattr(pe, kind.__name__) is kind, "reachable by a user of the library"


OTHER = {
    "max_drop": 7.0, "step": 0.3, "target_macs": 0.4, "target_params": 0.3, "max_steps": 4, "confidence": 0.9, "target_latency": 9.0,
    "device": "local", "judged_from": 2, "keep_out": ["conv1"], "least": 3, "multiple": 4, "cap": 0.7, "normalise": "rank",
    "compensate": "mean", "regularise": "bn-l1", "strength": 0.2, "batch_size": 4, "augment": "none", "finetune_lr": 0.003,
    "distill": 0.25, "rewind": True, "extra_rounds": 3, "criterion": "fisher", "epochs": 2, "seed": 5,
}  # fmt: skip


def test_a_recipe_hands_every_setting_to_the_loop(tiny_data: Path, tmp_path: Path) -> None:
    recipe = Recipe.make("test", data=str(tiny_data), model="tests.runs.test_run:small", weights="none", size=16, **OTHER)
    rule = rule_of(recipe)
    for one in dataclasses.fields(Rule):
        assert getattr(rule, one.name) == getattr(recipe, one.name), one.name
        assert one.name == "metric" or getattr(rule, one.name) != one.default
    data = pictures.load(tiny_data, size=16, cache_dir=tmp_path)
    teacher = pe.build("tests.runs.test_run:small", 2, "none")
    shop = session._workshop(recipe, data, make_engine("32"), session.Watch(), teacher=teacher)
    assert shop.limits == Limits(("conv1",), 3, 4, 0.7)
    assert shop.ranking == Ranking("rank")
    assert (shop.aids.compensate, shop.aids.regularise, shop.aids.strength, shop.aids.teacher) == ("mean", "bn-l1", 0.2, teacher)
    fit = shop.finetune
    assert (fit.lr, fit.batch_size, fit.augment, fit.distill, fit.start) == (0.003, 4, "none", 0.25, 1 - 2 / 10)
    assert (shop.extra_rounds, shop.criterion, shop.epochs, shop.seed) == (3, "fisher", 2, 5)
    by_layer = Recipe.make("test", data="d", model="tests.runs.test_run:small", weights="none", per_layer=True, macs_penalty=0.5)
    assert session._workshop(by_layer, data, make_engine("32"), session.Watch()).ranking == Ranking("l2", True, 0.5, False)
    per_mac = Recipe.make("test", data="d", model="tests.runs.test_run:small", weights="none", per_mac=True)
    assert session._workshop(per_mac, data, make_engine("32"), session.Watch()).ranking.per_mac


def test_the_library_calls_only_a_sure_drop_a_broken_rule(tiny_data: Path, tmp_path: Path) -> None:
    from tests.networks import Residual, randomise

    data = pictures.load(tiny_data, size=16, cache_dir=tmp_path)
    network = randomise(Residual())
    finetune = TrainConfig(lr=1e-9, batch_size=8)
    found = pe.prune(network, data, confidence=0.95, step=0.3, max_steps=1, engine=make_engine("32"), finetune=finetune)
    assert [("each with 95% confidence" in step.reason) for step, _ in found] == [False, True]
    for wrong in ({"confidence": 1.5}, {"confidence": 0.9, "metric": "f1"}):
        with pytest.raises(ValueError, match="confidence"):
            next(pe.prune(network, data, **wrong))  # type: ignore[arg-type]
