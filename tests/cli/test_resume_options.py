"""Every option beside `--resume` is applied or refused by name: none is dropped without a word."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from prunedge.cli.app import main
from prunedge.cli.prune import prune
from prunedge.cli.train import train
from prunedge.config import RunConfig, settings
from prunedge.runs import execute
from prunedge.runs.resumption import CHANGEABLE
from prunedge.runs.run import open_run
from tests.tiny_images import write_tiny

VERBS = {"prune": prune, "train": train}
NAMES = {
    "start": "--from",
    "cost": "--for",
    "costs": "--cost",
}  # as their parameters' annotations call them
FLAGS = {("train", "train_epochs"): "--epochs"}
# Said of the command, not of the run.
ASIDE = ("resume", "out", "profile", "trust_code", "json")
NUMBERS = {"fold": "1", "folds": "3", "in_channels": "1"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each verb that has ended."""
    root = tmp_path_factory.mktemp("runs")
    recipe = RunConfig.make(
        "test",
        data=str(write_tiny(root / "images").resolve()),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=60.0,
        max_steps=1,
        epochs=1,
        polish=0,
        batch_size=8,
    )
    return {
        "prune": execute.prune(recipe, root / "pruned").path,
        "train": execute.train(recipe, root / "trained").path,
    }


def options(verb: str) -> list[tuple[str, str]]:
    """Every option of a verb but those that say nothing about the run: its key and its flag."""
    names = [name for name in inspect.signature(VERBS[verb]).parameters if name not in ASIDE]
    flags = {**{name: f"--{name.replace('_', '-')}" for name in names}, **NAMES}
    return [(name, FLAGS.get((verb, name), flags[name])) for name in names]


def another(verb: Callable[..., None], name: str, now: Any) -> list[str]:
    """A value that the option may have and that the run has not."""
    parameter = inspect.signature(verb).parameters[name].annotation
    kind = (
        get_args(parameter)[0] if hasattr(parameter, "__metadata__") else get_type_hints(verb)[name]
    )
    kinds = [one for one in (kind, *get_args(kind)) if one is not type(None)]
    choices = next(
        (get_args(one) for one in kinds if get_args(one) and isinstance(get_args(one)[0], str)), ()
    )
    listed = [get_args(one)[0] for one in kinds if getattr(one, "__origin__", None) is list]
    if listed and get_args(listed[0]):
        return [get_args(listed[0])[0]]
    if choices:
        return [next(choice for choice in choices if choice != now)]
    if bool in kinds:
        return []
    if name == "target_latency":
        return ["5ms"]
    if name == "budget":
        return ["5min"]
    if name == "max_drop":
        return ["60.05"]
    if name in NUMBERS:
        return [NUMBERS[name]]
    if int in kinds:
        return [str((now or 0) + 7)]
    if float in kinds:
        return [str((now or 0.5) + 0.05)]
    return ["/nowhere/else"]


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0), capsys.readouterr().err


ALL = [(verb, *option) for verb in VERBS for option in options(verb)]


@pytest.mark.parametrize(
    ("verb", "name", "flag"), ALL, ids=[f"{verb} {flag}" for verb, _, flag in ALL]
)
def test_every_option_beside_resume_is_applied_or_refused_by_name(
    verb: str,
    name: str,
    flag: str,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(runs[verb], tmp_path / "run"))
    key = name
    before = open_run(folder).config.flat()[key]
    # Another value of what is on is the flag that turns it off.
    given = flag.replace("--", "--no-", 1) if before is True else flag
    code, said = call(
        [verb, "--resume", str(folder), given, *another(VERBS[verb], name, before)], capsys
    )
    after = open_run(folder).config.flat()[key]
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if key not in CHANGEABLE[verb]:
        assert code == 2, said
        assert len(lines) == 1, said
        assert f"{flag} can't change in a run that has begun" in lines[0], said
        assert after == before
    elif key == "data":
        assert code == 2, "there are no images"
        assert "/nowhere/else" in lines[0], "there are no images"
    elif key == "masks":
        assert code == 2, said
        assert "--masks /nowhere/else acts only with --task segmentation" in lines[0], said
    elif key == "target_latency":
        assert code == 2, said
        assert "--target-latency needs --device" in lines[0], said
    elif key not in ("max_steps", "polish"):
        assert code == 2, said
        assert len(lines) == 1, said
        assert f"{flag} would change nothing any more: the run has ended (1 step done" in lines[0]
        assert after == before
    else:
        assert code == 0, said
        assert after != before
        written = settings()[key].written
        change = f"{written(after)} instead of {written(before)}"
        assert f"{key.replace('_', ' ')}: {change}" in said


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_that_the_run_began_with_may_be_given_again(
    verb: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(runs[verb])
    same = [
        "--model",
        run.config.model.name,
        "--weights",
        "none",
        "--size",
        "16",
        "--data",
        run.config.data.path,
        "--out",
        str(run.path),
    ]
    code, said = call([verb, "--resume", str(run.path), *same], capsys)
    assert code == 0, said
    assert "instead of" not in said, said


def test_a_run_goes_on_in_its_own_folder(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = call(
        ["prune", "--resume", str(runs["prune"]), "--out", str(tmp_path / "other")], capsys
    )
    assert code == 2
    assert "--out and --resume name two folders" in said


def test_each_verb_goes_on_with_its_own_runs(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = call(["train", "--resume", str(runs["prune"])], capsys)
    assert code == 2
    assert f"prunedge prune --resume {runs['prune']}" in said
    code, said = call(["prune", "--resume", str(runs["train"])], capsys)
    assert code == 2
    assert f"prunedge prune --from {runs['train']}" in said


def test_images_that_moved_may_be_named_to_a_training(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(runs["train"], tmp_path / "run"))
    moved = Path(shutil.copytree(open_run(folder).config.data.path, tmp_path / "images")).resolve()
    code, said = call(["train", str(moved), "--resume", str(folder)], capsys)
    assert code == 0, said
    assert open_run(folder).config.data.path == str(moved), said


def test_training_without_images_or_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no images to learn from" in call(["train", "--out", str(tmp_path / "x")], capsys)[1]
    assert "--out" in call(["train", str(tmp_path)], capsys)[1]
