"""Values and paths at the ends of what is possible: refused in a line, or taken."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.edge.agent import UpdateSettings
from prunedge.edge.inspect import Settings
from prunedge.errors import AgentError, DataError, PrunedgeError
from prunedge.runs.new import create
from prunedge.utils.files import make_folder, written_folder
from tests.edge.agent.conftest import bundles, settings
from tests.irregular import in_time

__all__ = ["bundles", "in_time", "settings"]
pytestmark = pytest.mark.usefixtures("in_time")


@pytest.mark.parametrize("value", [1e-320, 1e-300, 1e-7, 1.1e6, 1e300])
def test_millimetres_that_no_pixel_shows(value: float) -> None:
    with pytest.raises(DataError, match="--mm-per-pixel"):
        Settings(mm_per_pixel=value)


def test_millimetres_that_a_pixel_may_show() -> None:
    for value in (1e-6, 0.4, 1e6):
        assert Settings(mm_per_pixel=value).mm_per_pixel == value


@pytest.mark.parametrize("value", [1.1e6, 1e308])
def test_images_that_no_memory_holds(value: float) -> None:
    with pytest.raises(DataError, match="--max-megapixels"):
        Settings(max_megapixels=value)


@pytest.mark.parametrize("name", ["every", "settle"])
def test_times_that_nothing_can_wait_for(name: str, settings) -> None:
    with pytest.raises(AgentError, match="longer than a year"):
        replace(settings, **{name: 1e300})
    with pytest.raises(AgentError, match="longer than a year"):
        UpdateSettings(fetch_seconds=1e300)


def test_folders_a_thousand_levels_deep(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a"] * 1500)
    make_folder(deep)
    make_folder(deep)
    assert deep.is_dir()
    with written_folder(deep.joinpath(*["b"] * 50), "bundle") as folder:
        (folder / "file").touch()
    assert (
        create(deep / "run", RunConfig.make("test", data="d", model="resnet18")).path
        == deep / "run"
    )
    # What removes a test's folder can't go so deep.
    subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError):
            make_folder(place)
        with pytest.raises(PrunedgeError):
            create(place, RunConfig.make("test", data="d", model="resnet18"))


def test_a_link_that_leads_nowhere_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError):
        make_folder(tmp_path / "link" / "below")
