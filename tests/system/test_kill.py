"""kill -9 at random moments: `--resume` ends in the same history and the same weights as a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from prunedge.runs.run import open_run
from tests.commands import Started, prunedge
from tests.small_runs import essence
from tests.system.test_forked_kills import left_over

TRAIN = (
    "--model",
    "tests.runs.test_run:small",
    "--weights",
    "none",
    "--size",
    16,
    "--batch-size",
    8,
    "--precision",
    "32",
)


def test_a_killed_run_resumes_to_the_same_end(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out, chance, kills = tmp_path / "killed", random.Random(7), 0
    start = [
        "prune",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--train-epochs",
        3,
        "--step-ratio",
        0.3,
        "--max-drop",
        60,
        "--max-steps",
        2,
        "--batch-size",
        8,
        "--precision",
        "32",
        "--out",
        out,
    ]
    while kills < 4:
        arguments = ["prune", "--resume", out] if (out / "config.toml").exists() else start
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


OTHERWISE = ("--optimizer", "adamw", "--ema", 0.9, "--layer-decay", 0.7, "--patience", 3)


@pytest.mark.parametrize("how", [(), OTHERWISE], ids=["sgd", "otherwise"])
def test_a_killed_training_goes_on_with_train_resume(
    tiny_data: Path, tmp_path: Path, how: tuple[object, ...]
) -> None:
    whole, out, chance = tmp_path / "whole", tmp_path / "killed", random.Random(3)
    start = ["train", tiny_data, *TRAIN, *how, "--epochs", 4, "--out"]
    assert prunedge(*start, whole).returncode == 0
    for kill in range(2):
        arguments = ["train", "--resume", out] if kill else [*start, out]
        process = Started(*arguments)
        # Before that there is no run that could be gone on with.
        while process.poll() is None and not (out / "config.toml").exists():
            time.sleep(0.01)
        _wait_for_change(out, process)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    refused = prunedge("prune", "--resume", out)
    assert refused.returncode == 2, refused.stderr
    assert "`prunedge train` made this run" in refused.stderr, refused.stderr
    done = prunedge("train", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert "next: prunedge prune --from" in done.stdout, done.stderr
    assert essence(out) == essence(whole)
    wanted, found = open_run(whole).load().state_dict(), open_run(out).load().state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    ended = prunedge("prune", "--resume", out)
    assert ended.returncode == 2
    assert f"it has ended: prunedge prune --from {out}" in ended.stderr
    other = prunedge("train", *start[1:], out)
    assert other.returncode == 2
    assert f"go on with prunedge train --resume {out}" in other.stderr


def test_an_interrupted_training_names_the_verb_that_goes_on(
    tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["train", tiny_data, *TRAIN, "--epochs", 5000, f"--out={out}"]
    process = Started(*arguments)
    while process.poll() is None and not (out / "engine.json").exists():
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert (
        said.splitlines()[-1]
        == f"interrupted; nothing is finished yet: go on with prunedge train --resume {out}"
    )


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
