"""Every verb on a system that lacks what Unix has: emulated by taking it away from Python (tests/system/windows)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.agent.conftest import write_images
from tests.edge.made_bundles import write_convolutional

EMULATION = Path(__file__).parent / "windows"

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what is open how is read from Linux's /proc"
)


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fcntl filelock takes a lock's file for the lock; the files that flock leaves would never be free."""
    monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / "cache"))


def on_windows(*command: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments as on a system without fcntl, resource and the like."""
    path = os.pathsep.join([str(EMULATION), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )


def prunedge(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = on_windows("-m", "prunedge", *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_the_emulation_takes_away_what_windows_lacks(tmp_path: Path) -> None:
    tries = (
        "import fcntl",
        "import resource",
        f"import os; os.open({str(tmp_path)!r}, os.O_RDONLY)",
        f"import os; os.fsync(os.open({__file__!r}, os.O_RDONLY))",
    )
    assert [on_windows("-c", program).returncode for program in tries] == [1, 1, 1, 1]


def test_a_training_reaches_the_disk(tiny_data: Path, tmp_path: Path) -> None:
    prunedge(
        "train",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--precision",
        "32",
        "--out",
        tmp_path / "run",
    )
    assert json.loads(prunedge("show", tmp_path / "run", "--json").stdout)["best"]["accuracy"] > 0


def test_a_bench_tells_its_memory_and_can_t_limit_it(tmp_path: Path) -> None:
    bundle = write_convolutional(tmp_path / "bundle", model="m", classes=["crack", "sound"])
    measured = json.loads(prunedge("bench", bundle, "--patches", 8, "--json").stdout)
    assert measured["bundles"][0]["peak_rss_mb"] > 10
    limited = on_windows("-m", "prunedge", "bench", bundle, "--patches", 8, "--memory", 4000)
    assert limited.returncode == 2
    assert "can't limit a process's memory" in limited.stderr
    assert "Traceback" not in limited.stderr
    photos = tmp_path / "photos"
    write_images(photos, 2)
    prunedge("inspect", bundle, photos, "--out", tmp_path / "inspected")


@pytest.mark.slow
def test_every_other_verb(tiny_data: Path, tmp_path: Path) -> None:
    run, pruned, bundle = tmp_path / "run", tmp_path / "pruned", tmp_path / "bundle"
    prunedge(
        "train",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--epochs",
        3,
        "--batch-size",
        8,
        "--precision",
        "32",
        "--out",
        run,
    )
    prunedge("check", tiny_data)
    prunedge(
        "prune",
        "--from",
        run,
        "--step-ratio",
        0.3,
        "--max-drop",
        60,
        "--max-steps",
        1,
        "--out",
        pruned,
    )
    prunedge("audit", pruned, "--images", 16)
    prunedge("export", pruned, "--out", bundle)
    assert Path(prunedge("report", pruned).stdout.strip()).is_file()
    prunedge(
        "study",
        "criteria",
        tiny_data,
        "--model",
        "tests.runs.test_run:small",
        "--weights",
        "none",
        "--size",
        16,
        "--train-epochs",
        3,
        "--criterion",
        "weight-l1,random",
        "--max-steps",
        1,
        "--batch-size",
        8,
        "--workers",
        1,
        "--out",
        tmp_path / "study",
    )


def test_the_agent_keeps_its_store_and_says_that_nothing_locks_it(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from prunedge.edge.agent.database import Store
Store(pathlib.Path(sys.argv[1])).close()
"""
    done = on_windows("-c", program, tmp_path / "state")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state" / "agent.sqlite").is_file()
    assert "can't lock files" in done.stderr
