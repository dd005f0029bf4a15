"""kill -9 at random moments: `--resume` ends in the same history and the same weights as a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from prunedge.files import is_ours
from prunedge.runs import open_run
from tests.commands import Started, prunedge
from tests.data.test_patches import mask, photo
from tests.small_runs import essence

TRAIN = ("--model", "tests.test_runs:small", "--weights", "none", "--size", 16, "--batch-size", 8, "--precision", "32")


def test_a_killed_run_resumes_to_the_same_end(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out, chance, kills = tmp_path / "killed", random.Random(7), 0
    start = [
        "prune", tiny_data, "--model", "tests.test_runs:small", "--weights", "none", "--size", 16, "--train-epochs", 3, "--step", 0.3,
        "--max-drop", 60, "--max-steps", 2, "--batch-size", 8, "--precision", "32", "--out", out,
    ]  # fmt: skip
    while kills < 4:
        arguments = ["prune", "--resume", out] if (out / "recipe.toml").exists() else start
        process = Started(*arguments)
        _wait_for_change(out, process)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    done = prunedge("prune", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert essence(out) == essence(run)
    wanted, found = open_run(run).load().state_dict(), open_run(out).load().state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert open_run(out).test() == open_run(run).test()
    assert not left_over(tmp_path)


def test_a_killed_training_goes_on_with_train_resume(tiny_data: Path, tmp_path: Path) -> None:
    whole, out, chance = tmp_path / "whole", tmp_path / "killed", random.Random(3)
    start = ["train", tiny_data, *TRAIN, "--epochs", 4, "--out"]
    assert prunedge(*start, whole).returncode == 0
    for kill in range(2):
        arguments = ["train", "--resume", out] if kill else [*start, out]
        process = Started(*arguments)
        _wait_for_change(out, process)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    refused = prunedge("prune", "--resume", out)
    assert refused.returncode == 2 and "`prunedge train` made this run" in refused.stderr, refused.stderr
    done = prunedge("train", "--resume", out)
    assert done.returncode == 0 and "next: prunedge prune --from" in done.stdout, done.stderr
    assert essence(out) == essence(whole)
    wanted, found = open_run(whole).load().state_dict(), open_run(out).load().state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    ended = prunedge("prune", "--resume", out)
    assert ended.returncode == 2 and f"it has ended: prunedge prune --from {out}" in ended.stderr
    other = prunedge("train", *start[1:], out)
    assert other.returncode == 2 and f"go on with prunedge train --resume {out}" in other.stderr


def test_an_interrupted_training_names_the_verb_that_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", tiny_data, *TRAIN, "--epochs", 5000, f"--out={out}"]
    process = Started(*arguments)
    while process.poll() is None and not (out / "engine.json").exists():
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == f"interrupted; what was finished is kept: go on with prunedge train --resume {out}"


def left_over(*folders: Path) -> list[str]:
    """What prunedge makes for itself while it writes, and should have removed."""
    return [str(path) for folder in folders for path in folder.rglob("*") if is_ours(path.name) or path.name.startswith(".tmp")]


def killed_at(at: int, *arguments: object) -> int:
    """Run the command on a machine that kills it at its n-th write; gives the exit code, which is 0 where it ends before."""
    path = os.pathsep.join([str(Path(__file__).parent / "trouble"), *(one for one in sys.path if one)])
    environment = {**os.environ, "PYTHONPATH": path, "TROUBLE": f"kill:{at}"}
    return subprocess.run([sys.executable, "-m", "prunedge", *map(str, arguments)], capture_output=True, env=environment).returncode


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_pruning_killed_in_the_middle_of_writing_leaves_nothing(rounds: int, run: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Killed while a hidden place is there, which a kill at a random moment nearly never meets."""
    kills, number = 0, 0
    wanted = open_run(run).load().state_dict()
    while kills < rounds:
        out = tmp_path / str(number)
        start = ["prune", tiny_data, *TRAIN, "--train-epochs", 3, "--step", 0.3, "--max-drop", 60, "--max-steps", 2, "--out", out]
        code, at = -signal.SIGKILL, 1 + number % 4
        number += 1
        while code and kills < rounds:
            code = killed_at(at, *(["prune", "--resume", out] if (out / "recipe.toml").exists() else start))
            assert code in (0, -signal.SIGKILL)
            kills += code == -signal.SIGKILL
            at += 1
        done = prunedge("prune", "--resume", out) if (out / "recipe.toml").exists() else prunedge(*start)
        assert done.returncode == 0, done.stderr
        found = open_run(out).load().state_dict()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted) and open_run(out).test() == open_run(run).test()
        assert not left_over(tmp_path)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_an_export_killed_in_the_middle_leaves_nothing(rounds: int, run: Path, tmp_path: Path) -> None:
    bundles, chance = tmp_path / "bundles", random.Random(5)
    for number in range(rounds):
        # Just when its hidden folder is there, and a little later, when files are in it.
        if number % 2 == 0:
            assert killed_at(1, "export", run, "--out", bundles / str(number)) == -signal.SIGKILL
        else:
            killed_after(chance, bundles, "export", run, "--out", bundles / str(number))
    # Another target, beside what the others left.
    done = prunedge("export", run, "--out", bundles / "last")
    assert done.returncode == 0, done.stderr
    assert not left_over(tmp_path, run)


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_patches_killed_in_the_middle_leave_nothing(rounds: int, tmp_path: Path) -> None:
    photos, masks, chance = tmp_path / "photos", tmp_path / "masks", random.Random(6)
    for number in range(30):
        photo(photos / f"{number}.png", 480, 320, seed=number)
        mask(masks / f"{number}.png", (0, 0, 160, 160), 480, 320)
    cut = ("patches", photos, masks, "--size", 16, "--out")
    for number in range(rounds):
        killed_after(chance, tmp_path / "cut", *cut, tmp_path / "cut" / str(number % 3))
    done = prunedge(*cut, tmp_path / "cut" / "last")
    assert done.returncode == 0, done.stderr
    assert not left_over(tmp_path)
    assert {path.name for path in (tmp_path / "cut").iterdir()} <= {"0", "1", "2", "last"}


@pytest.mark.slow
def test_a_study_killed_thirty_times_ends_as_one_that_was_left_alone(tiny_data: Path, tmp_path: Path) -> None:
    study = [
        "study", "criteria", tiny_data, *TRAIN, "--train-epochs", 2, "--criterion", "weight-l1,weight-l2", "--max-steps", 1,
        "--workers", 1, "--out",
    ]  # fmt: skip
    chance, kills, number = random.Random(9), 0, 0
    whole = tmp_path / "whole"
    assert prunedge(*study, whole).returncode == 0
    while kills < 30:
        out = tmp_path / str(number)
        number += 1
        for _ in range(5):
            kills += killed_after(chance, out, *study, out)
        done = prunedge(*study, out)
        assert done.returncode == 0, done.stderr
        for trial in (whole / "trials").iterdir():
            assert essence(out / "trials" / trial.name) == essence(trial)
        assert not left_over(tmp_path)


def killed_after(chance: random.Random, folder: Path, *arguments: object) -> bool:
    """Kill a command a little after it has begun to write into a folder; whether it was still at work."""
    process = Started(*arguments)
    _wait_for_change(folder, process)
    time.sleep(chance.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _wait_for_change(out: Path, process: Started) -> None:
    """Until the run has written something new: killing it while Python still imports would test nothing."""
    before = _state(out)
    while process.poll() is None and _state(out) == before:
        time.sleep(0.02)


def _state(out: Path) -> frozenset[tuple[str, int]]:
    found = set()
    # os.walk and not rglob: a folder that is gone before it is looked into must not end the test.
    for folder, _, names in os.walk(out):
        for name in names:
            try:
                file = Path(folder) / name
                found.add((str(file), file.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
    return frozenset(found)
