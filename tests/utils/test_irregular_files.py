"""What is no regular file is neither read nor replaced: pipes, sockets and folders where a file was wanted, and links.

Whatever could wait for ever runs against an alarm. Real devices are never touched: a named pipe stands for them.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Thread

import pytest

from prunedge.errors import DataError, PrunedgeError
from prunedge.utils.files import (
    LARGEST_SECRET,
    WRITER,
    behind_links,
    held,
    read_bytes,
    read_secret,
    require_regular,
    write_text,
    written_folder,
)
from tests.irregular import in_time, is_pipe, pipe

__all__ = ["in_time"]
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
pytestmark = [needs_pipes, pytest.mark.usefixtures("in_time")]


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        # A short name: a socket's may have no more than 100 bytes.
        there = os.getcwd()
        os.chdir(tmp_path)
        listening.bind("socket")
        os.chdir(there)
        pipe(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
        kinds = {"pipe": "named pipe", "link": "named pipe", "socket": "socket", ".": "folder"}
        for name, kind in kinds.items():
            with pytest.raises(DataError, match=f"{kind}, not a file") as refused:
                read_bytes(tmp_path / name, DataError)
            assert refused.value.where == tmp_path / name
            assert refused.value.remedy


def test_what_is_missing_or_a_file_passes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "link", "loop", "missing", "nul\0"):
        require_regular(tmp_path / name)
    assert read_bytes(tmp_path / "link") == b"content"


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    target = pipe(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(PrunedgeError, match="named pipe"):
            write_text(tmp_path / name, "text")
    assert is_pipe(target)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_link_that_the_user_named_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere/file")
    for text in ("first", "second"):
        write_text(behind_links(link), text)
        assert link.is_symlink()
        assert (tmp_path / "elsewhere" / "file").read_text() == text
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


def test_a_link_in_a_folder_of_somebody_else_leads_to_no_file_of_yours(tmp_path: Path) -> None:
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "file").write_text("yours")
    (tmp_path / "report.html").symlink_to("yours/file")
    (tmp_path / "step-001").symlink_to("yours")
    write_text(tmp_path / "report.html", "a page")
    with written_folder(tmp_path / "step-001", "checkpoint") as folder:
        (folder / "plan.json").write_text("{}")
    assert (tmp_path / "yours" / "file").read_text() == "yours"
    assert not (tmp_path / "report.html").is_symlink()
    assert os.listdir(tmp_path / "step-001") == ["plan.json"]


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PrunedgeError, match="leads to itself"):
        behind_links(tmp_path / "loop")
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_stays_and_the_folder_is_made(tmp_path: Path, is_there: bool) -> None:
    real = tmp_path / "elsewhere" / "real"
    if is_there:
        real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    with written_folder(behind_links(tmp_path / "link"), "bundle") as folder:
        (folder / "file").write_text("content")
    assert (tmp_path / "link").is_symlink()
    assert (real / "file").read_text() == "content"
    assert os.listdir(real.parent) == ["real"]


def test_a_lock_that_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe(tmp_path / WRITER)
    with pytest.raises(PrunedgeError, match="named pipe"), held(tmp_path, "run"):
        pass


def test_a_secret_may_come_from_a_pipe_but_not_without_end(tmp_path: Path) -> None:
    for size, is_taken in ((1000, True), (LARGEST_SECRET + 1, False)):
        file = pipe(tmp_path / f"pipe{size}")
        writer = Thread(target=file.write_bytes, args=(b"x" * size,), daemon=True)
        writer.start()
        if is_taken:
            assert read_secret(file) == b"x" * size
        else:
            with pytest.raises(PrunedgeError, match="no password"):
                read_secret(file)
        writer.join(5)
