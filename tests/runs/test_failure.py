"""A run that ended in an error says so to whoever looks at it later."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.errors import MachineError, RunError, TrainError
from prunedge.report import write_report
from prunedge.report.text import pruned
from prunedge.runs import execute
from prunedge.runs.run import Run, open_run
from tests.small_runs import small_recipe


def test_a_training_that_ended_in_an_error_is_no_run_to_wait_for(
    tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match="the loss became"):
        execute.train(small_recipe(tiny_data, lr=1e9), tmp_path / "run")
    with pytest.raises(RunError, match=r"it ended in an error: the loss became .* begin anew"):
        open_run(tmp_path / "run").best()


def test_a_pruning_that_ended_in_an_error_says_so_until_it_goes_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"

    def fail(*_: object) -> None:
        raise TrainError("no step today", remedy="wait")

    with monkeypatch.context() as today:
        today.setattr(execute, "_test", fail)
        with pytest.raises(TrainError, match="no step today"):
            execute.prune(small_recipe(tiny_data), path)
    told = "the run ended in an error: no step today: wait"
    assert f"mind: {told}" in pruned(open_run(path))
    assert told in write_report(open_run(path)).read_text(encoding="utf-8")

    run = execute.resume(path)
    assert run.failure() is None
    assert told not in pruned(run)


def test_the_machine_s_trouble_says_nothing_of_the_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Run, *_: object) -> None:
        raise MachineError("the disk is full", remedy="free some")

    monkeypatch.setattr(Run, "finish", fail)
    with pytest.raises(MachineError):
        execute.prune(small_recipe(tiny_data), tmp_path / "run")
    assert open_run(tmp_path / "run").failure() is None
