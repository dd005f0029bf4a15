"""The cache: written once, shared, bounded, and whole after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prunedge.data import cache
from prunedge.data.cache import decode_all, open_pixels
from prunedge.errors import DataError
from tests.tiny_pictures import write_tiny


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return sorted(write_tiny(tmp_path / "data", 10, 16).rglob("*.png"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def forget(path: Path) -> None:
    """As if the process that read this array had ended."""
    cache._open.pop(path)[0].close()


def test_pictures_are_decoded_once(paths: list[Path], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    first = decode_all(paths, 16, folder=home, progress=lambda done, total, what: told.append((done, total, what)))
    assert told[-1] == (20, 20, "decoding pictures") and len(told) == 20
    pixels = open_pixels(first.cache)
    assert pixels.shape == (20, 16, 16, 3) and pixels.dtype == np.uint8 and not pixels.flags.writeable
    monkeypatch.setattr(cache, "try_picture", lambda *_: pytest.fail("decoded again"))
    assert decode_all(paths, 16, folder=home) == first
    forget(first.cache)
    assert decode_all(paths, 16, folder=home) == first


def test_a_changed_file_is_decoded_again(paths: list[Path], home: Path) -> None:
    first = decode_all(paths, 16, folder=home)
    write_tiny(paths[0].parents[1], 10, 16, seed=1)
    second = decode_all(paths, 16, folder=home)
    assert second.cache != first.cache and second.digests != first.digests
    assert decode_all(paths, 8, folder=home).cache != second.cache


def test_unreadable_pictures_are_remembered(paths: list[Path], home: Path) -> None:
    paths[3].write_bytes(b"")
    first = decode_all([*paths, paths[0].with_name("gone.png")], 16, folder=home)
    assert first.unreadable == {3: "empty file", 20: "no such file"}
    assert first.digests[3] == first.digests[20] == "" and all(first.digests[:3])
    forget(first.cache)
    assert decode_all([*paths, paths[0].with_name("gone.png")], 16, folder=home) == first


def test_the_least_lately_used_makes_room_but_nothing_in_use(paths: list[Path], home: Path) -> None:
    one = 20 * 16 * 16 * 3
    arrays = []
    for i in range(3):
        arrays.append(decode_all(paths, 16 - i, folder=home).cache)
        os.utime(arrays[i], (1_000 + i, 1_000 + i))
    forget(arrays[1])
    forget(arrays[2])
    (home / "left-over.tmp123").write_bytes(b"of a killed run")
    decode_all(paths, 10, folder=home, limit=3 * one)
    assert arrays[0].exists(), "in use"
    assert not arrays[1].exists(), "the least lately used"
    assert arrays[2].exists()
    assert not list(home.glob("*.tmp*"))
    assert open_pixels(arrays[0]).sum() > 0


def test_an_array_used_by_another_process_stays(paths: list[Path], home: Path) -> None:
    array = decode_all(paths, 16, folder=home).cache
    forget(array)
    code = (
        "from pathlib import Path; from prunedge.data.cache import open_pixels\n"
        f"open_pixels(Path({str(array)!r})); print('ok', flush=True); input()"
    )
    reader = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment())
    try:
        assert reader.stdout.readline() == b"ok\n"
        decode_all(paths, 8, folder=home, limit=10_000)
        assert array.exists()
    finally:
        reader.communicate(b"\n")
    decode_all(paths, 7, folder=home, limit=10_000)
    assert not array.exists()


def test_what_does_not_fit_is_not_kept(paths: list[Path], home: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = decode_all(paths, 16, folder=home, limit=1000)
    assert found.cache is None and all(found.digests) and not list(home.glob("*.npy"))
    assert "decoding anew each epoch" in caplog.text


def test_a_deleted_array_and_a_folder_that_cannot_be_made(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was deleted"):
        open_pixels(tmp_path / "gone.npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="PRUNEDGE_CACHE"):
        decode_all(paths, 16, folder=tmp_path / "file" / "cache")


def test_runs_that_share_it_and_are_killed(tmp_path: Path, home: Path) -> None:
    root = write_tiny(tmp_path / "many", 100, 64)
    code = (
        "import sys; from pathlib import Path; from prunedge.data.cache import decode_all, open_pixels\n"
        f"found = decode_all(sorted(Path({str(root)!r}).rglob('*.png')), 64, folder=Path({str(home)!r}))\n"
        "print(found.cache.name, int(open_pixels(found.cache).sum(dtype='int64')))"
    )

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=_environment())

    victim = start()
    deadline = time.monotonic() + 30
    while victim.poll() is None and not list(home.glob("*.tmp*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    answers = [runner.communicate()[0] for runner in [start(), start()]]
    assert answers[0] == answers[1]
    assert len(list(home.glob("*.npy"))) == 1 and not list(home.glob("*.tmp*"))
    assert int(answers[0].split()[1]) == sum(int(open_pixels(next(home.glob("*.npy")))[i].sum(dtype="int64")) for i in range(200))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
