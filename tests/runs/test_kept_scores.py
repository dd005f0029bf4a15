"""Scores that a run kept are used for what they are scores of, and for nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import prunedge as pe
from prunedge import data as images
from prunedge.config import RunConfig
from prunedge.errors import RunError
from prunedge.importance import CRITERIA
from prunedge.pruning import task_trainer
from prunedge.pruning.steps import Step
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.new import write_config
from prunedge.runs.run import open_run
from prunedge.surgery import restore_model, save_model
from prunedge.train import make_engine
from prunedge.utils.tensor_files import texts_of
from tests.tampering import edited
from tests.tiny_images import write_tiny

KEPT, PASS = "while training", "in a pass"


@pytest.fixture(scope="module")
def recipe(tiny_data: Path) -> RunConfig:
    return RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=2,
        precision="32",
        step_ratio=0.4,
        max_drop=99.0,
        max_steps=1,
        epochs=1,
        polish=0,
        batch_size=8,
        augment="flips",
    )


pytestmark = pytest.mark.usefixtures("own_criteria")


@pytest.fixture(scope="module")
def start(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gathered `taylor` while it was trained."""
    out = tmp_path_factory.mktemp("start") / "run"
    execute.train(recipe, out)
    return out


def pruned(recipe: RunConfig, start: Path, out: Path, **more: Any) -> pe.Plan:
    """What the first step from there keeps."""
    values = {**recipe.flat(), "start": str(start), "train_epochs": 0, "cost": "channels", **more}
    return execute.prune(RunConfig.make("test", **values), out).state(1).plan


def scored(out: Path, step: int = 1) -> str:
    return open_run(out).steps()[step].scored


@pytest.mark.slow
def test_each_criterion_ranks_the_start_itself(
    recipe: RunConfig, start: Path, tmp_path: Path
) -> None:
    found = {
        name: pruned(recipe, start, tmp_path / name, criterion=name) for name in sorted(CRITERIA)
    }
    # Not all of them: weight-l1 and weight-l2, taylor and fisher may well agree on so small a model.
    apart = ("taylor", "random", "weight-l2", "activation-mean", "bn-scale")
    assert len({found[name].to_json() for name in apart}) == len(apart)
    run = open_run(start)
    data = images.load(run.config.data.path, **run.config.image_settings())
    for name in sorted(CRITERIA.keys() - {"taylor"}):
        model = run.load(0)
        graph = pe.trace(model, data.example())
        scores = pe.rank(model, graph, data.train, name, seed=1, engine=make_engine("32"))
        assert pe.choose(graph, scores, remove=0.4) == found[name], name
        assert scored(tmp_path / name) == PASS
    assert scored(tmp_path / "taylor") == KEPT
    assert pe.choose(graph, run.state(0).scores, remove=0.4) == found["taylor"]


def test_the_starts_own_criterion_takes_no_pass(
    recipe: RunConfig, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("ranked anew")

    monkeypatch.setattr(task_trainer, "rank", never)
    pruned(recipe, start, tmp_path / "again", max_steps=3, seed=0)
    # What shapes the steps, and not the scores.
    other = {
        "epochs": 2,
        "step_ratio": 0.2,
        "finetune_lr": 0.001,
        "metric": "f1",
        "normalise": "mean",
        "distill": 0.5,
        "max_steps": 2,
    }
    pruned(recipe, start, tmp_path / "other", **other)
    with pytest.raises(AssertionError, match="ranked anew"):
        pruned(recipe, start, tmp_path / "fisher", criterion="fisher")


@pytest.mark.parametrize(
    "more",
    [{"augment": "none"}, {"batch_size": 16}, {"size": 24}],
    ids=lambda more: next(iter(more)),
)
def test_images_that_come_otherwise_are_ranked_on(
    recipe: RunConfig, start: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    pruned(recipe, start, tmp_path / "out", **more)
    assert scored(tmp_path / "out") == PASS


def test_other_images_are_ranked_on(recipe: RunConfig, start: Path, tmp_path: Path) -> None:
    others = write_tiny(tmp_path / "others", seed=9)
    for name, more in (("same", {}), ("seed", {"seed": 1}), ("folds", {"folds": 4, "fold": 1})):
        pruned(recipe, start, tmp_path / name, data=str(others), **more)
        assert scored(tmp_path / name) == PASS


def test_two_seeds_draw_two_random_rankings(recipe: RunConfig, start: Path, tmp_path: Path) -> None:
    """Of images that come split, so that the seed decides nothing of that."""
    data = images.load(recipe.data.path, **recipe.image_settings())
    rows = [
        f"{sample.path},{data.classes[sample.target]},{side}"
        for side, split in data.splits().items()
        for sample in split.samples
    ]
    split = tmp_path / "split.csv"
    split.write_text("\n".join(["path,label,split", *rows]) + "\n")
    plans = [
        pruned(recipe, start, tmp_path / str(seed), data=str(split), criterion="random", seed=seed)
        for seed in (0, 1)
    ]
    assert plans[0] != plans[1]


def test_scores_of_another_model_are_not_used(
    recipe: RunConfig, start: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(start, tmp_path / "start"))
    file = other / "checkpoints" / "step-000" / "model.safetensors"
    model = restore_model(open_run(start).load(0), file)
    with torch.no_grad():
        model.head.weight.add_(0.5)
    file.unlink()
    with edited(other):
        save_model(model, file)
    pruned(recipe, other, tmp_path / "out")
    assert scored(tmp_path / "out") == PASS


@pytest.mark.parametrize(
    "about",
    [
        None,
        {"criterion": "taylor", "examples": "56"},
        {"criterion": "taylor", "provenance": "[1]"},
        {"x": "y"},
    ],
)
def test_scores_that_do_not_say_what_they_are_are_refused(
    start: Path, tmp_path: Path, about: dict[str, str] | None
) -> None:
    other = Path(shutil.copytree(start, tmp_path / "start"))
    file = other / "checkpoints" / "step-000" / "scores.safetensors"
    with edited(other):
        save_file(load_file(file), file, about)
    with pytest.raises(
        RunError, match=r"it does not say what the scores are of .*scores\.safetensors"
    ):
        open_run(other).state(0)


def test_damaged_scores_are_one_line(start: Path, tmp_path: Path) -> None:
    other = shutil.copytree(start, tmp_path / "start")
    (other / "checkpoints" / "step-000" / "scores.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(RunError, match=r"scores\.safetensors"):
        open_run(other).state(0)


def power(exponent: float) -> Any:
    return lambda change: change.abs() ** exponent


def test_another_function_under_the_same_name_ranks_anew(recipe: RunConfig, tmp_path: Path) -> None:
    pe.criterion("mine", reads="gradients")(power(1))
    execute.train(recipe.with_values(**{"criterion": "mine"}), tmp_path / "start")
    pruned(recipe, tmp_path / "start", tmp_path / "same", criterion="mine", step_ratio=0.1)
    pe.criterion("mine", reads="gradients")(power(-1))
    reverse = pruned(
        recipe, tmp_path / "start", tmp_path / "other", criterion="mine", step_ratio=0.1
    )
    assert (scored(tmp_path / "same"), scored(tmp_path / "other")) == (KEPT, PASS)
    assert reverse != open_run(tmp_path / "same").state(1).plan


def test_a_function_that_cannot_be_told_ranks_in_a_pass_in_every_step(
    recipe: RunConfig, tmp_path: Path
) -> None:
    held = object()
    pe.criterion("mine", reads="gradients")(lambda change: change.abs() if held else change)
    execute.prune(recipe.with_values(**{"criterion": "mine", "max_steps": 2}), tmp_path / "out")
    assert [scored(tmp_path / "out", step) for step in (1, 2)] == [PASS, PASS]


def test_scores_of_a_distilled_loss_are_not_those_of_the_plain_one(
    recipe: RunConfig, start: Path, tmp_path: Path
) -> None:
    pruned(recipe, start, tmp_path / "distilled", distill=0.5, max_steps=2)
    assert [scored(tmp_path / "distilled", step) for step in (1, 2)] == [KEPT, KEPT]
    pruned(recipe, start, tmp_path / "plain")
    for source, expected in (("distilled", PASS), ("plain", KEPT)):
        for distill in (0.0, 0.5):
            out = tmp_path / f"{source}-{distill}"
            pruned(recipe, tmp_path / source, out, distill=distill)
            assert scored(out) == expected


@pytest.mark.parametrize("sparsity", ["growing", "bn-l1"])
def test_penalties_change_the_weights_and_not_the_scores_of_them(
    recipe: RunConfig, tmp_path: Path, sparsity: str
) -> None:
    execute.prune(recipe.with_values(**{"sparsity": sparsity, "max_steps": 2}), tmp_path / "out")
    assert [scored(tmp_path / "out", step) for step in (1, 2)] == [KEPT, KEPT]
    pruned(recipe, tmp_path / "out", tmp_path / "next")
    assert scored(tmp_path / "next") == KEPT


class Cut(Exception):
    """The machine goes off."""


def test_a_run_that_goes_on_by_another_criterion_ranks_by_it(
    recipe: RunConfig, tmp_path: Path
) -> None:
    def cut(step: Step) -> None:
        raise Cut

    out = tmp_path / "out"
    with pytest.raises(Cut):
        execute.prune(recipe, out, Callbacks(on_step=cut))
    write_config(open_run(out), recipe.with_values(**{"criterion": "fisher"}))
    execute.resume(out)
    assert scored(out) == PASS


def test_what_a_training_gathered_by_another_criterion_before_it_was_cut_off_is_left(
    recipe: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.runs import checkpoint

    def cut(done: int, total: int, what: str) -> None:
        if what.startswith("epoch 2/2"):
            raise Cut

    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    out = tmp_path / "out"
    with pytest.raises(Cut):
        execute.train(recipe, out, Callbacks(progress=cut))
    write_config(open_run(out), recipe.with_values(**{"criterion": "fisher"}))
    execute.resume_training(out)
    scores = open_run(out).state(0).scores
    # None where the first epoch was the best one.
    assert scores is None or scores.criterion == "fisher"


def test_what_is_kept_says_what_it_is(start: Path) -> None:
    scores = open_run(start).state(0).scores
    assert scores is not None
    assert scores.provenance is not None
    with safe_open(start / "checkpoints" / "step-000" / "scores.safetensors", "pt") as opened:
        about = json.loads(texts_of(opened.metadata())["provenance"])
    assert about == vars(scores.provenance)
    assert about["criterion"].startswith("taylor ")
    assert json.loads(about["settings"])["augment"] == "flips"


def test_pruning_without_a_run_ranks_by_what_was_asked(recipe: RunConfig, start: Path) -> None:
    run = open_run(start)
    data = images.load(run.config.data.path, **run.config.image_settings())
    kept = {}
    for name in ("taylor", "random", "weight-l2"):
        steps = list(
            pe.prune(
                run.load(0),
                data,
                criterion=name,
                step_ratio=0.4,
                max_steps=1,
                max_drop=99,
                engine=make_engine("32"),
            )
        )
        assert steps[1][0].scored == PASS
        kept[name] = (
            tuple(steps[1][0].kept.items()),
            tuple(one.sum().item() for one in steps[1][1].parameters()),
        )
    assert len(set(kept.values())) == 3
