"""The learning rate of a run: found once, the same after a kill, and that of the pruning steps and of runs that go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunedge.cli.show import show
from prunedge.config import RunConfig
from prunedge.data import Split
from prunedge.errors import PrunedgeError, TrainError
from prunedge.pruning.steps import Step
from prunedge.report import write_report
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.callbacks import Callbacks
from prunedge.runs.export import write_bundle
from prunedge.runs.onward import config_from_run
from prunedge.runs.run import open_run
from prunedge.runs.training import kept_rate, with_rate
from prunedge.train import Rate, TrainConfig
from tests.small_models import Residual
from tests.small_runs import essence


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights as self-supervised training leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Residual()
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "ssl.pth"
    torch.save({"state_dict": {**state, "projector.weight": torch.ones(2, 2)}}, file)
    return file


def recipe(data: Path, weights: Path | str, **more: object) -> RunConfig:
    values = {
        "data": str(data),
        "model": "tests.runs.test_run:small",
        "weights": str(weights),
        "size": 16,
        "train_epochs": 8,
        "step_ratio": 0.3,
        "max_drop": 60,
        "max_steps": 1,
        "batch_size": 8,
        "precision": "32",
        **more,
    }
    return RunConfig.make("test", **values)


@pytest.fixture(scope="module")
def trained(pretrained: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rates") / "run"
    said: list[str] = []
    execute.train(recipe(tiny_data, pretrained), out, Callbacks(on_line=said.append))
    assert any("1 of projector" in line or "projector" in line for line in said)
    assert any("learning rate" in line for line in said)
    return out


def test_a_training_that_was_cut_off_goes_on_with_the_rate_that_was_found(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    (cut / "history.jsonl").unlink()
    shutil.rmtree(cut / "checkpoints")
    monkeypatch.setattr(
        "prunedge.runs.training.transfer_rate",
        lambda *args, **kwargs: pytest.fail("found a second time"),
    )
    execute.resume_training(cut)
    before, after = (open_run(path).load(0).state_dict() for path in (trained, cut))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_training_cut_off_before_the_rate_was_known_finds_the_same(
    trained: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    for name in ("history.jsonl", "lr.json"):
        (cut / name).unlink()
    shutil.rmtree(cut / "checkpoints")
    execute.resume_training(cut)
    assert json.loads((cut / "lr.json").read_text()) == json.loads(
        (trained / "lr.json").read_text()
    )


def test_a_training_that_patience_ended_says_so(
    pretrained: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    config = recipe(tiny_data, pretrained, train_epochs=40, patience=1, lr=0.05)
    run = execute.train(config, tmp_path / "run", Callbacks(on_line=said.append))
    record = run.read("patience.json")
    assert record["epochs"] == record["best"] + 1 < 40
    line = (
        f"the training ended after {record['epochs']} of 40 epochs: none after epoch "
        f"{record['best']} was better (patience=1)"
    )
    assert said[-1] == line
    assert run.summary()["patience"] == record
    show(run.path)
    assert line in capsys.readouterr().out
    assert line in write_report(run).read_text("utf-8")


def test_a_training_that_had_all_its_epochs_says_nothing_of_patience(trained: Path) -> None:
    run = open_run(trained)
    assert run.read("patience.json") is None
    assert run.summary()["patience"] is None


def rates_of_steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The peak learning rates that pruning steps are fine-tuned with from now on."""
    import prunedge.pruning.task_trainer

    seen: list[float] = []
    fit = prunedge.pruning.task_trainer.fit

    def watched(
        net: torch.nn.Module, train: Split, *, config: TrainConfig, **how: object
    ) -> object:
        seen.append(config.lr)
        return fit(net, train, config=config, **how)

    monkeypatch.setattr(prunedge.pruning.task_trainer, "fit", watched)
    return seen


def test_pruning_steps_and_runs_that_go_on_take_over_the_rate(
    trained: Path,
    pretrained: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Rate.from_json(open_run(trained).read("lr.json"))
    assert (found.curve and found.lr != 0.01) or found.why
    seen = rates_of_steps(monkeypatch)
    start = {"start": str(trained), "train_epochs": 0}
    run = execute.prune(recipe(tiny_data, pretrained, **start), tmp_path / "on")
    assert set(seen) == {found.lr}
    assert Rate.from_json(run.read("lr.json")) == found
    seen.clear()
    execute.prune(recipe(tiny_data, pretrained, **start, finetune_lr=0.004), tmp_path / "own")
    assert set(seen) == {0.004}


def test_a_rate_that_is_given_is_that_of_the_steps_too(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = rates_of_steps(monkeypatch)
    run = execute.prune(recipe(tiny_data, "none", lr=0.03), tmp_path / "given")
    assert set(seen) == {0.03}
    assert run.read("lr.json")["why"] == "as it was asked for"


def test_random_weights_keep_the_usual_rate(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = rates_of_steps(monkeypatch)
    run = execute.prune(recipe(tiny_data, "none"), tmp_path / "random")
    assert run.read("lr.json")["lr"] == 0.02
    assert set(seen) == {0.02}


def test_a_run_of_a_model_with_one_answer_is_not_pruned(tiny_data: Path, tmp_path: Path) -> None:
    run = execute.train(recipe(tiny_data, "none", train_epochs=0), tmp_path / "untrained")
    step = run.steps()[0]
    assert step.only_answer is not None
    assert step.majority == pytest.approx(step.metric_after, abs=0.2)
    with pytest.raises(TrainError, match=r"answers '.*' for every validation image"):
        execute.prune(
            recipe(tiny_data, "none", start=str(run.path), train_epochs=0), tmp_path / "on"
        )
    assert not (tmp_path / "on").exists()
    with pytest.raises(TrainError, match="nothing in it to prune"):
        execute.prune(recipe(tiny_data, "none", train_epochs=0), tmp_path / "whole")


def test_a_run_whose_model_has_one_answer_has_ended_and_says_so(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TrainError):
        execute.prune(recipe(tiny_data, "none", train_epochs=0), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.has_ended()
    assert run.stopped() == "there is nothing to prune in a model with one answer"

    text = pruned(run)
    assert "for every validation image" in text
    assert "stopped: there is nothing to prune" in text
    assert "prunedge export" not in text
    page = write_report(run).read_text("utf-8")
    assert "there is nothing to prune in a model with one answer" in page
    assert "has not ended" not in page

    write_bundle(run, tmp_path / "bundle")
    assert "for every validation image" in caplog.text
    with pytest.raises(TrainError, match="for every validation image"):
        execute.resume(run.path)


def test_a_run_that_learns_otherwise_ends_the_same_when_it_is_cut_off(
    pretrained: Path, tiny_data: Path, tmp_path: Path
) -> None:
    class CutOff(Exception):
        pass

    def cut(step: Step) -> None:
        raise CutOff

    config = recipe(
        tiny_data,
        pretrained,
        optimizer="adamw",
        lr=0.01,
        patience=4,
        freeze=1,
        layer_decay=0.7,
        ema=0.9,
        distill=0.3,
        max_steps=2,
        polish=1,
    )
    whole = tmp_path / "whole"
    said: list[str] = []
    execute.prune(config, whole, Callbacks(on_line=said.append))
    assert any(line.startswith("frozen until pruning begins: stem (of ") for line in said), said
    found = tmp_path / "cut"
    with pytest.raises(CutOff):
        execute.prune(config, found, Callbacks(on_step=cut))
    with pytest.raises(CutOff):
        execute.resume(found, Callbacks(on_step=cut))
    execute.resume(found)
    assert essence(found) == essence(whole)
    weights = open_run(whole).load().state_dict()
    for name, tensor in open_run(found).load().state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_run_that_goes_on_with_another_optimizer_is_told_its_rate(trained: Path) -> None:
    source = open_run(trained)
    with_sgd = config_from_run(trained, {})
    assert with_rate(with_sgd, source, TrainConfig()).recover.lr == kept_rate(source).lr  # type: ignore[union-attr]
    with pytest.raises(PrunedgeError, match="learned by sgd, whose rate is none for another"):
        config_from_run(trained, {"optimizer": "adamw"})
    with_adamw = config_from_run(trained, {"optimizer": "adamw", "finetune_lr": 0.002})
    how = TrainConfig(optimizer="adamw")
    assert with_rate(with_adamw, source, how).recover.lr == 0.002


def test_a_cut_model_with_temporary_norms_gets_a_rate_that_brings_it_back(trained: Path) -> None:
    source = open_run(trained)
    config = config_from_run(trained, {})
    found = kept_rate(source)
    assert found is not None
    how = TrainConfig(optimizer="adamw", temporary_norms=True)
    rate = replace(found, optimizer="adamw", lr=1e-4)
    source.write("lr.json", rate.to_json())
    assert with_rate(config, source, how).recover.lr == 0.001
    assert with_rate(config, source, replace(how, temporary_norms=False)).recover.lr == 1e-4
    source.write("lr.json", found.to_json())


def test_a_run_goes_on_with_images_as_its_model_learned_them(trained: Path) -> None:
    assert config_from_run(trained, {"image_norm": "imagenet"}).data.image_norm == "imagenet"
    with pytest.raises(PrunedgeError, match="learned from images normalised by imagenet"):
        config_from_run(trained, {"image_norm": "half"})


@pytest.mark.parametrize("setting", [{"freeze": 1}, {"patience": 2}])
def test_a_model_that_is_trained_already_has_no_first_training(
    trained: Path, setting: dict[str, int]
) -> None:
    with pytest.raises(PrunedgeError, match="trained already"):
        config_from_run(trained, setting)


def test_more_frozen_blocks_than_there_are_make_no_folder(
    pretrained: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match="freeze=9 leaves nothing to train: the model has"):
        execute.train(recipe(tiny_data, pretrained, freeze=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()
