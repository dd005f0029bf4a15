"""A set of which no image can be read is refused in one line, whether unreadable ones may be skipped or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.data import load
from prunedge.errors import DataError
from tests.irregular import Refused, refused
from tests.tiny_images import write_tiny

__all__ = ["refused"]


def damaged(root: Path) -> Path:
    """Class folders whose images are all cut short."""
    data = write_tiny(root / "data", 6, 16)
    for file in data.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:40])
    return data


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("folds", [None, 2])
def test_nothing_can_be_read(tmp_path: Path, skips: bool, folds: int | None) -> None:
    data = damaged(tmp_path)
    with pytest.raises(DataError, match="none of 12 ") as error:
        load(data, size=16, skip_unreadable=skips, folds=folds, fold=0)
    assert error.value.where == str(data)
    assert "000.png" in str(error.value)
    assert "skip" not in str(error.value.remedy)


def test_the_verbs_say_it_in_a_line(tmp_path: Path, refused: Refused) -> None:
    data = damaged(tmp_path)
    line = [
        "--model",
        "tests.small_models:tiny",
        "--weights",
        "none",
        "--size",
        16,
        "--out",
        tmp_path / "out",
    ]
    assert "none of 12 " in refused("check", data)
    assert "none of 12 " in refused("train", data, *line, "--skip-unreadable")
    assert not (tmp_path / "out").exists()
