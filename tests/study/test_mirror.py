"""A study at a URL: two machines, each with a mirror of its own, and what one began the other ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.errors import RunError
from prunedge.pruning.steps import Step
from prunedge.runs.callbacks import Callbacks
from prunedge.study import Grid, collect, create, open_study
from prunedge.study.results import Row


def without_seconds(rows: list[Row]) -> list[Row]:
    return [
        {key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows
    ]


def test_another_machine_goes_on_where_the_first_was_lost(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, grid = f"file://{tmp_path}/store/study", Grid({**values, "criterion": "weight-l2"})
    alone = create(tmp_path / "alone", grid)
    for one in alone.work:
        alone.perform(one)
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "machine-a"))
    first = create(url, grid)
    (start, trial) = first.work
    first.perform(start)

    def lost(step: Step) -> None:
        if step.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.perform(trial, Callbacks(on_step=lost))
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "machine-b"))
    second = open_study(url)
    assert second.path != first.path
    assert second.counts().done == (start.name,)
    assert second.counts().left == (trial.name,)
    begun: list[int] = []
    second.perform(trial, Callbacks(on_step=lambda step: begun.append(step.index)))
    assert begun == [2]  # steps 0 and 1 came from the first machine
    assert without_seconds(collect(second)) == without_seconds(collect(alone))
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "machine-c"))
    third = open_study(url)
    assert third.counts().done == (start.name, trial.name)
    assert without_seconds(collect(third)) == without_seconds(collect(alone))
    assert not list(third.path.rglob("model.safetensors"))  # the table needs no weights


def test_urls_of_nothing_are_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path))
    with pytest.raises(RunError, match="no file system for this URL"):
        open_study("nowhere://bucket/study")
    with pytest.raises(RunError, match=r"not a study's folder .*file:///nowhere/study"):
        open_study("file:///nowhere/study")
