"""What a user names to be written: no device is replaced, no file of a run overwritten, a link is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prunedge.cli.app import main
from tests.irregular import Refused, in_time, is_pipe, pipe, refused

__all__ = ["in_time", "refused"]
pytestmark = pytest.mark.usefixtures("in_time")


def test_a_drawing_replaces_no_device(tmp_path: Path, refused: Refused) -> None:
    target = pipe(tmp_path / "pipe.svg")
    told = refused("groups", "--model", "tests.small_models:tiny", "--size", 16, "--svg", target)
    assert "named pipe" in told
    assert str(target) in told
    assert is_pipe(target)


def test_a_drawing_is_called_one(tmp_path: Path, refused: Refused) -> None:
    config = tmp_path / "config.toml"
    config.write_text("kept")
    told = refused("groups", "--model", "tests.small_models:tiny", "--size", 16, "--svg", config)
    assert "--svg" in told
    assert ".svg" in told
    assert config.read_text() == "kept"


def test_a_drawing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "drawing.svg").symlink_to("real.svg")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "groups",
                "--model",
                "tests.small_models:tiny",
                "--size",
                "16",
                "--svg",
                str(tmp_path / "drawing.svg"),
            ]
        )
    assert ended.value.code == 0
    assert sorted(os.listdir(tmp_path)) == ["drawing.svg", "real.svg"]
    assert (tmp_path / "drawing.svg").is_symlink()
