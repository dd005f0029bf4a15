"""The real command under torchrun: two processes come to the same run as one, and a killed one goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from prunedge.runs.run import open_run
from tests.commands import prunedge
from tests.processes import TIMEOUT_S, launch, torchrun
from tests.small_runs import essence

# Batches of 13 images, which two processes divide unevenly, and few epochs, so that accuracies are not all alike.
JOB = (
    "--model",
    "tests.runs.test_run:small",
    "--weights",
    "none",
    "--size",
    16,
    "--train-epochs",
    2,
    "--step-ratio",
    0.3,
    "--max-drop",
    99,
    "--max-steps",
    2,
    "--epochs",
    1,
    "--polish",
    2,
    "--batch-size",
    13,
    "--precision",
    "32",
    "--distill",
    0.3,
    "--sparsity",
    "bn-l1",
    "--baseline",
    "random",
)


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done = prunedge("prune", tiny_data, *JOB, "--out", out, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return out


def is_same(one: Path, other: Path) -> None:
    """The same channels and accuracies in every step, nearly the same weights, scores and momentum, and the same test."""
    lines = essence(one), essence(other)
    for first, second in zip(*lines, strict=True):
        for key in ("metrics_before", "metrics"):
            # The last bits of the sums differ, and with them the loss.
            values = [dict(each.pop(key)) for each in (first, second)]
            undefined = [{name for name, value in each.items() if value is None} for each in values]
            assert undefined[0] == undefined[1] == {"cost"}
            known = [{name: each[name] for name in each.keys() - undefined[0]} for each in values]
            assert known[0] == pytest.approx(known[1], rel=1e-4)
    assert lines[0] == lines[1]
    runs = open_run(one), open_run(other)
    for step in runs[0].steps():
        a, b = (run.state(step.index) for run in runs)
        assert a.plan == b.plan
        torch.testing.assert_close(
            dict(a.model.state_dict()), dict(b.model.state_dict()), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(a.optimizer_state, b.optimizer_state, rtol=1e-3, atol=1e-5)
        assert (a.scores is None) == (b.scores is None)
        if a.scores is not None and b.scores is not None:
            assert a.scores.examples == b.scores.examples
            torch.testing.assert_close(a.scores.values, b.scores.values, rtol=1e-3, atol=1e-9)
    tested = [run.test() or {} for run in runs]
    for part in ("baseline", "best"):
        confusions = [test[part]["confusion"] for test in tested]
        assert confusions[0] == confusions[1]
        assert tested[0][part]["loss"] == pytest.approx(tested[1][part]["loss"], rel=1e-4)
    assert (
        tested[0]["baselines"]["random"]["confusion"]
        == tested[1]["baselines"]["random"]["confusion"]
    )


def test_two_processes_prune_as_one_does_and_the_first_alone_speaks(
    alone: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    done = torchrun(2, "prunedge", "prune", tiny_data, *JOB, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["steps"]) == 4  # one document, of the first process
    is_same(alone, out)
    test = open_run(out).test() or {}
    assert test["baseline"]["loss"] != pytest.approx(
        test["best"]["loss"], rel=0.01
    )  # or equal losses would say little


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").exists(),
    reason="looks for torchrun's processes where Linux lists them",
)
def test_a_killed_torchrun_leaves_nobody_behind_and_the_run_goes_on_to_the_same_end(
    alone: Path, tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    started = launch(2, "prunedge", "prune", tiny_data, *JOB, "--out", out)
    workers: list[int] = []
    try:
        until = time.monotonic() + TIMEOUT_S
        while (
            not (out / "history.jsonl").exists()
            and started.poll() is None
            and time.monotonic() < until
        ):
            workers = [
                int(pid)
                for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children")
                .read_text()
                .split()
            ]
            time.sleep(0.02)
        started.kill()
        _, err = started.communicate(
            timeout=TIMEOUT_S
        )  # until the last of them has closed the pipe
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert "torchrun, which started this process, has ended" in err
    assert len(workers) == 2
    assert not (out / "test.json").exists()
    done = prunedge("prune", "--resume", out, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert "began with 2 processes; with 1 the result may differ" in done.stderr
    is_same(alone, out)


def test_verbs_that_are_not_divided_refuse_and_say_so_once(alone: Path) -> None:
    done = torchrun(2, "prunedge", "show", alone)
    assert done.returncode != 0
    assert (
        done.stderr.count("error: 'show' is not divided among processes: start it without torchrun")
        == 1
    )
