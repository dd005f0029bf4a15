"""Rare damage, from the images to the run: the metric that is taken, what counts more, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunedge as pe
from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.errors import PrunedgeError, TrainError
from prunedge.report import write_report
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.run import open_run
from prunedge.study.folder import create
from prunedge.study.grid import Grid
from prunedge.study.results import collect
from prunedge.train import TrainConfig, fit, make_engine
from prunedge.train.weighting import weighting_of
from tests.commands import prunedge
from tests.several_labels import write_several
from tests.small_models import Residual, randomise
from tests.small_runs import essence, small_recipe
from tests.tiny_images import write_tiny

RARE = 12  # of the cracks


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image in eight shows a crack."""
    root = write_tiny(tmp_path_factory.mktemp("rare") / "images", 84, 16)
    for index in range(RARE, 84):
        (root / "crack" / f"{index:03d}.png").unlink()
    return root


def trained(config: RunConfig, out: Path) -> tuple[RunConfig, list[str]]:
    said: list[str] = []
    execute.train(config, out, Callbacks(on_line=said.append))
    return open_run(out).config, said


def test_where_a_class_has_most_images_rare_ones_count_and_a_line_says_so(
    rare: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(rare)
    config, said = trained(recipe, tmp_path / "run")
    assert config.task.metric == "balanced_accuracy"
    assert 'metric = "balanced_accuracy"' in (tmp_path / "run" / "config.toml").read_text("utf-8")
    lines = [line for line in said if line.startswith("judged by balanced_accuracy: 8")]
    assert len(lines) == 1
    assert "of the training images are 'sound'" in lines[0]

    asked, said = trained(recipe.with_values(metric="accuracy"), tmp_path / "asked")
    assert asked.task.metric == "accuracy"
    assert not any(line.startswith("judged by") for line in said)


def test_even_classes_are_judged_by_accuracy(tiny_data: Path, tmp_path: Path) -> None:
    config, said = trained(small_recipe(tiny_data, train_epochs=1), tmp_path / "run")
    assert config.task.metric == "accuracy"
    assert not any(line.startswith("judged by") for line in said)


def test_a_confidence_keeps_the_metric_that_has_one(rare: Path, tmp_path: Path) -> None:
    config, _ = trained(small_recipe(rare, train_epochs=1, confidence=0.9), tmp_path / "run")
    assert config.task.metric == "accuracy"


@pytest.mark.parametrize(
    "how", [{"balance": "loss", "metric": "recall@alarms=0.30"}, {"balance": "sampler"}]
)
def test_a_pruning_of_rare_damage_ends_the_same_when_it_is_cut_off(
    rare: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    class CutOff(Exception):
        pass

    def cut(step: object) -> None:
        raise CutOff

    recipe = small_recipe(rare, focal=1.5, **how)
    whole = execute.prune(recipe, tmp_path / "whole")
    with pytest.raises(CutOff):
        execute.prune(recipe, tmp_path / "cut", Callbacks(on_step=cut))
    execute.resume(tmp_path / "cut")
    found = open_run(tmp_path / "cut")
    assert essence(found) == essence(whole)
    weights = whole.load().state_dict()
    for name, tensor in found.load().state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert whole.steps()[0].metric_after == whole.steps()[0].metrics[whole.config.task.metric]
    tested = whole.test()
    assert tested is not None
    if "metric" in how:
        assert whole.config.task.metric == "recall@alarms=0.3"
        assert "recall@alarms=0.3" in tested["best"]
    assert write_report(whole).exists()


def test_weights_come_from_the_training_images_alone(rare: Path, tmp_path: Path) -> None:
    data = images.load(rare, size=16, cache_dir=tmp_path)
    weighting = weighting_of(
        pe_task(data), data.train, TrainConfig(balance="loss"), torch.device("cpu")
    )
    assert weighting is not None
    assert weighting.weights is not None
    counts = np.bincount(data.train.targets())
    np.testing.assert_allclose(weighting.weights.numpy(), len(data.train) / (2 * counts), rtol=1e-5)


def pe_task(data: images.Dataset) -> Any:
    from prunedge.tasks import make_task

    return make_task(data.spec)


def test_bare_batches_don_t_say_how_rare_a_class_is() -> None:
    batches = [(torch.zeros(4, 3, 16, 16), torch.tensor([0, 1, 0, 1]))]
    for balance in ("loss", "sampler"):
        config = TrainConfig(balance=balance)  # type: ignore[arg-type]
        with pytest.raises(TrainError, match="bare batches don't say"):
            fit(
                randomise(Residual()),
                batches,
                epochs=1,
                config=config,
                engine=make_engine(),
                seed=0,
            )


@pytest.mark.parametrize("settings", [{"balance": "rare"}, {"focal": -1.0}, {"focal": 11.0}])
def test_a_training_refuses_what_is_no_balance(settings: dict[str, Any]) -> None:
    with pytest.raises(TrainError, match=f"{next(iter(settings))} = "):
        TrainConfig(**settings)


def test_the_library_takes_the_same_metric_and_the_same_settings(
    rare: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = images.load(rare, size=16, cache_dir=tmp_path)
    model = randomise(Residual())
    settings: dict[str, Any] = {"engine": make_engine("32"), "batch_size": 8}
    with caplog.at_level(logging.INFO):
        pe.fit(model, data, epochs=1, pretrained=False, balance="sampler", focal=2.0, **settings)
    assert "judged by balanced_accuracy" in caplog.text
    pruning = pe.prune(
        model, data, balance="loss", max_steps=1, max_drop=100, polish=0, epochs=1, **settings
    )
    steps = [step for step, _ in pruning]
    assert steps[0].metric_after == steps[0].metrics["balanced_accuracy"]
    metrics = pe.fit(model, data, epochs=1, metric="recall@alarms=30%", **settings).val
    assert metrics is not None
    assert "recall@alarms=0.3" in metrics.values
    measured = pe.evaluate(model, data.judged_by("alarms@recall=0.77").test)
    assert 0 <= measured.value("alarms@recall=0.77") <= 1
    with pytest.raises(ValueError, match=r"balance.* finetune= say the same"):
        next(pe.prune(model, data, balance="loss", finetune=TrainConfig()))


def test_names_that_don_t_say_what_is_sound_have_no_metrics_of_damage(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "images", 20, 16)
    (root / "sound").rename(root / "spall")
    with pytest.raises(PrunedgeError, match=r"\(crack, spall\) don't say which") as refused:
        execute.train(small_recipe(root, metric="damage-f1"), tmp_path / "run")
    assert "metric='accuracy'" in str(refused.value)
    assert not (tmp_path / "run").exists()
    data = images.load(root, size=16, cache_dir=tmp_path / "cache")
    with pytest.raises(PrunedgeError, match="damage_f1 is not defined"):
        pe.fit(randomise(Residual()), data, metric="damage-f1")


def test_a_class_without_validation_images_is_one_error_before_the_training(
    rare: Path, tmp_path: Path
) -> None:
    lines = ["path,label,split"]
    for label in ("crack", "sound"):
        for index in range(RARE):
            side = ("train", "test", "train")[index % 3]
            if label == "sound" and index > 8:
                side = "val"
            lines.append(f"{rare / label / f'{index:03d}.png'},{label},{side}")
    (tmp_path / "list.csv").write_text("\n".join(lines), "utf-8")
    recipe = small_recipe(tmp_path / "list.csv", metric="alarms@recall=0.9")
    with pytest.raises(PrunedgeError, match="validation split has no image of 'crack'") as refused:
        execute.train(recipe, tmp_path / "run")
    assert "use metric='accuracy' or metric='f1', or give it" in str(refused.value)


def said(*words: object) -> str:
    """The one line of a command that is refused."""
    done = prunedge(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stderr.split())


def test_the_command_says_what_can_t_be_balanced(rare: Path, tmp_path: Path) -> None:
    several = write_several(tmp_path / "several", 16)
    out = ("--model", "test_resnet", "--size", "16", "--out", tmp_path / "run")
    found = said("train", several, "--task", "multilabel", "--balance", "sampler", *out)
    assert "--balance sampler can't be had with --task multilabel" in found
    assert found.rstrip().endswith(": use --balance loss")
    found = said("train", several, "--task", "regression", "--balance", "loss", *out)
    assert "has no classes" in found
    assert found.rstrip().endswith(": leave it out")
    found = said("train", rare, "--metric", "recall@alarms=1.5", *out)
    assert "recall@alarms has no level '1.5' (--metric recall@alarms=1.5)" in found
    assert "as recall@alarms=0.05" in found
    assert "--balance" in said("train", rare, "--balance", "rare", *out)
    assert not (tmp_path / "run").exists()


def test_check_says_how_rare_a_class_is_and_what_to_do(rare: Path) -> None:
    done = prunedge("check", rare, "--size", "16")
    found = " ".join(done.stdout.split())
    assert "balance 8" in found
    assert "of the training images sound; rarest crack: train " in found
    assert (
        "train with --balance sampler and choose by --metric balanced_accuracy or recall@" in found
    )
    report = json.loads(prunedge("check", rare, "--size", "16", "--json").stdout)
    assert any("--balance sampler" in problem for problem in report["problems"])


def test_labels_of_several_kinds_get_weights_from_images_to_the_run(tmp_path: Path) -> None:
    several = write_several(tmp_path / "several", 48, size=16).parent
    recipe = small_recipe(several, task="multilabel", balance="loss", focal=2.0)
    recipe = recipe.with_values(model="test_resnet", train_epochs=1)
    run = execute.train(recipe, tmp_path / "run")
    assert run.config.task.metric == "map"
    assert (run.config.train.balance, run.config.train.focal) == ("loss", 2.0)


def test_the_trials_of_a_study_are_judged_as_runs_are(rare: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "data": str(rare),
        "model": "tests.runs.test_run:small",
        "weights": "none",
        "size": 16,
        "train_epochs": 4,
        "seed": 3,
        "epochs": 1,
        "polish": 0,
        "max_steps": 1,
        "max_drop": 100.0,
        "batch_size": 8,
        "precision": "32",
        "balance": ["sampler", "loss"],
    }
    study = create(tmp_path / "study", Grid(values))
    for work in study.work:
        study.perform(work)
    rows = collect(study)
    assert {row["metric"] for row in rows} == {"balanced_accuracy"}
    assert {row["balance"] for row in rows} == {"sampler", "loss"}
