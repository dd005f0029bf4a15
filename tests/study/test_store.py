"""Whole studies on tiny images: what is done stays done, and what is cut off goes on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock
from pyarrow import parquet

from prunedge.errors import RunError
from prunedge.runs.run import open_run
from prunedge.study import Grid, collect, create, open_study, presets
from prunedge.study.engines.local import divided, run_local
from tests.commands import Started, prunedge


def figures(path: Path) -> dict[str, list[dict[str, object]]]:
    """The history of each trial, without seconds."""
    study = open_study(path)
    return {
        trial.name: [
            {k: v for k, v in step.to_json().items() if not k.startswith("seconds")}
            for step in open_run(study.folder(trial)).steps()
        ]
        for trial in study.trials
    }


def write(file: Path, values: dict[str, object]) -> Path:
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[Path, Path]:
    """A study of two criteria through the real command, and its file."""
    from tests.study.conftest import VALUES

    folder = tmp_path_factory.mktemp("study")
    file = write(
        folder / "study.toml",
        {"data": str(tiny_data), **VALUES, "criterion": ["weight-l2", "random"], "bench": 4},
    )
    done = prunedge("study", file, "--out", folder / "out", "--workers", 2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 trials are done" in done.stdout
    assert "weight-l2" in done.stdout
    return folder / "out", file


@pytest.mark.slow
def test_a_start_with_one_answer_has_a_remedy_that_a_study_can_carry_out(
    tiny_data: Path, tmp_path: Path
) -> None:
    from tests.study.conftest import VALUES

    values = {"data": str(tiny_data), **VALUES, "train_epochs": 0, "criterion": ["random", "apoz"]}
    file = write(tmp_path / "study.toml", values)
    done = prunedge("study", file, "--out", tmp_path / "out", "--workers", 2, "--threads", 1)
    said = " ".join(done.stderr.split())
    assert done.returncode != 0
    assert "2 trials failed: " in said
    assert "begin the study anew, with another --out and `train_epochs = 10`" in said
    assert "give the same command again" not in said
    assert "not from" not in said


def test_the_table_holds_every_step_of_every_trial(whole: tuple[Path, Path]) -> None:
    study = open_study(whole[0])
    rows = collect(study)
    assert len(study.starts) == 1
    # What a trial was asked for, also where a step has a figure of that name.
    for row in rows:
        trial = next(trial for trial in study.trials if trial.name == row["trial"])
        assert row["epochs"] == trial.config.recover.epochs
        assert row["start"] == study.starts[0].name
    assert all((row["step_epochs"] == 0) == (row["index"] == 0) for row in rows)
    assert {row["trial"] for row in rows} == {trial.name for trial in study.trials}
    assert [row["index"] for row in rows] == [0, 1, 2] * 2
    assert all(row["is_done"] for row in rows)
    assert all(row["latency_ms_best"] > 0 and row["latency_ms_baseline"] > 0 for row in rows)
    with (whole[0] / "study.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [float(row["metric_after"]) for row in written] == [row["metric_after"] for row in rows]
    columns = {"val_accuracy", "val_f1", "val_loss", "val_accuracy_before", "test_f1_best"}
    assert columns <= written[0].keys()
    assert "metrics" not in written[0]
    assert [float(row["val_accuracy"]) for row in written] == [row["metric_after"] for row in rows]
    table = parquet.read_table(whole[0] / "study.parquet")
    assert table.num_rows == len(rows)
    assert table["macs"].to_pylist() == [row["macs"] for row in rows]
    assert json.loads(table["kept"].to_pylist()[2]) == rows[2]["kept"]


def test_every_criterion_ranks_the_starting_model_itself(
    values: dict[str, object], tmp_path: Path
) -> None:
    criteria = ["taylor", "weight-l2", "random", "activation-mean"]
    values["cost"] = "channels"
    study = create(
        tmp_path / "out",
        presets.criteria([str(values.pop("data"))], [str(values.pop("model"))], criteria, values),
    )
    for one in study.work:
        study.perform(one)
    rows = [row for row in collect(study) if row["index"] == 1]
    assert {row["criterion"]: row["scored"] for row in rows} == dict.fromkeys(
        criteria, "in a pass"
    ) | {"taylor": "while training"}
    plans = {
        (study.folder(trial) / "checkpoints" / "step-001" / "plan.json").read_text()
        for trial in study.trials
    }
    assert len(plans) == 4
    assert (
        len({json.dumps(row["kept"]) for row in rows}) > 1
    )  # layers, too, are compared by each in its own way


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_a_new_value_runs_alone(
    whole: tuple[Path, Path],
) -> None:
    out, file = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("history.jsonl")}
    write(file, {**_values(file), "criterion": ["weight-l2", "random", "weight-l1"]})
    done = prunedge("study", file, "--out", out, "--json", "--workers", 1)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["counts"]["done"]) == 4
    assert [line["values"]["criterion"] for line in found["summary"]] == [
        "weight-l2",
        "random",
        "weight-l1",
    ]
    after = {path: path.stat().st_mtime_ns for path in out.rglob("history.jsonl")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1
    status = json.loads(prunedge("study", "status", out, "--json").stdout)
    assert len(status["done"]) == 4
    assert status["seconds_left"] == 0


def _values(file: Path) -> dict[str, object]:
    grid = Grid.from_toml(file)
    return {**grid.values, "bench": grid.bench}


def test_a_killed_study_goes_on_to_the_same_table(whole: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "killed"
    file = write(
        tmp_path / "study.toml", {**_values(whole[1]), "criterion": ["weight-l2", "random"]}
    )
    process = Started("study", file, "--out", out, "--workers", 2, "--threads", 1)
    while not list(out.glob("trials/*/history.jsonl")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = prunedge("study", file, "--out", out, "--workers", 2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    wanted, found = figures(whole[0]), figures(out)
    assert found == {name: wanted[name] for name in found}
    assert len(found) == 2


def test_a_trial_whose_process_dies_is_tried_again_and_what_fails_is_named(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    (tmp_path / "deadly.py").write_text(
        "import os, pathlib\nfrom tests.runs.test_run import small\n"
        "def build(num_classes):\n"
        "    mark = pathlib.Path(__file__).with_name('mark')\n"
        "    if not mark.exists():\n        mark.touch()\n        os.kill(os.getpid(), 9)\n"
        "    return small(num_classes)\n"
    )
    study = create(
        tmp_path / "out",
        Grid({**values, "model": ["deadly:build", "nowhere:build"], "criterion": "random"}),
    )
    told: list[str] = []
    run_local(study, workers=1, threads=1, on_line=told.append)
    assert any("its process died (exit code -9), tried again" in line for line in told)
    counts = study.counts()
    assert len(counts.done) == 2
    assert len(counts.failed) == 2
    assert any("can't import nowhere:build" in why for why in counts.failed.values())
    assert any("its starting model" in why for why in counts.failed.values())


@pytest.mark.slow
def test_why_a_trial_failed_is_told_where_it_could_not_note_it(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words say why, as do those of a process that dies of an error that nobody expected."""
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    )
    (tmp_path / "failing.py").write_text(
        "import errno\nfrom prunedge.study import StudyStore\n"
        "def full(*_):\n    raise OSError(errno.ENOSPC, 'No space left on device', 'failures')\n"
        "def build(num_classes):\n    StudyStore.fail = full\n    full()\n"
        "def strange(num_classes):\n    raise SystemExit('nobody expected\\x1b[2J this')\n"
    )
    study = create(
        tmp_path / "out",
        Grid({**values, "model": ["failing:build", "failing:strange"], "criterion": "random"}),
    )
    run_local(study, workers=1, threads=1, on_line=lambda line: None)
    first, second = (study.failure(start) or "" for start in study.starts)
    assert re.fullmatch(r"No space left on device \(failures\): free space there.*", first)
    assert (
        second
        == r"its process died 3 times, the last time with exit code 1: nobody expected\x1b[2J this"
    )


def test_a_trial_that_another_process_has_is_running(
    values: dict[str, object], tmp_path: Path
) -> None:
    study = create(tmp_path / "out", Grid({**values, "criterion": "random"}))
    (trial,) = study.trials
    (study.path / "locks").mkdir()
    with FileLock(study.path / "locks" / f"{trial.name}.lock"):
        assert study.counts().running == (trial.name,)
    assert study.counts().running == ()
    assert len(study.counts().left) == 2
    assert study.counts().seconds_left is None


def test_folders_that_hold_other_things_are_left_alone(
    values: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="the folder holds something else"):
        create(tmp_path, Grid(values))
    with pytest.raises(RunError, match="not a study's folder"):
        open_study(tmp_path)


def test_cores_are_divided() -> None:
    cores = len(os.sched_getaffinity(0))
    assert divided(None, None) == (cores, 1)
    assert divided(1, None) == (1, cores)
    assert divided(None, cores) == (1, cores)
    assert divided(3, 2) == (3, 2)


def test_a_start_that_is_cut_off_goes_on_and_a_trials_unpruned_model_is_its_starts(
    values: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunedge.runs import checkpoint
    from prunedge.runs.callbacks import Callbacks

    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    grid = Grid({**values, "train_epochs": 3})
    study, alone = create(tmp_path / "cut", grid), create(tmp_path / "alone", grid)
    (start,) = study.starts

    class Cut(Exception):
        pass

    def cut(done: int, total: int, what: str) -> None:
        if what.startswith("epoch 3/3"):
            raise Cut

    with pytest.raises(Cut):
        study.perform(start, Callbacks(progress=cut))
    kept = checkpoint.RunCheckpointer(
        study.folder(start), sign=open_run(study.folder(start)).sign
    ).kept()
    assert kept is not None
    assert kept.epochs == 2
    assert not study.is_done(start)
    seen: list[str] = []
    study.perform(start, Callbacks(progress=lambda done, total, what: seen.append(what)))
    assert not [what for what in seen if what.startswith(("epoch 1/3", "epoch 2/3"))]
    assert not (study.folder(start) / checkpoint.NAME).exists()
    alone.perform(alone.starts[0])
    models = [
        one.folder(one.starts[0]) / "checkpoints" / "step-000" / "model.safetensors"
        for one in (study, alone)
    ]
    assert models[0].read_bytes() == models[1].read_bytes()
    study.perform(study.trials[0])
    assert (
        study.folder(study.trials[0]) / "checkpoints" / "step-000" / "model.safetensors"
    ).samefile(models[0])
