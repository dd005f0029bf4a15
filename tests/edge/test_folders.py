"""A thousand folders in each other end nothing: what lies too deep is told once, and the rest is found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunedge.data import check, load_folder
from prunedge.data.listing import find_images
from prunedge.edge.agent.watch import Folder
from prunedge.edge.folders import DEEPEST, walk
from prunedge.edge.inspect.sources import open_source
from prunedge.errors import MachineError
from tests.edge.agent.conftest import write_images
from tests.tiny_images import write_tiny

LEVELS = 1000


def dig(folder: Path, levels: int, every: int = 0) -> None:
    """So many folders in each other, with a small image at each `every`th level and in the last."""
    start = os.getcwd()
    os.chdir(folder)
    try:
        write_images(Path(), 1)
        image = Path("000.png").read_bytes()
        for level in range(1, levels + 1):
            os.mkdir("d")
            os.chdir("d")
            if level == levels or (every and level % every == 0):
                Path(f"{level}.png").write_bytes(image)
    finally:
        os.chdir(start)


def clear(folder: Path) -> None:
    """Remove what `dig` made, and all else: pytest's own cleaning is a recursion."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("deep")
    dig(folder, LEVELS, every=50)
    yield folder
    clear(folder)


@pytest.fixture
def shaft(tmp_path: Path) -> Iterator[Path]:
    """A folder to dig in."""
    (tmp_path / "shaft").mkdir()
    yield tmp_path / "shaft"
    clear(tmp_path / "shaft")


def names(folder: Folder) -> set[str]:
    return {arrival.path.name for arrival in folder.arrivals()[0]}


def test_the_agent_looks_as_deep_as_is_meant_and_says_once_what_it_leaves(
    deep: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(deep, 0.0)
    for _ in range(3):
        assert names(folder) == {"000.png", "50.png", "100.png"}
    assert [
        record.getMessage()
        for record in caplog.records
        if f"{DEEPEST} levels" in record.getMessage()
    ] == [caplog.messages[0]]
    assert len(caplog.messages[0]) < 600


def test_inspect_finds_the_same_and_names_the_rest_as_a_problem(deep: Path) -> None:
    source = open_source(str(deep))
    assert {Path(item.name).name for item in source.items} == {"000.png", "50.png", "100.png"}
    ((name, why),) = source.problems
    assert f"{DEEPEST} levels" in why
    assert name.isprintable()


def test_training_and_check_leave_out_the_same_and_say_so_once(
    shaft: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_tiny(shaft, 10, 16)
    dig(next(folder for folder in sorted(data.iterdir()) if folder.is_dir()), LEVELS, every=50)
    loaded = load_folder(data, size=16, cache_dir=tmp_path / "cache")
    # The uppermost level of the walk is the class folder.
    assert {sample.path.name for split in loaded.splits().values() for sample in split.samples} >= {
        "50.png",
        "100.png",
    }
    assert not any(
        sample.path.name == "150.png"
        for split in loaded.splits().values()
        for sample in split.samples
    )
    assert sum("levels down" in line for line in caplog.messages) == 1
    caplog.clear()
    check(data, size=16, cache_dir=tmp_path / "cache")
    assert sum("levels down" in line for line in caplog.messages) == 1


def test_names_as_long_as_the_system_allows_end_nothing(
    shaft: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = os.getcwd()
    write_images(shaft, 1)
    os.chdir(shaft)
    try:
        for _ in range(30):  # a path of 7,000 bytes; the system takes 4,096
            os.mkdir("x" * 240)
            os.chdir("x" * 240)
    finally:
        os.chdir(start)
    assert names(Folder(shaft, 0.0)) == {"000.png"}
    source = open_source(str(shaft))
    assert [item.name for item in source.items] == ["000.png"]
    assert len(source.problems) == 1
    assert [path.name for path in find_images(shaft)] == ["000.png"]
    assert all(len(line) < 1000 for line in caplog.messages)


def test_linked_folders_are_walked_once_and_never_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_images(tmp_path / "a", 1)
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == [
        "a/000.png"
    ]
    assert names(Folder(tmp_path, 0.0)) == {"000.png"}


def test_a_folder_that_may_not_be_read_is_never_left_out_of_a_training_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_tiny(tmp_path / "data", 10, 16)
    locked = next(folder for folder in sorted(data.iterdir()) if folder.is_dir())
    real = os.scandir
    monkeypatch.setattr(
        os,
        "scandir",
        lambda path: _refuse(path) if os.fspath(path) == os.fspath(locked) else real(path),
    )
    with pytest.raises(MachineError, match="Permission denied"):
        load_folder(data, size=16, cache_dir=tmp_path / "cache")


def _refuse(path: object) -> None:
    raise PermissionError(13, "Permission denied", path)


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/z/1.png", "a/1.png", "0.png", ".hidden/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    levels = walk(tmp_path, failed=lambda path, error: None, too_deep=lambda path: None)
    assert [level.prefix + name for level in levels for name in level.files] == [
        "0.png",
        "a/1.png",
        "a/z/1.png",
        "b/1.png",
        "b/2.png",
    ]
