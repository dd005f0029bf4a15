"""kill -9 at random moments: `--resume` ends in the same history and the same weights as a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from prunedge.runs import open_run
from tests.system.conftest import prunedge


def essence(path: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in step.to_json().items() if not k.startswith("seconds")} for step in open_run(path).steps()]


def test_a_killed_run_resumes_to_the_same_end(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out, chance, kills = tmp_path / "killed", random.Random(7), 0
    start = [
        "prune", tiny_data, "--model", "tests.test_runs:small", "--weights", "none", "--size", 16, "--train-epochs", 3, "--step", 0.3,
        "--max-drop", 60, "--max-steps", 2, "--batch-size", 8, "--precision", "32", "--out", out,
    ]  # fmt: skip
    while kills < 4:
        arguments = ["prune", "--resume", out] if (out / "recipe.toml").exists() else start
        process = subprocess.Popen(
            [sys.executable, "-m", "prunedge", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
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
    assert not list((out / "checkpoints").glob(".writing-*"))


def _wait_for_change(out: Path, process: subprocess.Popen[bytes]) -> None:
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
