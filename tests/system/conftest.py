"""One finished run, made through the real command line, that the tests of whole commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import prunedge


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    out = tmp_path_factory.mktemp("system") / "run"
    done = prunedge(
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
    )
    assert done.returncode == 0, done.stderr
    return out
