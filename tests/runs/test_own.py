"""A run folder for a training of the user's own, from Python."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import prunedge as pe
from prunedge import data as images
from prunedge.errors import ConfigError, PrunedgeError, RunError
from prunedge.importance import weights_digest
from tests.own_trainings import Training
from tests.refusals import refusal


def made(out: Path | None, training: Training | None = None, **changes: Any) -> list[Any]:
    training = training or Training()
    arguments = {**training.arguments(), **changes}
    return list(pe.prune(training.model, training.example, out=out, **arguments))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has ended; nothing here changes it."""
    out = tmp_path_factory.mktemp("own") / "run"
    made(out)
    return out


def test_a_run_makes_the_steps_that_are_made_in_memory(run: Path) -> None:
    steps = pe.open_run(run).steps()
    in_memory = made(None)
    assert [step.kept for step in steps] == [step.kept for step, _ in in_memory]
    assert [step.metrics for step in steps] == [step.metrics for step, _ in in_memory]
    assert len(steps) == 4
    best = pe.open_run(run).best()
    loaded = pe.load(run, model=Training(seed=7).model)
    assert weights_digest(loaded) == weights_digest(in_memory[best.index][1])


def test_the_same_call_gives_the_steps_again_and_makes_none(run: Path) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained")

    wanted = pe.open_run(run).steps()
    again = made(run, fit=lambda model, epochs: never())
    assert [step for step, _ in again] == [step for step in wanted if step.accepted]
    assert all(sum(x.numel() for x in model.parameters()) == step.params for step, model in again)


def test_fit_gets_a_folder_for_each_fine_tuning_and_its_seed(run: Path) -> None:
    folders = sorted((run / "fit").iterdir())
    seeds = [(folder / "seed.txt").read_text() for folder in folders]
    assert len(folders) == len(set(seeds)) >= 3
    assert all(folder.name.startswith(f"{seed}-1-") for folder, seed in zip(folders, seeds))  # noqa: B905


def test_what_ends_a_run_may_differ_and_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = made(out, max_steps=1)
    more = made(out, max_steps=2)
    assert [step for step, _ in more[: len(first)]] == [step for step, _ in first]
    assert max(step.number for step, _ in more) == 2
    assert pe.open_run(out).stopped() == "2 steps done (max_steps=)"
    assert pe.open_run(out).resumptions()[0]["changes"] == {"max_steps": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_ratio": 0.6}, "step_ratio= can't change in a run that has begun"),
        ({"metric": "other"}, "the run watches mae .*asked for other"),
        ({"higher_is_better": True}, "lower is better.*higher is better"),
        ({"max_steps": 1}, "2 steps are done already"),
        ({"batch_size": 3}, "belongs to prunedge's own training"),
    ],
)
def test_what_a_run_can_t_follow_is_one_line(
    run: Path, changes: dict[str, Any], message: str
) -> None:
    before = (run / "config.toml").read_bytes()
    with pytest.raises(PrunedgeError, match=message) as caught:
        made(run, **changes)
    assert "\n" not in str(caught.value)
    assert (run / "config.toml").read_bytes() == before


def test_another_model_is_refused_and_other_weights_are_told(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wider = Training()
    wider.model.head = torch.nn.Linear(8, 2)
    with pytest.raises(RunError, match="another than the one that this run began with"):
        made(run, wider)
    other = Training()
    with torch.no_grad():
        other.model.head.bias.add_(1)
    with caplog.at_level(logging.WARNING):
        made(run, other)
    assert "the run goes on with its own" in caplog.text


def test_a_folder_that_holds_something_else_stays_as_it_is(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        made(tmp_path)
    data = images.load(tiny_data, size=16)
    with pytest.raises(ConfigError, match="`prunedge prune` makes a run folder"):
        next(pe.prune(Training().model, data, out=tmp_path / "run"))
    failing = tmp_path / "failing"
    with pytest.raises(PrunedgeError, match="gave no 'psnr'"):
        made(failing, metric="psnr")
    assert not failing.exists()


def test_an_error_of_a_later_step_is_noted_and_the_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    failing = Training()
    calls = []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        calls.append(model)
        figures = Training.evaluate(failing, model)
        return figures if len(calls) < 4 else {"other": 1.0}

    with pytest.raises(PrunedgeError, match="gave no 'mae'"):
        made(out, failing, evaluate=evaluate)
    assert "gave no 'mae'" in str(pe.open_run(out).failure())
    made(out)
    assert pe.open_run(out).failure() is None
    assert pe.open_run(out).has_ended()


def test_without_a_name_the_command_line_says_what_goes_on(run: Path, tmp_path: Path) -> None:
    assert "--trainer package.module:object" in refusal("prune", "--resume", run)
    assert "came from Python" in refusal("export", run, "--out", tmp_path / "exported")
    with pytest.raises(RunError, match=r"model=\.\.\."):
        pe.load(run)
