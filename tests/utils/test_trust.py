"""A run or a bundle that somebody sent runs none of the code that lies beside it, unless that is said to be trusted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import prunedge as pe
from prunedge.cli.app import main
from prunedge.data import load_folder
from prunedge.errors import PrunedgeError
from prunedge.utils import trust
from tests.tampering import edited

ROOT = Path(__file__).parents[2]
MODEL = """
from pathlib import Path
from torch import nn
Path({mark!r}).touch()
def make(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
MODULE = "own_model_of_the_sender"


def command(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """In a process that has imported nothing of it."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}",
        "PRUNEDGE_CACHE": str(folder / ".cache"),
    }
    line = [sys.executable, "-P", "-m", "prunedge", *map(str, words)]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def here(*words: object) -> object:
    """The exit code of a verb in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture(scope="module")
def sent(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a module, a run and a bundle that name it, as its maker sends it; and the mark that running the code leaves."""
    home, folder, mark = (
        tmp_path_factory.mktemp("home"),
        tmp_path_factory.mktemp("maker"),
        tmp_path_factory.mktemp("mark") / "ran",
    )
    (folder / f"{MODULE}.py").write_text(MODEL.format(mark=str(mark)))
    before = os.environ["XDG_STATE_HOME"]
    os.environ["XDG_STATE_HOME"] = str(home)
    try:
        train = (
            "train",
            tiny_data,
            "--model",
            f"{MODULE}:make",
            "--weights",
            "none",
            "--size",
            16,
            "--epochs",
            12,
            "--lr",
            0.05,
        )
        for line in (
            (*train, "--out", "run"),
            ("export", "run", "--out", "bundle"),
        ):  # one's own needs no word
            done = command(folder, *line)
            assert done.returncode == 0, done.stderr
    finally:
        os.environ["XDG_STATE_HOME"] = before
    arrived = tmp_path_factory.mktemp("arrived")
    shutil.copytree(folder, arrived, dirs_exist_ok=True)
    return arrived, mark


@pytest.fixture
def opened(sent: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    folder, mark = sent
    mark.unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(trust, "_everything", False)
    yield sent
    sys.modules.pop(MODULE, None)


@pytest.mark.parametrize(
    "line",
    [
        ("export", "run", "--out", "b2"),
        ("audit", "run", "--channels", 2),
        ("groups", "--from", "run", "--size", 16),
        ("train", "--resume", "run"),
        ("prune", "--from", "run", "--out", "pruned", "--max-steps", 1),
    ],
)
def test_no_verb_runs_what_a_run_names(
    opened: tuple[Path, Path], line: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, mark = opened
    assert here(*line) == 2
    assert not mark.exists()
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert MODULE in said, said
    assert "--trust-code" in said, said
    assert "run" in said, said
    assert not (folder / "b2").exists()
    assert not (folder / "pruned").exists()


@pytest.mark.parametrize(
    "line", [("show", "run"), ("report", "run"), ("inspect", "bundle", ".", "--damage", "crack")]
)
def test_verbs_that_need_no_model_of_torch_run_none(
    opened: tuple[Path, Path], line: tuple[object, ...], tiny_data: Path
) -> None:
    _, mark = opened
    words = [tiny_data / "crack" / "000.png" if word == "." else word for word in line]
    assert here(*words) == 0
    assert not mark.exists()


def test_neither_does_the_library(opened: tuple[Path, Path]) -> None:
    folder, mark = opened
    for name in ("run", "bundle"):
        with pytest.raises(PrunedgeError, match="--trust-code"):
            pe.load(folder / name)
        with pytest.raises(PrunedgeError, match="--trust-code"):
            pe.load(name)
    assert not mark.exists()


def test_with_trust_it_runs(opened: tuple[Path, Path]) -> None:
    folder, mark = opened
    done = command(folder, "groups", "--from", "run", "--size", 16, "--trust-code")
    assert done.returncode == 0, done.stderr
    assert mark.exists(), done.stderr
    assert here("groups", "--from", "run", "--size", 16) == 2  # once is not for ever
    assert pe.load("bundle", trust_code=True)[0].out_channels == 8


def test_a_name_on_the_command_line_is_trusted(opened: tuple[Path, Path]) -> None:
    folder, mark = opened
    done = command(folder, "train", "--resume", "run", "--model", f"{MODULE}:make")
    assert done.returncode == 0, done.stderr
    assert (
        command(folder, "train", "--resume", "run").returncode == 0
    )  # and remembered for this folder
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(folder / f"{MODULE}.py", elsewhere)
    mark.unlink(missing_ok=True)
    assert command(elsewhere, "groups", "--from", folder / "run", "--size", 16).returncode == 2
    assert not mark.exists()
    shutil.rmtree(os.environ["XDG_STATE_HOME"])


def test_a_criterion_that_a_run_names_is_code_as_well(
    opened: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, mark = opened
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    with edited(run):
        recipe = (run / "config.toml").read_text()
        recipe = re.sub(r"(?m)^(\[model\]\nname = ).*$", r'\1"resnet18"', recipe)
        recipe = re.sub(r"(?m)^criterion = .*$", f'criterion = "{MODULE}:make"', recipe)
        (run / "config.toml").write_text(recipe)
        environment = json.loads((run / "environment.json").read_text())
        (run / "environment.json").write_text(json.dumps({**environment, "verb": "prune"}))
    assert here("prune", "--resume", run) == 2
    assert not mark.exists()
    assert "--trust-code" in capsys.readouterr().err


def test_what_one_built_oneself_loads_again(
    opened: tuple[Path, Path], tiny_data: Path, tmp_path: Path
) -> None:
    net = pe.build(f"{MODULE}:make", 2, "none")
    data = load_folder(tiny_data, size=16)
    pe.export_bundle(net, data, tmp_path / "b", model_name=f"{MODULE}:make")
    assert pe.load(tmp_path / "b")[0].out_channels == 8
