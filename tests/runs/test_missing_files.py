"""A run without a file that it must have is refused in one line, whatever looks at it: nothing is guessed or written anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.refusals import refusal

NEEDED = ("engine.json", "lr.json", "environment.json", "chain.json", "first/model.safetensors")


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("verb", ["show", "report", "export", "resume"])
def test_a_file_that_a_run_must_have(
    copied: Callable[[str], Path], verb: str, name: str, tmp_path: Path
) -> None:
    run = copied("run")
    (run / name).unlink()
    before = sorted(run.rglob("*"))
    words = {
        "show": ["show", run],
        "report": ["report", run],
        "export": ["export", run, "--baseline", "--out", tmp_path / "bundle"],
        "resume": ["prune", "--resume", run, "--max-steps", 3],
    }
    line = refusal(*words[verb])
    assert str(run / name) in line
    assert "bring it back from a copy" in line
    assert [file for file in sorted(run.rglob("*")) if not file.name.startswith(".")] == before


def test_a_training_that_lost_what_it_began_with(copied: Callable[[str], Path]) -> None:
    run = copied("start")
    for name in ("engine.json", "history.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints")
    for name in ("test.json", "stop.json"):
        (run / name).unlink()
    (run / "training.safetensors").write_bytes(b"")
    assert "engine.json" in refusal("prune", "--resume", run)


def test_other_images_behind_a_lost_file(copied: Callable[[str], Path]) -> None:
    run = copied("start")
    (run / "engine.json").unlink()
    assert "engine.json" in refusal("prune", "--from", run, "--out", run.with_name("on"))
    assert not run.with_name("on").exists()
