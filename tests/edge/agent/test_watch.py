"""What is taken up from a folder, and what is left alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prunedge.edge.agent.watch import Folder
from prunedge.errors import DataError


def names(folder: Folder) -> list[str]:
    return [arrival.stamp.name for arrival in folder.arrivals()[0]]


def put(file: Path, text: bytes = b"x", age: float = 100.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_images_come_oldest_first_with_those_of_folders_below(tmp_path: Path) -> None:
    put(tmp_path / "b.png", age=50)
    put(tmp_path / "below" / "deeper" / "a.JPG", age=70)
    put(tmp_path / "c.tif", age=60)
    assert names(Folder(tmp_path, 1)) == ["below/deeper/a.JPG", "c.tif", "b.png"]


def test_what_is_no_image_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.png", ".folder/a.png", "a.png.part"):
        put(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert Folder(tmp_path, 1).arrivals() == ([], 0)


def test_a_file_that_is_being_written_waits(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 0.2)
    file = put(tmp_path / "a.png", age=-1000)  # a clock that is ahead: its age says nothing
    assert folder.arrivals() == ([], 1)
    time.sleep(0.15)
    put(file, b"xy", age=-1000)
    assert folder.arrivals() == ([], 1)
    time.sleep(0.15)
    assert folder.arrivals() == ([], 1)
    time.sleep(0.1)
    assert names(folder) == ["a.png"]


def test_an_empty_file_is_never_ready_and_nobody_waits_for_it(tmp_path: Path) -> None:
    put(tmp_path / "a.png", b"")
    assert Folder(tmp_path, 1).arrivals() == ([], 0)


def test_what_is_done_comes_again_only_when_it_changes(tmp_path: Path) -> None:
    folder, file = Folder(tmp_path, 1), put(tmp_path / "a.png")
    (arrival,) = folder.arrivals()[0]
    folder.done(arrival)
    assert names(folder) == []
    put(file, b"other", age=90)
    assert names(folder) == ["a.png"]


def test_a_name_that_is_no_utf_8_is_spelled_out(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(b"x")
    (arrival,) = Folder(tmp_path, 0).arrivals()[0]
    assert arrival.stamp.name == "\\udcff.png"
    assert arrival.path.read_bytes() == b"x"


def test_a_folder_that_is_gone_is_one_line_and_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--watch"):
        Folder(tmp_path / "none", 1)
    put(tmp_path / "usb" / "a.png")
    folder = Folder(tmp_path / "usb", 1)
    (tmp_path / "usb").rename(tmp_path / "unplugged")
    with pytest.raises(DataError, match="mounted"):
        folder.arrivals()
    (tmp_path / "unplugged").rename(tmp_path / "usb")
    assert names(folder) == ["a.png"]
