"""A full disk, a read-only place, no memory, nobody who listens, in the middle of a verb: one line, exit code 2, and what was done is kept.

The trouble begins at the n-th write (`trouble/sitecustomize.py`). Mended, the same command or `--resume` ends as if nothing had been.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunedge.files import is_ours
from prunedge.runs import open_run
from tests.data.test_patches import mask, photo
from tests.system.conftest import prunedge

SHIM = Path(__file__).parent / "trouble"
TINY = ("--model", "tests.test_runs:small", "--weights", "none", "--size", 16, "--batch-size", 8, "--precision", "32")
PRUNE = (*TINY, "--train-epochs", 3, "--step", 0.3, "--max-drop", 60, "--max-steps", 2)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the trouble is made with Linux's limits")


def troubled(kind: str, at: int, root: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a machine that gets into trouble at its n-th write."""
    path = os.pathsep.join([str(SHIM), *(one for one in sys.path if one)])
    environment = {**os.environ, "PYTHONPATH": path, "TROUBLE": f"{kind}:{at}", "TROUBLE_ROOT": str(root), **more}
    command = [sys.executable, "-m", "prunedge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def told_in_a_line(done: subprocess.CompletedProcess[str], kind: str, root: Path) -> bool:
    """Whether the verb was stopped by the trouble, and said so as it should; an end without memory may be the system's own."""
    if done.returncode == 0:
        return False
    said = done.stderr + done.stdout
    assert "Traceback" not in said, said
    if kind == "memory" and done.returncode not in (2, 1):
        assert done.returncode < 0, said  # a library of C++ gave up by itself
        return True
    assert done.returncode == 2, (done.returncode, said)
    last = done.stderr.splitlines()[-1]
    causes = {"full": "File too large", "readonly": "Read-only file system", "memory": "memory|could not|can't"}
    assert re.match(rf"error: .*({causes[kind]})", last), said
    assert kind == "memory" or str(root) in last, said
    assert "go on with prunedge prune --resume" in last or "give the same command again" in last or "trials" in last, said
    return True


def left_over(*folders: Path) -> list[str]:
    return [str(path) for folder in folders for path in folder.rglob("*") if is_ours(path.name)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return open_run(run).load().state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def until_it_is_done(kind: str, moments: list[int], data: Path, root: Path, wanted: Path) -> int:
    """Begin and go on with a run, each time into trouble at another write, then without; gives how often there was trouble."""
    out, cache, count = root / "run", {"PRUNEDGE_CACHE": str(root / "cache")}, 0
    for at in moments:
        arguments = ("prune", "--resume", out) if (out / "recipe.toml").exists() else ("prune", data, *PRUNE, "--out", out)
        count += told_in_a_line(troubled(kind, at, root, *arguments, **cache), kind, root)
    arguments = ("prune", "--resume", out) if (out / "recipe.toml").exists() else ("prune", data, *PRUNE, "--out", out)
    done = prunedge(*arguments)
    assert done.returncode == 0, done.stderr
    assert same(weights(out), weights(wanted)) and open_run(out).test() == open_run(wanted).test()
    assert not left_over(root)
    return count


@pytest.mark.parametrize(("kind", "moments"), [("full", [1, 6]), ("readonly", [9]), ("memory", [4])])
def test_a_pruning_in_trouble_says_so_and_goes_on_to_the_same_network(
    kind: str, moments: list[int], run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    assert until_it_is_done(kind, moments, tiny_data, tmp_path, run) == (len(moments) if kind != "memory" else pytest.approx(0.5, abs=0.5))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "readonly", "memory"])
def test_a_pruning_in_trouble_at_ten_moments(kind: str, run: Path, tiny_data: Path, tmp_path: Path) -> None:
    count = 0
    for place, at in enumerate(range(1, 11)):
        root = tmp_path / str(place)
        root.mkdir()
        count += until_it_is_done(kind, [at], tiny_data, root, run)
    assert count >= (9 if kind != "memory" else 1)


@pytest.mark.parametrize("kind", ["full", "readonly"])
def test_an_export_in_trouble_leaves_nothing(kind: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundles" / "one"
    done = troubled(kind, 1, tmp_path, "export", run, "--out", out)
    assert told_in_a_line(done, kind, tmp_path) and not out.exists()
    assert prunedge("export", run, "--out", out).returncode == 0
    assert not left_over(tmp_path) and (out / "manifest.json").is_file()


@pytest.mark.parametrize("kind", ["full", "readonly"])
def test_patches_in_trouble_leave_nothing(kind: str, tmp_path: Path) -> None:
    photos, masks, out = tmp_path / "photos", tmp_path / "masks", tmp_path / "patches"
    for number in range(3):
        photo(photos / f"{number}.png", seed=number)
        mask(masks / f"{number}.png", (0, 0, 16, 16))
    cut = ("patches", photos, masks, "--out", out, "--size", 16)
    assert told_in_a_line(troubled(kind, 1, tmp_path, *cut), kind, tmp_path)
    assert not out.exists()
    done = prunedge(*cut)
    assert done.returncode == 0, done.stderr
    assert not left_over(tmp_path) and (out / "manifest.csv").is_file()


STUDY = ("--train-epochs", 2, "--criterion", "weight-l1", "--max-steps", 1, "--workers", 1)


@pytest.mark.parametrize(("kind", "at"), [("full", 3), pytest.param("readonly", 5, marks=pytest.mark.slow)])
def test_a_study_in_trouble_says_so_and_the_same_command_ends_it(kind: str, at: int, tiny_data: Path, tmp_path: Path) -> None:
    study = ("study", "criteria", tiny_data, *TINY[:-2], *STUDY, "--out", tmp_path / "study")
    done = troubled(kind, at, tmp_path, *study)
    assert told_in_a_line(done, kind, tmp_path), done.stdout
    done = prunedge(*study)
    assert done.returncode == 0, done.stderr
    assert not left_over(tmp_path) and (tmp_path / "study" / "study.csv").is_file()


READING: list[tuple[str, Callable[[Path], tuple[object, ...]]]] = [
    ("show", lambda run: ("show", run)),
    ("show --json", lambda run: ("show", run, "--json")),
    ("groups", lambda run: ("groups", "--from", run)),
    ("check", lambda run: ("check", open_run(run).recipe["data"])),
]


@pytest.mark.parametrize(("name", "verb"), READING, ids=[name for name, _ in READING])
def test_nobody_listens(name: str, verb: Callable[[Path], tuple[object, ...]], run: Path) -> None:
    command = [sys.executable, "-m", "prunedge", *map(str, verb(run))]
    with open(os.devnull, "wb") as nowhere:
        reading, writing = os.pipe()
        os.close(reading)
        gone = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert gone.returncode == 141 and gone.stderr == "", (gone.returncode, gone.stderr)
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: No space left on device (the output): free space there"), done.stderr
        for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
            line = " ".join(f"'{word}'" for word in command)
            assert subprocess.run(["sh", "-c", f"{line} {closed}"], stdout=nowhere, stderr=nowhere).returncode == 0, closed


def test_a_full_disk_at_the_end_of_a_report_keeps_the_earlier_one(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "report.html").write_text("earlier")
    done = troubled("full", 1, tmp_path, "report", copy)
    assert told_in_a_line(done, "full", tmp_path) and "report.html" in done.stderr
    assert (copy / "report.html").read_text() == "earlier" and not left_over(copy)
