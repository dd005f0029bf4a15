"""What decides a result can be said everywhere: each setting is typed once, in the config, and reaches where it acts."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import prunedge as pe
from prunedge import data as images
from prunedge.cli.prune import prune
from prunedge.cli.study import study as study_app
from prunedge.cli.train import train
from prunedge.config import IMAGE_KEYS, START_KEYS, RunConfig, asked, settings
from prunedge.config.keywords import FILE, fit_keys, prune_keys, types_text
from prunedge.errors import ConfigError
from prunedge.pruning.from_config import (
    context_of,
    currency_of,
    policy_of,
    trainer_of,
    transfer_settings,
)
from prunedge.pruning.policy import StopPolicy
from prunedge.pruning.select import PlanConstraints, ScoreScaling
from prunedge.report.run import repeat
from prunedge.study.grid import FOUND_OUT, Grid, trials
from prunedge.train import TrainConfig, make_engine
from prunedge.train.batches import usual_batch_size
from prunedge.utils.advice import OF_TRAINING

DEFAULTS = {key: setting.default for key, setting in settings().items() if not setting.is_required}
ABOUT_THE_COMMAND = {"resume", "start", "out", "profile", "json", "trust_code", "trainer"}

# What `pe.prune` has no keyword for, and why.
ELSEWHERE_IN_THE_LIBRARY = {
    **dict.fromkeys(
        (
            "data",
            "masks",
            "tile",
            "overlap",
            "size",
            "resize",
            "in_channels",
            "image_norm",
            "folds",
            "fold",
            "group_by",
            "skip_unreadable",
            "range",
        ),
        "pe.load_folder and pe.load_manifest give `data`",
    ),
    "order": "pe.load_folder and pe.load_manifest give `data`, whose classes are in that order",
    **dict.fromkeys(
        ("damage", "costs"), "pe.load_folder and pe.load_manifest give `data`, which knows them"
    ),
    "operate": "pe.export_bundle and pe.write_report choose the threshold",
    "task": "pe.load_folder and pe.load_manifest give `data`, which knows it",
    **dict.fromkeys(("model", "weights"), "pe.build and pe.load give `model`"),
    **dict.fromkeys(
        ("train_epochs", "lr", "patience", "freeze"), "`model` has been trained (pe.fit)"
    ),
    **dict.fromkeys(("device", "runtime", "device_threads"), "pe.steer and pe.Timer give `device`"),
    "precision": "pe.make_engine gives `engine`",
    "rewind": "the loop knows no schedule of the training before: finetune=TrainConfig(start=...)",
    "baseline": "prunes other models beside this one, and decides nothing about it",
    "small": "teaches other models beside this one, and decides nothing about it",
}


def parameters(function: Any) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(function).parameters.items()}


def test_prune_has_an_option_for_every_setting_with_the_configs_default() -> None:
    found = parameters(prune)
    assert set(found) - ABOUT_THE_COMMAND == set(asked())
    assert {
        key: found[key] for key in DEFAULTS if key in found and key not in ABOUT_THE_COMMAND
    } == {key: _as_an_option(key, default) for key, default in DEFAULTS.items() if key in asked()}


def _as_an_option(key: str, default: Any) -> Any:
    """What the command line shows: no empty list, and a size as it is written."""
    if default == []:
        return None
    return str(default) if key == "size" else default


def test_train_has_an_option_for_what_decides_the_trained_model() -> None:
    found = parameters(train)
    assert set(found) - ABOUT_THE_COMMAND == set(START_KEYS)
    names = inspect.signature(train).parameters["train_epochs"].annotation.__metadata__[0].name
    assert names == ("--epochs",)


@pytest.mark.parametrize("command", ["crossval", "epochs", "criteria", "models"])
def test_every_study_takes_all_settings(command: str) -> None:
    function: Any = study_app[command].default_command
    assert set(asked()) - {"data", "model"} <= set(parameters(function))
    several = {
        key
        for key, one in inspect.signature(function).parameters.items()
        if "split" in repr(one.annotation)
    }
    assert {"criterion", "epochs", "seed", "fold"} <= several


def test_a_study_s_file_takes_all_settings() -> None:
    assert set(settings()) - set(FOUND_OUT) == set(asked())


def test_settings_of_a_file_stand_alone_or_in_the_tables_of_their_sections(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'data = "x"\nmodel = "resnet18"\ntask = "multilabel"\nfinetune_lr = 0.1\nmax_drop = 2.0\n'
    )
    (tmp_path / "b.toml").write_text(
        '[data]\npath = "x"\n[model]\nname = "resnet18"\n[task]\nname = "multilabel"\n[recover]\nlr = 0.1\n[stop]\nmax_drop = 2.0\n'
    )
    first, second = (Grid.from_toml(tmp_path / name) for name in ("a.toml", "b.toml"))
    assert trials(first) == trials(second)


def test_a_config_survives_its_file(tmp_path: Path) -> None:
    config = RunConfig.make(
        "test",
        data="a \U0001f9f1",
        model="m",
        ignore=["a", "b.*"],
        folds=3,
        fold=2,
        target_macs=0.25,
    )
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert RunConfig.from_toml(tmp_path / "config.toml") == config


@pytest.mark.parametrize(("given", "milliseconds"), [(5, 5.0), ("5ms", 5.0), ("0.2 s", 200.0)])
def test_a_target_of_latency_is_milliseconds_or_a_text_with_its_unit(
    given: Any, milliseconds: float
) -> None:
    values = {"data": "d", "model": "m", "device": "local"}
    config = RunConfig.make("test", **values, target_latency=given)
    assert config.stop.target_latency == milliseconds
    for wrong in ("5", "-5ms", "0ms"):
        with pytest.raises(ValueError, match="target_latency="):
            RunConfig.make("test", **values, target_latency=wrong)


@pytest.mark.parametrize(
    ("task", "metric"), [("classification", "accuracy"), ("multilabel", "map")]
)
def test_a_metric_that_nobody_names_is_the_task_s_first(
    tmp_path: Path, task: str, metric: str
) -> None:
    config = RunConfig.make("test", data="x", model="m", task=task)
    assert config.task.metric == metric
    assert "metric" not in config.flat(only_asked=True)
    named = RunConfig.make("test", data="x", model="m", task=task, metric=metric)
    assert named == config == RunConfig.make("test", data="x", model="m", task=task, metric=None)
    other = config.with_values(metric="f1")
    assert other.flat(only_asked=True)["metric"] == "f1"
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert f'metric = "{metric}"' in config.to_toml()
    assert RunConfig.from_toml(tmp_path / "config.toml") == config


def test_a_config_knows_whether_its_metric_was_asked_for() -> None:
    config = RunConfig.make("test", data="x", model="m")
    assert not config.task.is_metric_asked
    assert not config.with_values(seed=3).task.is_metric_asked
    assert not RunConfig.make("test", data="x", model="m", metric=None).task.is_metric_asked
    named = config.with_values(metric="accuracy")
    assert named.task.is_metric_asked
    assert named.with_values(seed=3).task.is_metric_asked
    assert named.flat(only_asked=True)["metric"] == "accuracy"
    assert config.with_values(metric="balanced-accuracy").task.metric == "balanced_accuracy"


def test_help_lists_the_tasks_and_the_metrics_of_each() -> None:
    assert settings()["task"].full_help.endswith(
        "One of classification, multilabel, ordinal, regression, segmentation."
    )
    said = settings()["metric"].full_help
    assert "lassification: accuracy, f1, auroc, balanced_accuracy, damage_f1, " in said
    assert "recall@alarms=LEVEL, alarms@recall=LEVEL, cost; " in said
    assert said.endswith("A LEVEL is a share between 0 and 1, such as 0.05.")
    assert "; multilabel: map, f1, exact; ordinal: kappa" in said
    assert settings()["order"].full_help.endswith("Of ordinal alone.")


def test_a_task_that_there_is_not_is_one_mistake_that_names_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no such task \(test\): choose classification, multi"
    ) as refused:
        RunConfig.make("test", data="x", model="m", task="palmistry")
    assert "metric" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "minutes"), [(30, 30.0), ("30min", 30.0), ("90s", 1.5), ("1.5 h", 90.0)]
)
def test_a_budget_is_minutes_or_a_text_with_its_unit(given: Any, minutes: float) -> None:
    config = RunConfig.make("test", data="d", model="m", budget=given)
    assert config.stop.budget == pytest.approx(minutes)
    for wrong in ("30", "-5min", "0s", "30 minutes"):
        with pytest.raises(ValueError, match="budget="):
            RunConfig.make("test", data="d", model="m", budget=wrong)


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({}, "latency"),
        ({"device": "local"}, "latency"),
        ({"cost": "macs"}, "macs"),
        ({"per_mac": True}, "channels"),
        ({"macs_penalty": 0.5}, "channels"),
        ({"per_layer": True}, "channels"),
    ],
)
def test_milliseconds_are_saved_unless_scores_are_weighed_otherwise(
    settings: dict[str, Any], saved: str
) -> None:
    """Milliseconds would take the place of the penalty, and nobody would be told."""
    config = RunConfig.make("test", data="x", model="resnet18", **settings)
    assert currency_of(config) == saved


def test_a_step_is_taken_back_only_surely_unless_the_metric_has_no_interval() -> None:
    values = {"data": "d", "model": "m"}
    assert policy_of(RunConfig.make("test", **values)).confidence == 0.95
    assert policy_of(RunConfig.make("test", **values, confidence=0.5)).confidence == 0.5
    assert policy_of(RunConfig.make("test", **values, metric="f1")).confidence is None


def test_every_setting_has_a_help_and_a_key_of_its_own() -> None:
    assert all(setting.help for setting in settings().values() if not setting.notes.is_derived)
    attributes = [(setting.section, setting.attribute) for setting in settings().values()]
    assert len(set(attributes)) == len(attributes) == len(settings())


def test_the_settings_of_a_study_reach_its_trials() -> None:
    values = {
        "normalise": "mean",
        "per_layer": True,
        "target_params": 0.5,
        "extra_rounds": 0,
        "compensate": "lstsq",
        "rewind": True,
        "distill": 0.5,
        "sparsity": "growing",
        "sparsity_strength": 0.1,
        "baseline": ["random"],
        "small": ["squeezenet1_0=none"],
        "ignore": ["conv1"],
        "min_channels": 8,
        "round_to": 4,
        "metric": "f1",
        "augment": "none",
        "skip_unreadable": True,
    }
    found = trials(
        Grid({**values, "folds": 3, "fold": [1, 2], "data": "/images/cracks", "model": "resnet18"})
    )
    assert [trial.config.data.fold for trial in found] == [1, 2]
    reached = found[0].config.flat()
    assert {key: reached[key] for key in values} == values
    # What trains the start otherwise starts from another model; what only prunes otherwise does not.
    start = found[0].start.config
    assert (start.train.augment, start.train.sparsity, start.prune.normalise) == (
        "none",
        "growing",
        "l2",
    )


def test_the_library_has_every_setting_with_the_configs_default() -> None:
    found = parameters(pe.prune)
    own = {"fit", "evaluate", "loss", "batches", "higher_is_better"}
    objects = {"model", "data", "engine", "device", "finetune", "out", *own}
    assert set(found) - objects == set(prune_keys())
    assert {key: found[key] for key in prune_keys()} == {key: DEFAULTS[key] for key in prune_keys()}
    assert set(prune_keys()) | set(ELSEWHERE_IN_THE_LIBRARY) == set(asked())
    assert not set(prune_keys()) & set(ELSEWHERE_IN_THE_LIBRARY)
    assert pe.prune.__doc__ is not None
    assert all(f"- `{key}` (" in pe.prune.__doc__ for key in prune_keys())


def test_the_training_has_every_setting_of_its_section_with_the_configs_default() -> None:
    found = parameters(pe.fit)
    names = {key: OF_TRAINING.get(key, key) for key in fit_keys()}
    assert set(found) - {"model", "data", "pretrained", "engine", "progress"} == set(names.values())
    assert {key: found[name] for key, name in names.items()} == {
        key: DEFAULTS[key] for key in fit_keys()
    }
    of_training = {key for key in asked() if settings()[key].section == "train"}
    assert of_training - set(fit_keys()) == {"precision"}, "pe.make_engine gives `engine`"
    assert pe.fit.__doc__ is not None
    assert all(f"- `{name}` (" in pe.fit.__doc__ for name in names.values())


def test_the_page_of_a_loop_is_told_what_the_loop_was_told() -> None:
    found = parameters(pe.write_report)
    assert {key: found[key] for key in prune_keys()} == {key: DEFAULTS[key] for key in prune_keys()}


@pytest.mark.parametrize("load", [images.load, pe.load_folder, pe.load_manifest, images.check])
def test_whoever_reads_images_has_every_setting_of_them(load: Any) -> None:
    found = parameters(load)
    assert {key: found[key] for key in IMAGE_KEYS} == {key: DEFAULTS[key] for key in IMAGE_KEYS}


def test_what_editors_read_of_the_librarys_keywords_is_made_from_the_config() -> None:
    assert FILE.read_text(encoding="utf-8") == types_text(), (
        "run python -m prunedge.config.keywords"
    )


def test_the_library_distils_from_the_unpruned_model(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.pruning import task_trainer
    from tests.small_models import Residual, randomise

    data = images.load(tiny_data, size=16, cache_dir=tmp_path)
    model = randomise(Residual())
    teachers = []
    fit = task_trainer.fit

    def noting(*args: Any, **kwargs: Any) -> Any:
        teachers.append((kwargs["extras"].teacher, kwargs["config"].distill))
        return fit(*args, **kwargs)

    monkeypatch.setattr(task_trainer, "fit", noting)
    settings = {"criterion": "weight-l1", "max_steps": 1, "max_drop": 100, "batch_size": 8}
    list(pe.prune(model, data, distill=0.25, engine=make_engine("32"), **settings))  # type: ignore[arg-type]

    assert [share for _, share in teachers] == [0.25, 0.25]  # the step, and its polish
    wanted = model.state_dict()
    for name, tensor in teachers[0][0].state_dict().items():
        assert tensor.equal(wanted[name])


OTHER = {
    "max_drop": 7.0,
    "step_ratio": 0.3,
    "target_macs": 0.4,
    "target_params": 0.3,
    "max_steps": 4,
    "budget": 20.0,
    "polish": 6,
    "confidence": 0.9,
    "target_latency": 9.0,
    "device": "local",
    "judged_from": 2,
    "ignore": ["conv1"],
    "min_channels": 3,
    "round_to": 4,
    "max_ratio": 0.7,
    "normalise": "rank",
    "compensate": "mean",
    "sparsity": "bn-l1",
    "sparsity_strength": 0.2,
    "batch_size": 4,
    "augment": "none",
    "optimizer": "adamw",
    "layer_decay": 0.8,
    "ema": 0.99,
    "balance": "sampler",
    "focal": 2.0,
    "finetune_lr": 0.003,
    "distill": 0.25,
    "rewind": True,
    "extra_rounds": 3,
    "criterion": "fisher",
    "epochs": 2,
    "seed": 5,
}


def test_a_config_hands_every_setting_to_the_loop(tiny_data: Path, tmp_path: Path) -> None:
    config = RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        **OTHER,
    )
    policy = policy_of(config)
    values = config.flat()
    for field in dataclasses.fields(StopPolicy):
        value = getattr(policy, field.name)
        if field.name == "metric":
            assert value.name == values["metric"]
            continue
        if field.name == "saved":
            assert value == "milliseconds"  # of the device that is named
            continue
        assert value == values[field.name] != field.default, field.name
    data = images.load(tiny_data, size=16, cache_dir=tmp_path)
    teacher = pe.build("tests.runs.test_run:small", 2, "none")
    trainer = trainer_of(config, data, make_engine("32"), teacher, teacher=teacher)
    assert trainer.teacher is teacher
    context = context_of(config, trainer)
    assert context.constraints == PlanConstraints(("conv1",), 3, 4, 0.7)
    assert context.scaling == ScoreScaling("rank")
    recovery = context.recovery
    assert (
        recovery.compensate,
        recovery.sparsity,
        recovery.sparsity_strength,
    ) == ("mean", "bn-l1", 0.2)
    fit = trainer.config
    assert (fit.lr, fit.batch_size, fit.augment, fit.distill, fit.start) == (
        0.003,
        4,
        "none",
        0.25,
        1 - 2 / 10,
    )
    assert (fit.optimizer, fit.layer_decay, fit.ema) == ("adamw", 0.8, 0.99)
    assert (fit.balance, fit.focal) == ("sampler", 2.0)
    assert (context.extra_rounds, context.criterion, context.epochs, context.seed) == (
        3,
        "fisher",
        2,
        5,
    )
    by_layer = RunConfig.make(
        "test",
        data="d",
        model="tests.runs.test_run:small",
        weights="none",
        per_layer=True,
        macs_penalty=0.5,
    )
    assert context_of(by_layer, trainer).scaling == ScoreScaling("l2", True, 0.5, False)
    per_mac = RunConfig.make(
        "test", data="d", model="tests.runs.test_run:small", weights="none", per_mac=True
    )
    assert context_of(per_mac, trainer).scaling.per_mac


@pytest.mark.parametrize(
    ("count", "batch"), [(9, 8), (1_023, 8), (1_024, 16), (2_047, 16), (2_048, 32), (90_000, 32)]
)
def test_a_small_training_set_is_seen_in_small_batches(count: int, batch: int) -> None:
    assert usual_batch_size(count) == batch


def test_the_batch_size_follows_from_the_training_images_unless_given(
    tiny_data: Path, tmp_path: Path
) -> None:
    data = images.load(tiny_data, size=16, cache_dir=tmp_path)
    config = RunConfig.make("test", data=str(tiny_data), model="m")
    assert transfer_settings(config, data).batch_size == 8
    model = pe.build("tests.runs.test_run:small", 2, "none")
    assert trainer_of(config, data, make_engine("32"), model).config.batch_size == 8

    config = RunConfig.make("test", data=str(tiny_data), model="m", batch_size=24)
    assert transfer_settings(config, data).batch_size == 24


def test_fine_tuning_has_neither_patience_nor_frozen_blocks(
    tiny_data: Path, tmp_path: Path
) -> None:
    config = RunConfig.make("test", data=str(tiny_data), model="m", patience=2, freeze=1)
    data = images.load(tiny_data, size=16, cache_dir=tmp_path)
    model = pe.build("tests.runs.test_run:small", 2, "none")
    training = transfer_settings(config, data).config(model)
    assert (training.patience, training.freeze) == (2, 1)
    finetune = trainer_of(config, data, make_engine("32"), model).config
    assert (finetune.patience, finetune.freeze) == (None, 0)


def test_random_weights_are_not_frozen() -> None:
    with pytest.raises(ValueError, match="freeze=1 keeps what pretrained weights know"):
        RunConfig.make("test", data="d", model="m", weights="none", freeze=1)


def test_the_library_calls_only_a_sure_drop_a_broken_rule(tiny_data: Path, tmp_path: Path) -> None:
    from tests.small_models import Residual, randomise

    data = images.load(tiny_data, size=16, cache_dir=tmp_path)
    model = randomise(Residual())
    finetune = TrainConfig(lr=1e-9, batch_size=8)
    found = pe.prune(
        model,
        data,
        confidence=0.95,
        step_ratio=0.3,
        max_steps=1,
        polish=0,
        engine=make_engine("32"),
        finetune=finetune,
    )
    assert [("one-sided 95 % bounds" in step.reason) for step, _ in found] == [False, True]
    for wrong in ({"confidence": 1.5}, {"confidence": 0.9, "metric": "f1"}):
        with pytest.raises(ValueError, match="confidence"):
            next(pe.prune(model, data, **wrong))  # type: ignore[arg-type]


def test_a_time_is_written_with_its_unit_as_the_command_line_takes_it() -> None:
    config = RunConfig.make("test", data="d", model="m", device="local", budget=1, target_latency=5)
    words = repeat.command(config, Path("runs/a"))
    assert "--budget 1min" in words
    assert "--target-latency 5ms" in words
    assert ("budget", "1min") in repeat.facts(config)
