"""kill -9 in the middle of writing, many times: the next command ends in the same bytes, and nothing is left behind.

A fork of this process does the work and dies; it needs not import torch first, so that a hundred kills take minutes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.data import cut_patches
from prunedge.runs import execute as run_execute
from prunedge.runs.export import write_bundle
from prunedge.runs.run import open_run
from prunedge.study import Grid, create, execute
from prunedge.utils.files import is_ours
from tests.data.test_patches import mask, photo

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def killed(at: int, chance: random.Random, work: Callable[[], object]) -> bool:
    """Let a fork do the work, and kill it a moment after its n-th hidden place was made; False where it ended before."""
    delay = chance.choice((0.0, 0.0, chance.uniform(0, 0.02), chance.uniform(0, 0.3)))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    try:
        _die_at(at, delay)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)


def _die_at(at: int, delay: float) -> None:
    made, left = os.mkdir, at

    def mkdir(path: object, *args: object, **kwargs: object) -> None:
        nonlocal left
        made(path, *args, **kwargs)  # type: ignore[arg-type]
        left -= os.path.basename(os.fspath(path)).startswith(".prunedge-")  # type: ignore[call-overload]
        if left == 0 and not delay:
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0:
            timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()

    os.mkdir = mkdir  # type: ignore[assignment]


def left_over(*folders: Path) -> list[str]:
    """What prunedge and safetensors make for themselves while they write, and should have removed."""
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if is_ours(path.name) or path.name.startswith(".tmp")
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The models and plans of a run: what must not depend on how often it was killed."""
    files = sorted(folder.rglob("model.safetensors")) + sorted(folder.rglob("plan.json"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def recipe(tiny_data: Path) -> RunConfig:
    return RunConfig.make(
        "test",
        data=str(tiny_data),
        model="tests.runs.test_run:small",
        weights="none",
        size=16,
        train_epochs=3,
        precision="32",
        step_ratio=0.3,
        max_drop=60.0,
        max_steps=2,
        epochs=1,
        polish=0,
        batch_size=8,
        baseline=["random"],
    )


@pytest.fixture(scope="module")
def whole(recipe: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_execute.prune(recipe, tmp_path_factory.mktemp("whole") / "run").path


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_pruning(
    kills: int, recipe: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, count, number = random.Random(1), 0, 0
    while count < kills:
        out = tmp_path / str(number)
        monkeypatch.setenv("PRUNEDGE_CACHE", str(tmp_path / f"cache-{number}"))
        number += 1

        def work(out: Path = out) -> object:
            return (
                run_execute.resume(out)
                if (out / "config.toml").exists()
                else run_execute.prune(recipe, out)
            )

        # Each time a few writes further on than the run has come, from the decoded images to the last result.
        while killed(chance.randint(1, 6), chance, work):
            count += 1
        done = work()
        assert contents(out) == contents(whole)
        assert done.test() == open_run(whole).test()  # type: ignore[attr-defined]
        assert left_over(tmp_path) == []


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_an_export(kills: int, whole: Path, tmp_path: Path) -> None:
    chance, opened, count = random.Random(2), open_run(whole), 0
    while count < kills:
        target = tmp_path / "bundles" / str(count % 3)
        count += killed(
            1, chance, lambda target=target: target.exists() or write_bundle(opened, target)
        )
    # Another target, beside what the others left.
    write_bundle(opened, tmp_path / "bundles" / "last")
    assert left_over(tmp_path, whole) == []
    assert {path.name for path in (tmp_path / "bundles").iterdir()} <= {"0", "1", "2", "last"}


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_patches(kills: int, tmp_path: Path) -> None:
    photos, masks, chance = tmp_path / "photos", tmp_path / "masks", random.Random(3)
    for number in range(10):
        photo(photos / f"{number}.png", 320, 320, seed=number)
        mask(masks / f"{number}.png", (0, 0, 160, 160), 320, 320)
    for number in range(kills):
        assert (
            killed(
                1,
                chance,
                lambda number=number: cut_patches(
                    photos, masks, tmp_path / "cut" / f"{number}", size=16
                ),
            )
            or number
        )
    cut_patches(photos, masks, tmp_path / "cut" / "last", size=16)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_study(kills: int, tiny_data: Path, tmp_path: Path) -> None:
    grid = Grid(
        {
            "data": str(tiny_data),
            "model": "tests.runs.test_run:small",
            "weights": "none",
            "size": 16,
            "train_epochs": 3,
            "batch_size": 8,
            "precision": "32",
            "criterion": ["weight-l1", "weight-l2"],
            "max_steps": 1,
            "max_drop": 60.0,
        }
    )
    alone = create(tmp_path / "alone", grid)
    for one in alone.work:
        alone.perform(one)
    chance, count, number = random.Random(4), 0, 0
    while count < kills:
        study = create(tmp_path / str(number), grid)
        number += 1

        def work(study=study) -> None:  # type: ignore[no-untyped-def]
            for one in study.work:
                study.perform(one)

        while killed(chance.randint(1, 8), chance, work):
            count += 1
        work()
        execute.run(
            study,
            execute.StudyEngine(workers=1, threads=1),
            execute.StudyCallbacks(on_line=lambda line: None),
        )
        assert contents(study.path) == contents(alone.path)
        assert left_over(tmp_path) == []
