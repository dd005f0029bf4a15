"""The size that a model sees: how it is written, and what becomes of images of another shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunedge.edge.image.size import PADDING, Resize, Size, parse_size, resized, square
from prunedge.errors import DataError

SIDES = st.integers(8, 96)
SIZES = st.builds(Size, SIDES, SIDES)
MODES: tuple[Resize, ...] = ("stretch", "pad", "crop")


def noise(size: Size, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(size: Size) -> Image.Image:
    """Red grows by 2 from column to column, green by 2 from row to row, blue is 0."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = 2 * np.arange(size.width)
    pixels[..., 1] = 2 * np.arange(size.height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (224, Size(224, 224)),
        ("224", Size(224, 224)),
        ("128x384", Size(128, 384)),
        (" 8X4096 ", Size(8, 4096)),
        ("16×32", Size(16, 32)),
    ],
)
def test_a_size_is_one_side_or_height_times_width(text: str | int, size: Size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "12x", "x12", "1.5", "-16", "16x16x16", "large", -1])
def test_what_is_no_size_is_refused_with_examples(text: str | int) -> None:
    with pytest.raises(DataError, match="is no size of images") as refused:
        parse_size(text)
    assert "128x384" in str(refused.value)


@pytest.mark.parametrize("text", ["7", "8x7", "4097x8", 0])
def test_sides_have_limits(text: str | int) -> None:
    with pytest.raises(DataError, match="give sides from 8 to 4,096"):
        parse_size(text)


@given(SIZES)
def test_a_size_is_written_as_it_is_read(size: Size) -> None:
    assert parse_size(str(size)) == size
    assert ("x" in str(size)) == (size.height != size.width)


@given(image=SIZES, size=SIZES, resize=st.sampled_from(MODES))
def test_every_image_gets_the_size(image: Size, size: Size, resize: Resize) -> None:
    pixels = resized(noise(image), size, resize)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8


@given(size=SIZES, resize=st.sampled_from(MODES))
def test_an_image_of_the_size_stays_as_it_is(size: Size, resize: Resize) -> None:
    image = noise(size)
    assert (resized(image, size, resize) == np.asarray(image)).all()


@given(side=SIDES, other=SIDES)
def test_squares_are_the_same_in_every_mode(side: int, other: int) -> None:
    image = noise(square(side))
    stretched = resized(image, square(other))
    assert (resized(image, square(other), "pad") == stretched).all()
    assert (resized(image, square(other), "crop") == stretched).all()


@given(image=SIZES, size=SIZES)
def test_padding_lies_on_two_sides_and_the_image_between_them(image: Size, size: Size) -> None:
    # White and black alone: no pixel of the image has the border's colour.
    pixels = resized(Image.new("RGB", (image.width, image.height), "white"), size, "pad")
    is_border = (pixels == PADDING).all(axis=2)
    assert ((pixels == 255).all(axis=2) | is_border).all()

    rows = np.flatnonzero(~is_border.all(axis=1))
    columns = np.flatnonzero(~is_border.all(axis=0))
    height = rows[-1] - rows[0] + 1
    width = columns[-1] - columns[0] + 1
    assert (~is_border).sum() == height * width, "a rectangle"
    assert height == size.height or width == size.width, "as large as it can be"
    for before, inside, side in (
        (rows[0], height, size.height),
        (columns[0], width, size.width),
    ):
        after = side - before - inside
        assert after - before in (0, 1), "in the middle"


@given(image=SIZES, size=SIZES)
def test_padding_scales_both_sides_alike_to_a_pixel(image: Size, size: Size) -> None:
    pixels = resized(Image.new("RGB", (image.width, image.height), "white"), size, "pad")
    is_image = (pixels == 255).all(axis=2)
    height = int(is_image.any(axis=1).sum())
    width = int(is_image.any(axis=0).sum())
    scale = min(size.height / image.height, size.width / image.width)
    assert abs(height - scale * image.height) <= 1
    assert abs(width - scale * image.width) <= 1


@given(image=SIZES, size=SIZES)
def test_a_crop_is_the_middle_and_has_no_border(image: Size, size: Size) -> None:
    pixels = resized(ramp(image), size, "crop").astype(float)
    scale = max(size.height / image.height, size.width / image.width)
    # In the middle of the result lies the middle of the image.
    for plane, axis, side in ((0, 1, image.width), (1, 0, image.height)):
        line = pixels[..., plane].mean(axis=1 - axis)
        assert line.mean() == pytest.approx(side - 1, abs=2)
        # And it goes up as the image does, at the scale of both sides.
        if scale >= 1 and len(line) > 16:
            inner = line[4:-4]
            slope = (inner[-1] - inner[0]) / (len(inner) - 1)
            assert slope == pytest.approx(2 / scale, abs=0.25)


def test_only_stretching_distorts() -> None:
    """A disc stays a disc, or becomes an ellipse."""
    rows, columns = np.mgrid[0:60, 0:120]
    disc = (rows - 30) ** 2 + (columns - 60) ** 2 < 20**2
    image = Image.fromarray(np.repeat(255 * disc[..., None].astype(np.uint8), 3, axis=2))

    def proportions(resize: Resize) -> float:
        pixels = resized(image, square(60), resize)
        is_disc = (pixels > 200).all(axis=2)
        return float(is_disc.any(axis=1).sum() / is_disc.any(axis=0).sum())

    assert proportions("stretch") == pytest.approx(2, abs=0.15)
    assert proportions("pad") == pytest.approx(1, abs=0.1)
    assert proportions("crop") == pytest.approx(1, abs=0.1)


def test_the_padding_is_nearly_zero_once_normalised() -> None:
    from prunedge.edge.image.normalise import normalise

    border = np.full((1, 8, 8, 3), PADDING, np.uint8)
    assert abs(normalise(border)).max() < 0.02
