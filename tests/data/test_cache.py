"""The cache: written once, shared, bounded, and whole after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.format import write_array_header_1_0

from prunedge.data import cache, cached_array
from prunedge.data.cache import decode_all
from prunedge.data.cached_array import read_pixels
from prunedge.data.decode import try_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError, MachineError
from tests.tiny_images import write_tiny


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return sorted(write_tiny(tmp_path / "data", 10, 16).rglob("*.png"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def forget(path: Path) -> None:
    """As if the process that read this array had ended."""
    cached_array._open.pop(path).file.close()


def test_images_are_decoded_once(
    paths: list[Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    first = decode_all(
        paths,
        square(16),
        folder=home,
        progress=lambda done, total, what: told.append((done, total, what)),
    )
    assert told[-1] == (20, 20, "decoding images")
    assert len(told) == 20
    pixels = read_pixels(first.cache, range(20))
    assert pixels.shape == (20, 16, 16, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == np.stack([try_image(path, square(16)) for path in paths])).all()
    monkeypatch.setattr(cache, "try_looking", lambda *_: pytest.fail("decoded again"))
    assert decode_all(paths, square(16), folder=home) == first
    forget(first.cache)
    assert decode_all(paths, square(16), folder=home) == first


@pytest.mark.parametrize("positioned", [True, False])
def test_rows_come_in_the_order_that_was_asked_for(
    paths: list[Path], home: Path, positioned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = decode_all(paths, square(16), folder=home).cache
    if not positioned:
        monkeypatch.delattr(os, "preadv", raising=False)
    elif not hasattr(os, "preadv"):
        pytest.skip("this system has no preadv")
    whole = np.stack([try_image(path, square(16)) for path in paths])
    order = [7, 0, 19, 7, 3]
    assert (read_pixels(found, order) == whole[order]).all()
    assert read_pixels(found, []).shape == (0, 16, 16, 3)
    with pytest.raises(IndexError):
        read_pixels(found, [20])
    with ThreadPoolExecutor(8) as pool:
        assert all(
            (one == whole[order]).all()
            for one in pool.map(lambda _: read_pixels(found, order), range(50))
        )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_what_was_read_does_not_stay_in_memory(home: Path) -> None:
    n, size = 1000, 224  # 150 MB
    home.mkdir()
    with (home / "large.npy").open("wb") as file:
        frame = io.BytesIO()
        write_array_header_1_0(
            frame, {"descr": "|u1", "fortran_order": False, "shape": (n, size, size, 3)}
        )
        file.write(header := frame.getvalue())
        file.seek(n * size * size * 3, os.SEEK_CUR)
        notes = json.dumps(
            {"digests": [""] * n, "unreadable": {}, "kinds": [], "looks": []}
        ).encode()
        lengths = f"{len(header):8d}{len(notes):12d}".encode()
        file.write(notes + lengths + cached_array._seal(header, notes, lengths).encode())

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    read_pixels(home / "large.npy", range(8))
    before = resident()
    for start in range(0, n, 8):
        read_pixels(home / "large.npy", range(start, start + 8))
    assert resident() - before < 20_000_000
    forget(home / "large.npy")


def test_an_array_that_was_cut_short_is_named(paths: list[Path], home: Path) -> None:
    found = decode_all(paths, square(16), folder=home).cache
    os.truncate(found, 4000)
    with pytest.raises(DataError, match=r"cut short.*makes it anew"):
        read_pixels(found, range(20))
    assert not found.exists()
    assert decode_all(paths, square(16), folder=home).cache == found
    forget(found)


def test_a_changed_file_is_decoded_again(paths: list[Path], home: Path) -> None:
    first = decode_all(paths, square(16), folder=home)
    write_tiny(paths[0].parents[1], 10, 16, seed=1)
    second = decode_all(paths, square(16), folder=home)
    assert second.cache != first.cache
    assert second.digests != first.digests
    assert decode_all(paths, square(8), folder=home).cache != second.cache


def test_unreadable_images_are_remembered(paths: list[Path], home: Path) -> None:
    paths[3].write_bytes(b"")
    first = decode_all([*paths, paths[0].with_name("gone.png")], square(16), folder=home)
    assert first.unreadable == {3: "empty file", 20: "no such file"}
    assert first.digests[3] == first.digests[20] == ""
    assert all(first.digests[:3])
    forget(first.cache)
    assert decode_all([*paths, paths[0].with_name("gone.png")], square(16), folder=home) == first


def test_the_least_lately_used_makes_room_but_nothing_in_use(paths: list[Path], home: Path) -> None:
    one = 20 * 16 * 16 * 3
    arrays = []
    for i in range(3):
        arrays.append(decode_all(paths, square(16 - i), folder=home).cache)
        os.utime(arrays[i], (1_000 + i, 1_000 + i))
    forget(arrays[1])
    forget(arrays[2])
    decode_all(paths, square(10), folder=home, limit=3 * one)
    assert arrays[0].exists(), "in use"
    assert not arrays[1].exists(), "the least lately used"
    assert arrays[2].exists()
    assert read_pixels(arrays[0], [0]).sum() > 0


def test_an_array_used_by_another_process_stays(paths: list[Path], home: Path) -> None:
    array = decode_all(paths, square(16), folder=home).cache
    forget(array)
    code = (
        "from pathlib import Path; from prunedge.data.cached_array import read_pixels\n"
        f"read_pixels(Path({str(array)!r}), [0]); print('ok', flush=True); input()"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
    )
    try:
        assert reader.stdout.readline() == b"ok\n"
        decode_all(paths, square(8), folder=home, limit=10_000)
        assert array.exists()
    finally:
        reader.communicate(b"\n")
    decode_all(paths, square(7), folder=home, limit=10_000)
    assert not array.exists()


def test_what_does_not_fit_is_not_kept(
    paths: list[Path], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = decode_all(paths, square(16), folder=home, limit=1000)
    assert found.cache is None
    assert all(found.digests)
    assert not list(home.glob("*.npy"))
    assert "decoding anew each epoch" in caplog.text


def test_a_deleted_array_and_a_folder_that_cannot_be_made(
    paths: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="was deleted"):
        read_pixels(tmp_path / "gone.npy", [0])
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="PRUNEDGE_CACHE"):
        decode_all(paths, square(16), folder=tmp_path / "file" / "cache")


def test_runs_that_share_it_and_are_killed(tmp_path: Path, home: Path) -> None:
    root = write_tiny(tmp_path / "many", 100, 64)
    code = (
        "import sys; from pathlib import Path; from prunedge.data.cache import decode_all; from prunedge.data.cached_array import read_pixels\n"
        "from prunedge.edge.image.size import square\n"
        f"found = decode_all(sorted(Path({str(root)!r}).rglob('*.png')), square(64), folder=Path({str(home)!r}))\n"
        "print(found.cache.name, int(read_pixels(found.cache, range(200)).sum(dtype='int64')))"
    )

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=_environment()
        )

    victim = start()
    deadline = time.monotonic() + 30
    while (
        victim.poll() is None
        and not list(home.glob(".prunedge-*/*"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.001)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    answers = [runner.communicate()[0] for runner in [start(), start()]]
    assert answers[0] == answers[1]
    assert len(list(home.glob("*.npy"))) == 1
    assert not list(home.glob(".prunedge-*"))
    assert int(answers[0].split()[1]) == int(
        read_pixels(next(home.glob("*.npy")), range(200)).sum(dtype="int64")
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
