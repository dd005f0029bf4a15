"""Files and folders are there whole or not at all; a folder has one writer; what killed processes left is removed, and nothing else is."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest
import torch
from safetensors.torch import save_file

from prunedge.utils.files import (
    InUse,
    clear_leftovers,
    held,
    is_ours,
    locks,
    write_text,
    written,
    written_folder,
)


def hidden(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if is_ours(name))


@pytest.fixture
def other(tmp_path: Path):
    """Another process that writes a file, a folder, and holds the folder, until it is killed."""
    program = f"""
import sys
from pathlib import Path
from prunedge.utils.files import held, written, written_folder
root = Path({str(tmp_path)!r})
with held(root, "run"), written(root / "file") as file, written_folder(root / "folder", "bundle") as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    print("ready", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "first")
    with pytest.raises(RuntimeError), written(file) as temporary:
        temporary.write_text("sec")
        raise RuntimeError
    assert file.read_text() == "first"
    assert os.listdir(tmp_path) == ["file"]
    assert file.stat().st_mode & 0o777 == 0o644
    write_text(file, "zweite\n€")
    assert file.read_bytes() == "zweite\n€".encode()
    assert os.listdir(tmp_path) == ["file"]


def test_names_as_long_as_the_system_allows_and_with_brackets(tmp_path: Path) -> None:
    for name in ("n" * 255, "ö" * 127, "a[b]c*", "history.v1.jsonl"):
        write_text(tmp_path / name, name)
        with written_folder(tmp_path / "folders" / name, "bundle") as folder:
            (folder / "in").write_text(name)
        assert (
            (tmp_path / name).read_text()
            == (tmp_path / "folders" / name / "in").read_text()
            == name
        )
    assert not hidden(tmp_path)
    assert not hidden(tmp_path / "folders")


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_needs_stays(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    before = hidden(tmp_path)
    assert len(before) == 5  # three locks, a file, a folder
    clear_leftovers(tmp_path)
    write_text(tmp_path / "beside", "")
    assert hidden(tmp_path) == before
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert hidden(tmp_path) == before
    with held(tmp_path, "run"):
        assert hidden(tmp_path) == [locks.WRITER]
    assert os.listdir(tmp_path) == ["beside"]


def test_the_second_writer_is_told_who_the_first_is(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    for second in (
        lambda: held(tmp_path, "run"),
        lambda: written_folder(tmp_path / "folder", "bundle"),
    ):
        who = rf"process {other.pid} \(since .*\) is writing this (run|bundle) .*end it \(process {other.pid}\)"
        with pytest.raises(InUse, match=who), second():
            pass
    other.kill()
    other.wait()
    with held(tmp_path, "run"), written_folder(tmp_path / "folder", "bundle") as folder:
        assert not list(folder.iterdir())
    assert os.listdir(tmp_path) == ["folder"]


def test_a_thread_holds_a_folder_once_and_another_thread_does_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            with held(tmp_path, "run"):
                pass
        except InUse as error:
            refused.append(str(error))

    with held(tmp_path, "run"):
        with held(tmp_path / ".", "run"):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert f"process {os.getpid()}" in refused[0]
    with held(tmp_path, "run"):
        pass


def test_many_writers_of_one_file_each_leave_it_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from prunedge.utils.files import clear_leftovers, write_text
root = Path({str(tmp_path)!r})
for number in range(100):
    write_text(root / "file", str(number) * 1000)
    clear_leftovers(root)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    end = time.monotonic() + 60
    while any(one.poll() is None for one in writers) and time.monotonic() < end:
        if (tmp_path / "file").exists():
            text = (tmp_path / "file").read_text()
            assert text
            assert text == text[: len(text) // 1000] * 1000
    assert [one.communicate()[1] for one in writers] == [""] * 3
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_that_a_cleaner_holds_for_a_moment_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of a hidden name and its locking, another process may look after it."""
    lock = locks.lock
    refusals = [BlockingIOError(), BlockingIOError()]

    def contested(opened: IO[bytes]) -> None:
        if refusals:
            raise refusals.pop()
        lock(opened)

    monkeypatch.setattr(locks, "lock", contested)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert not refusals


@pytest.mark.parametrize("of", ["python", "safetensors"])
def test_a_full_disk_names_the_file_and_leaves_it_as_it_was(of: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as told:
            if of == "python":
                write_text(file, "x" * 2000)
            else:
                with written(file) as temporary:
                    save_file({"a": torch.zeros(2000)}, temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert told.value.errno == errno.EFBIG
    assert told.value.filename == str(file)
    assert file.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_where_the_system_has_no_locks_nothing_is_taken_for_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with written(tmp_path / "file") as temporary:
        temporary.write_text("half")
        monkeypatch.setattr(locks, "can_lock", lambda: False)
        clear_leftovers(tmp_path)
        assert temporary.read_text() == "half"
    assert (tmp_path / "file").read_text() == "half"
