"""`demo` refuses a folder that holds something else before it lays out an image; a run of another kind is left as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.runs.new import create
from tests.refusals import refusal


def a_file(place: Path) -> None:
    place.touch()


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "x").touch()


def another_run(place: Path) -> None:
    create(place, RunConfig.make("test", data="cracks", model="resnet18", weights="none", size=64))


@pytest.mark.parametrize("make", [a_file, a_folder, another_run])
def test_what_is_there_stays(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunedge.data.write_elpv", lambda out: pytest.fail("it laid out images"))
    place = tmp_path / "place"
    make(place)
    before = sorted(tmp_path.rglob("*"))
    assert str(place) in refusal("demo", "--out", place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "/", ".", "a/.."])
def test_no_name(name: str) -> None:
    assert "--out" in refusal("demo", "--out", name)
