"""What a TIFF says of its numbers: more kinds than Pillow's modes hold."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import IO, Any

from PIL import Image, TiffImagePlugin

SAMPLE_FORMAT = 339  # TIFF's tag for the kind of its numbers
BITS = 258  # the tag for their bits
SIGNED = 2  # a kind: two's complement
_BIG_TIFF = 43  # what tells a TIFF of more than 4 GB, whose header is longer


_NUMBERS = {
    1: "whole numbers",
    2: "signed numbers",
    3: "floats",
    5: "complex whole numbers",
    6: "complex numbers",
}


STRANGE_REMEDY = "save it with floats of 32 bits, or with whole numbers of 8 or 16"


def strange_numbers(path: Path | str | IO[bytes]) -> str | None:
    """What numbers a TIFF holds, in words, that Pillow takes for no image: floats of 64 bits,
    say. None for any other file.
    """
    try:
        with contextlib.ExitStack() as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what is cut off
            file: Any = (
                opened.enter_context(open(path, "rb")) if isinstance(path, (str, Path)) else path
            )
            file.seek(0)
            header = file.read(8)
            if header[:2] not in (b"II", b"MM"):
                return None
            directory = TiffImagePlugin.ImageFileDirectory_v2(
                header + (file.read(8) if _BIG_TIFF in header[2:4] else b"")
            )
            file.seek(directory.next)
            directory.load(file)
        bits = _first(directory.get(BITS))
        kind = _first(directory.get(SAMPLE_FORMAT, 1))
    except MemoryError:
        raise
    except Exception:  # a damaged file raises all kinds
        return None
    is_usual = (kind in (1, SIGNED) and bits in (1, 2, 4, 8, 16, 32)) or (kind, bits) == (3, 32)
    if not isinstance(bits, int) or kind not in _NUMBERS or is_usual:
        return None
    return f"{_NUMBERS[kind]} of {bits} bits"


def sample_format(image: Image.Image) -> int | None:
    """TIFF's word for the kind of its numbers (1 unsigned, 2 signed, 3 floats); None for other
    formats.
    """
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    return int(_first(tags.get(SAMPLE_FORMAT, 1)))


def _first(value: Any) -> Any:
    """A tag's value for the first of the image's colours; damaged files give it as one number."""
    return value[0] if isinstance(value, tuple) and value else value
