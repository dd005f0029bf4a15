"""Bundles whose model sees one channel, on the device: read, tiled, tried out and timed in grey, drawn in colour."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunedge.edge import open_bundle
from prunedge.edge.bench.candidates import Candidate
from prunedge.edge.bench.measure import bench
from prunedge.edge.bundle import Bundle
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.edge.inspect import Settings, inspect_image
from prunedge.edge.inspect.overlay import draw_overlay
from prunedge.edge.predict import Predictor, predict
from prunedge.edge.session import open_session
from prunedge.edge.update.selftest import selftest
from prunedge.errors import BundleError
from prunedge.utils import checksums
from tests.edge.made_bundles import write_darkest

SIZE = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that finds dark pixels in grey images."""
    return write_darkest(tmp_path_factory.mktemp("grey") / "bundle", SIZE, in_channels=1)


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    return open_bundle(place)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A bright blueish photograph with a black box."""
    image = Image.new("RGB", (160, 96), (170, 170, 255))
    image.paste((0, 0, 0), (64, 32, 72, 40))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_manifest_says_how_many_channels_the_model_sees(bundle: Bundle) -> None:
    assert bundle.manifest.task.in_channels == 1
    assert bundle.manifest.mean == (pytest.approx(0.449),)
    assert bundle.manifest.std == (pytest.approx(0.226),)


def test_a_manifest_that_does_not_say_is_of_three_channels(tmp_path: Path) -> None:
    folder = write_darkest(tmp_path / "bundle", SIZE)
    _rewrite(folder, lambda record: record["task"].pop("in_channels"))
    assert open_session(open_bundle(folder)).self_test().agreement == 1


def test_statistics_of_another_number_of_channels_are_refused(place: Path, tmp_path: Path) -> None:
    folder = write_darkest(tmp_path / "bundle", SIZE, in_channels=1)
    _rewrite(folder, lambda record: record.update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(BundleError, match="mean and std of 1 channel") as error:
        open_bundle(folder)
    assert "\n" not in str(error.value)


def test_a_model_of_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    folder = write_darkest(tmp_path / "bundle", SIZE)

    def lie(record: dict[str, Any]) -> None:
        record["task"]["in_channels"] = 1
        record["mean"] = record["std"] = [0.5]

    _rewrite(folder, lie)
    with pytest.raises(BundleError, match="the manifest says 16 pixels and 1 channel"):
        open_session(open_bundle(folder))


def test_images_are_answered_in_grey(bundle: Bundle, tmp_path: Path) -> None:
    bright = tmp_path / "bright.png"
    Image.new("RGB", (SIZE, SIZE), (230, 220, 210)).save(bright)
    dark = tmp_path / "dark.png"
    Image.new("L", (SIZE, SIZE), 0).save(dark)
    session = open_session(bundle)
    found = list(predict(Predictor.of(session), [str(bright), str(dark)]))
    assert [each.answer for each in found] == ["noncrack", "crack"]


def test_a_tile_is_what_a_file_of_it_would_be(photo: Path, tmp_path: Path) -> None:
    box = (48, 16, 112, 80)
    Image.open(photo).crop(box).save(tmp_path / "part.png")
    tile = open_photo(photo, 1).patch(box, square(SIZE), "stretch", 1)
    assert tile.shape == (SIZE, SIZE, 1)
    assert (tile == read_image(tmp_path / "part.png", square(SIZE), None, "stretch", 1)).all()


def test_a_photograph_is_inspected_in_grey_and_drawn_in_colour(bundle: Bundle, photo: Path) -> None:
    found = inspect_image(photo, open_session(bundle), Settings(patch=SIZE))
    (region,) = found.regions
    assert region.left <= 64
    assert region.right >= 72
    assert region.top <= 32
    assert region.bottom >= 40
    overlay = np.asarray(draw_overlay(open_photo(photo, 1), found, 0.5))
    assert tuple(overlay[0, 0]) == (170, 170, 255)


def test_a_new_bundle_is_tried_out_on_images_in_grey(place: Path, photo: Path) -> None:
    assert selftest(place, [photo]) > 0


@pytest.mark.parametrize("with_images", [True, False])
def test_it_is_timed_beside_one_of_three_channels(
    bundle: Bundle, photo: Path, tmp_path: Path, with_images: bool
) -> None:
    other = open_bundle(write_darkest(tmp_path / "three", SIZE))
    result = bench(
        [Candidate(other), Candidate(bundle)],
        patches=4,
        images=photo.parent if with_images else None,
    )
    assert [each["self_test"]["agreement"] for each in result.bundles] == [1, 1]


def test_it_needs_no_torch(place: Path, photo: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from prunedge.cli.app import main\n"
        f"main(['predict', {str(place)!r}, {str(photo)!r}, '--out', {str(answers)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ",crack," in answers.read_text(encoding="utf-8")


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a bundle, and seal it again."""
    file = folder / "manifest.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    change(record)
    del record[checksums.KEY]
    file.write_text(json.dumps(checksums.sealed(record, file.name)), encoding="utf-8")
