"""Symbolic links that lead to themselves, where a device reads: each is one clear error."""

from __future__ import annotations

import ssl
from pathlib import Path
from threading import Event

import pytest

from prunedge.edge import open_bundle
from prunedge.edge.inspect.sources import open_source
from prunedge.edge.update.announcement import parse_origins
from prunedge.edge.update.fetch import fetch
from prunedge.errors import AgentError, BundleError, PrunedgeError
from tests.small_bundles import bundle, made_bundle

__all__ = ["bundle", "made_bundle"]


def loop(file: Path) -> Path:
    """A link that leads to itself, in the place of whatever lies there."""
    file.unlink(missing_ok=True)
    file.symlink_to(file.name)
    return file


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "selftest.npz"])
def test_a_file_of_a_bundle(name: str, bundle: Path) -> None:
    file = loop(bundle / name)
    with pytest.raises(BundleError) as error:
        open_bundle(bundle)
    assert str(error.value.where) in (str(file), str(bundle))
    assert error.value.remedy


def test_a_bundle_that_is_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_bundle(loop(tmp_path / "bundle"))


def test_what_is_inspected(tmp_path: Path) -> None:
    with pytest.raises(PrunedgeError):
        open_source(str(loop(tmp_path / "photos")))


def test_a_folder_of_results(tmp_path: Path) -> None:
    (tmp_path / "photos" / "more").mkdir(parents=True)
    (tmp_path / "photos" / "more" / "a.png").touch()
    assert open_source(str(tmp_path / "photos"), out=loop(tmp_path / "out")).total == 1


def fetched(place: Path, into: Path) -> None:
    """Fetch a bundle from a folder, as an agent does that was told of it."""
    context = ssl.create_default_context()
    fetch(place, into, lambda manifest: None, largest=10**9, context=context, stop=Event())


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_file_of_an_announced_bundle(name: str, bundle: Path, tmp_path: Path) -> None:
    loop(bundle / name)
    with pytest.raises(AgentError):
        fetched(bundle, tmp_path / "into")


def test_an_announced_folder(tmp_path: Path) -> None:
    origins = parse_origins([str(tmp_path)])
    with pytest.raises(AgentError):
        place = origins.place(str(loop(tmp_path / "bundle")))
        assert isinstance(place, Path)
        fetched(place, tmp_path / "into")
