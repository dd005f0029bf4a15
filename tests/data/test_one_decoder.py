"""A photograph is seen the same whether it is trained on, cut into patches that are trained on, or inspected: one code for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from prunedge.data.masks import read_photo
from prunedge.data.patch_files import storable
from prunedge.edge.image.photograph import open_photo
from prunedge.edge.image.read import Greys, read_image
from prunedge.edge.image.size import square

WIDTH, HEIGHT, SIZE = 48, 32, 16
BOX = (8, 4, 8 + SIZE, 4 + SIZE)
DEEP = Greys(100.0, 60_000.0)


def colours() -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    )


def holes() -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    )


def with_holes(image: Image.Image) -> Image.Image:
    image.putalpha(holes())
    return image


def deep(kind: str) -> Callable[[], Image.Image]:
    values = np.random.default_rng(2).integers(0, 65_536, (HEIGHT, WIDTH))
    return lambda: Image.fromarray(values.astype(kind))


MODES: dict[str, tuple[Callable[[], Image.Image], Greys | None]] = {
    "RGB": (colours, None),
    "RGBA": (lambda: with_holes(colours()), None),
    "LA": (lambda: with_holes(colours().convert("L")), None),
    "L": (lambda: colours().convert("L"), None),
    "1": (lambda: colours().convert("1"), None),
    "P": (lambda: colours().quantize(16), None),
    "I;16": (deep("uint16"), DEEP),
    "I": (deep("int32"), DEEP),
    "F": (deep("float32"), DEEP),
}
# (mode, suffix, what else is saved): one colour that is transparent, or a palette whose colours are more and less so.
KINDS = [
    *((mode, ".png", {}) for mode in ("RGB", "RGBA", "LA", "L", "1", "P", "I;16")),
    *((mode, ".tif", {}) for mode in ("RGB", "RGBA", "L", "1", "I;16", "I", "F")),
    ("RGB", ".png", {"transparency": (7, 7, 7)}),
    ("L", ".png", {"transparency": 90}),
    ("P", ".png", {"transparency": 3}),
    ("P", ".png", {"transparency": bytes(range(0, 256, 16))}),
    ("RGBA", ".webp", {"lossless": True}),
    ("RGB", ".jpg", {"quality": 95}),
]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("mode", "suffix", "more"), KINDS, ids=str)
def test_the_same_pixels_from_training_patches_and_inspection(
    mode: str, suffix: str, more: dict[str, object], orientation: int, tmp_path: Path
) -> None:
    make, greys = MODES[mode]
    image, file = make(), tmp_path / f"photo{suffix}"
    if "transparency" in more and mode in ("RGB", "L"):
        pixels = np.asarray(image).copy()
        pixels[::2] = more["transparency"]
        image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(file, exif=exif, **more)
    photo = open_photo(file, 1.0, greys)
    inspected = photo.patch(BOX, square(SIZE))
    # Cut for training, then read as training does.
    patch, kind = storable(read_photo(file).crop(BOX))
    patch.save(tmp_path / f"patch{kind}")
    assert (read_image(tmp_path / f"patch{kind}", square(SIZE), greys) == inspected).all()
    # The photograph itself, as training reads it.
    width, height = photo.width, photo.height
    assert {width, height} == {WIDTH, HEIGHT}
    whole = photo.patch((0, 0, width, height), square(24))
    assert (read_image(file, square(24), greys) == whole).all()
    assert inspected.std() > 10  # and there is something to see


def test_transparency_lies_on_black_everywhere(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (SIZE, SIZE), (255, 255, 255, 0))
    clear.save(tmp_path / "clear.png")
    assert not read_image(tmp_path / "clear.png", square(SIZE)).any()
    assert not open_photo(tmp_path / "clear.png", 1.0).patch((0, 0, SIZE, SIZE), square(SIZE)).any()
    assert not np.asarray(
        storable(read_photo(tmp_path / "clear.png").crop((0, 0, SIZE, SIZE)))[0]
    ).any()
