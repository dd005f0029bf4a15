"""Images in grey for models that see one channel: as Pillow's L has them, from the file to the batch; and images that are grey anyway are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunedge.data import Dataset, check, load
from prunedge.data.all_grey import is_all_grey
from prunedge.edge.image.normalise import IMAGENET_MEAN, IMAGENET_STD, statistics
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import GREY_PADDING, Size, square
from tests.tiny_images import write_tiny


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("coloured"), 12, 16)


@pytest.fixture(scope="module")
def grey(coloured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in grey: half of them stored so, half as three equal channels."""
    folder = tmp_path_factory.mktemp("grey")
    for file in coloured.rglob("*.png"):
        target = folder / file.relative_to(coloured)
        target.parent.mkdir(exist_ok=True)
        image = Image.open(file).convert("L")
        (image if int(file.stem) % 2 else image.convert("RGB")).save(target)
    return folder


def loaded(folder: Path, cache: Path, **settings: Any) -> Dataset:
    return load(folder, size=16, cache_dir=cache, **settings)


def test_pixels_are_those_of_pillows_grey(coloured: Path, tmp_path: Path) -> None:
    data = loaded(coloured, tmp_path, in_channels=1)
    pixels = data.val.pixels(range(len(data.val)))
    assert pixels.shape == (len(data.val), 16, 16, 1)
    for image, sample in zip(pixels, data.val.samples, strict=True):
        wanted = np.asarray(Image.open(sample.path).convert("L"))
        assert (image[..., 0] == wanted).all()
    assert data.spec.in_channels == 1
    assert data.spec.image_shape == (1, 16, 16)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_colours_become_grey_before_an_image_is_resized(tmp_path: Path, resize: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.png")
    size = Size(16, 24)
    found = read_image(tmp_path / "colour.png", size, None, resize, 1)
    wanted = read_image(tmp_path / "grey.png", size, None, resize)
    assert found.shape == (16, 24, 1)
    assert (found == wanted[..., :1]).all()


def test_the_border_of_a_padded_image_is_nearly_zero_once_normalised(tmp_path: Path) -> None:
    Image.new("L", (8, 16), 255).save(tmp_path / "white.png")
    pixels = read_image(tmp_path / "white.png", square(16), None, "pad", 1)
    assert pixels.shape == (16, 16, 1)
    assert (pixels[:, :4] == GREY_PADDING).all()
    assert (pixels[:, 4:12] == 255).all()
    (mean,), (std,) = statistics("imagenet", 1)
    assert abs((GREY_PADDING[0] / 255 - mean) / std) < 0.02


def test_greys_are_normalised_by_the_mean_over_the_colours() -> None:
    mean, std = statistics("imagenet", 1)
    assert mean == (pytest.approx(np.mean(IMAGENET_MEAN)),)
    assert std == (pytest.approx(np.mean(IMAGENET_STD)),)
    assert statistics("half", 1) == ((0.5,), (0.5,))


@pytest.mark.parametrize("augment", ["none", "full"])
def test_batches_of_grey_images_are_a_channel_of_those_of_three(
    grey: Path, tmp_path: Path, augment: Any
) -> None:
    three = loaded(grey, tmp_path, image_norm="half")
    one = loaded(grey, tmp_path, image_norm="half", in_channels=1)
    pairs = zip(
        three.train.batches(8, shuffle_seed=1, augment=augment),
        one.train.batches(8, shuffle_seed=1, augment=augment),
        strict=True,
    )
    for (wanted, labels), (found, other_labels) in pairs:
        assert torch.equal(labels, other_labels)
        assert found.shape[1] == 1
        torch.testing.assert_close(found, wanted[:, :1], rtol=1e-4, atol=1e-3)


def test_the_two_are_not_the_same_data(grey: Path, tmp_path: Path) -> None:
    three = loaded(grey, tmp_path)
    one = loaded(grey, tmp_path, in_channels=1)
    assert one.train.cache != three.train.cache
    assert one.fingerprint != three.fingerprint
    assert one.train_fingerprint() != three.train_fingerprint()
    # The splits are the same all the same.
    assert [x.path for x in one.val.samples] == [x.path for x in three.val.samples]


def test_images_that_look_alike_are_found_in_grey(grey: Path, tmp_path: Path) -> None:
    twin = grey.parent / "twins"
    for file in grey.rglob("*.png"):
        (twin / file.parent.name).mkdir(parents=True, exist_ok=True)
        image = Image.open(file)
        image.save(twin / file.parent.name / file.name)
        image.save(twin / file.parent.name / f"again-{file.name}")
    data = loaded(twin, tmp_path, in_channels=1, group_by="similar")
    sides: dict[str, set[str]] = {}
    for side, split in data.splits().items():
        for sample in split.samples:
            name = f"{sample.path.parent.name}/{sample.path.name.removeprefix('again-')}"
            sides.setdefault(name, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())


def test_grey_images_are_noticed_however_they_are_stored(grey: Path, tmp_path: Path) -> None:
    assert is_all_grey(loaded(grey, tmp_path))
    assert not is_all_grey(loaded(grey, tmp_path, in_channels=1))  # nothing is left to gain


def test_one_pixel_of_colour_is_enough_where_all_are_looked_at(grey: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nearly"
    for file in grey.rglob("*.png"):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(file).save(folder / file.parent.name / file.name)
    file = folder / "crack" / "004.png"
    image = Image.open(file)
    assert image.mode == "RGB"
    image.putpixel((3, 5), (200, 100, 100))
    image.save(file)
    assert not is_all_grey(loaded(folder, tmp_path / "cache"), most=None)


def test_a_check_tells_of_grey_images(grey: Path, coloured: Path, tmp_path: Path) -> None:
    assert check(grey, size=16, cache_dir=tmp_path).is_all_grey
    assert not check(coloured, size=16, cache_dir=tmp_path).is_all_grey
