"""Commands as a user starts them: nobody listens to what they print, a disk under a study is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.runs.run import open_run
from tests.system.conftest import prunedge
from tests.system.test_forked_kills import left_over

SHIM = Path(__file__).parent / "trouble"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the trouble is made with Linux's limits"
)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "at"), [("full", 3), ("readonly", 5)])
def test_a_study_in_trouble_says_so_and_the_same_command_ends_it(
    kind: str, at: int, tiny_data: Path, tmp_path: Path
) -> None:
    study = (
        "study",
        "criteria",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--batch-size",
        8,
        "--train-epochs",
        2,
        "--criterion",
        "weight-l1",
        "--max-steps",
        1,
        "--workers",
        1,
        "--out",
        tmp_path / "study",
    )
    # The trials' own processes get into it as well.
    path = os.pathsep.join([str(SHIM), *(one for one in sys.path if one)])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "TROUBLE": f"{kind}:{at}",
        "TROUBLE_ROOT": str(tmp_path),
    }
    command = [sys.executable, "-m", "prunedge", *map(str, study)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert str(tmp_path) in done.stderr.splitlines()[-1], done.stderr
    done = prunedge(*study)
    assert done.returncode == 0, done.stderr
    assert left_over(tmp_path) == []
    assert (tmp_path / "study" / "study.csv").is_file()


READING: list[tuple[str, Callable[[Path], tuple[object, ...]]]] = [
    ("show", lambda run: ("show", run)),
    ("show --json", lambda run: ("show", run, "--json")),
    ("groups", lambda run: ("groups", "--from", run)),
    ("check", lambda run: ("check", open_run(run).config.data.path)),
]


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        pytest.param(*one, id=one[0], marks=[pytest.mark.slow] if place else [])
        for place, one in enumerate(READING)
    ],
)
def test_nobody_listens(name: str, verb: Callable[[Path], tuple[object, ...]], run: Path) -> None:
    command = [sys.executable, "-m", "prunedge", *map(str, verb(run))]
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert gone.returncode == 141, (gone.returncode, gone.stderr)
    assert gone.stderr == "", (gone.returncode, gone.stderr)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(
        "error: No space left on device (the output): free space there"
    ), done.stderr
    line = " ".join(f"'{word}'" for word in command)
    closed = subprocess.run(["sh", "-c", f"{line} >&- <&-"], capture_output=True, text=True)
    assert closed.returncode == 2, closed.stderr
    assert closed.stderr.count("\n") == 1, closed.stderr
    assert closed.stderr.startswith("error: standard output is closed: open it"), closed.stderr
    assert subprocess.run(["sh", "-c", f"{line} >&- 2>&- <&-"]).returncode == 2
