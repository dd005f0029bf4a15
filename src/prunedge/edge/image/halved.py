"""Large photographs in less than half the memory: brightness whole, colours at half size."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from prunedge.edge.image.apart import NO_MEMORY
from prunedge.edge.image.png import bands, exif_of
from prunedge.edge.image.read import Greys, rgb

Box = tuple[
    int, int, int, int
]  # left, top, right, bottom in pixels; right and bottom are the first outside


Cut = Callable[[Box], Image.Image]  # a part of the stored image


FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "GIF",
)  # by content; others (EPS) would start programs of their own


BAND = 256  # rows; even, so that halves of them meet


HALVED = "large: its colours (not its brightness) were read at half size"


def is_ycbcr(image: Any) -> bool:
    """Whether a JPEG holds brightness and colours, as nearly all do, and not red, green and
    blue.
    """
    if image.mode != "RGB" or image.layers != 3 or image.info.get("adobe_transform") == 0:
        return False
    return bytes(layer[0] for layer in image.layer) != b"RGB"


def is_halved(image: Any) -> bool:
    """Whether a JPEG stores its colours at half size, as most cameras do."""
    return [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]


def split_jpeg(image: Any, where: Path) -> tuple[Cut, list[str]]:
    """Decoded twice: its colours at half size, its brightness alone."""
    half: Any = Image.open(where, formats=FORMATS)
    half.draft("YCbCr", (image.width // 2, image.height // 2))
    blue = half.getchannel("Cb")
    red = half.getchannel("Cr")
    half.close()
    del half
    notes = [] if is_halved(image) else [HALVED]
    image.draft("L", image.size)
    image.load()
    return _joined(image, blue, red), notes


def split_progressive(image: Any, where: Path) -> tuple[Cut, list[str]]:
    """As `split_jpeg`, of a JPEG that can only be decoded with all its coefficients in memory: in a
    process of its own, from which the planes come as files that are read where they are needed.
    """
    folder = tempfile.TemporaryDirectory(prefix="prunedge-", ignore_cleanup_errors=True)
    target = str(Path(folder.name, "plane"))
    command = [sys.executable, str(Path(__file__).with_name("apart.py")), str(where), target]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == NO_MEMORY or done.returncode == -signal.SIGKILL:
        raise MemoryError
    if done.returncode:
        raise OSError(done.stderr.strip() or "the decoder ended")
    half = (-(-image.width // 2), -(-image.height // 2))
    light = _mapped(Path(f"{target}.light"), image.size)
    blue, red = (_mapped(Path(f"{target}.{name}"), half) for name in ("blue", "red"))
    cut = _joined(light, blue, red)

    def cut_while_there(box: Box) -> Image.Image:
        assert folder  # the files go with it, and it with what is cut from them
        return cut(box)

    return cut_while_there, [] if is_halved(image) else [HALVED]


def _mapped(file: Path, size: tuple[int, int]) -> Image.Image:
    """A plane in a file, of which only what is looked at comes into memory."""
    with file.open("rb") as opened:
        content: Any = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return Image.frombuffer("L", size, content, "raw", "L", 0, 1)


def split_png(image: Image.Image, where: Path, greys: Greys | None) -> tuple[Cut, list[str]]:
    """Decoded in bands, each split into its brightness and its colours at half size."""
    light = Image.new("L", image.size)
    half = (-(-image.width // 2), -(-image.height // 2))
    blue = Image.new("L", half)
    red = Image.new("L", half)
    for top, band in bands(where, BAND):
        planes = rgb(band, greys).convert("YCbCr").split()
        light.paste(planes[0], (0, top))
        blue.paste(planes[1].reduce(2), (0, top // 2))
        red.paste(planes[2].reduce(2), (0, top // 2))
    image.info["exif"] = exif_of(where)
    return _joined(light, blue, red), [HALVED]


def _joined(light: Image.Image, blue: Image.Image, red: Image.Image) -> Cut:
    def cut(box: Box) -> Image.Image:
        left, top, right, bottom = box
        size = (right - left, bottom - top)
        half = (left / 2, top / 2, right / 2, bottom / 2)
        colours = [plane.resize(size, Image.Resampling.BILINEAR, box=half) for plane in (blue, red)]
        return Image.merge("YCbCr", (light.crop(box), *colours)).convert("RGB")

    return cut
