"""Decodes one JPEG in a process of its own, whose memory ends with it: the planes of its brightness
and its colours, these at half size, as files. Run by its path, so that it loads nothing but Pillow.
"""

import sys

from PIL import Image

NO_MEMORY = 3  # the exit status where there is not enough of it


def write_planes(source: str, target: str) -> None:
    """Write the planes as bytes, row by row: `target`.blue, .red and .light."""
    _write_colours(source, target)
    # One after the other: the first is out of memory when the second is decoded.
    with Image.open(source, formats=("JPEG",)) as whole:
        whole.draft("L", whole.size)
        whole.load()
        _write(whole, f"{target}.light")


def _write_colours(source: str, target: str) -> None:
    with Image.open(source, formats=("JPEG",)) as half:
        half.draft("YCbCr", (half.width // 2, half.height // 2))
        for channel, name in (("Cb", "blue"), ("Cr", "red")):
            _write(half.getchannel(channel), f"{target}.{name}")


def _write(plane: Image.Image, file: str) -> None:
    with open(file, "wb") as opened:
        for top in range(0, plane.height, 256):
            band = plane.crop((0, top, plane.width, min(top + 256, plane.height)))
            opened.write(band.tobytes())


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = None  # the caller has looked at its size
    try:
        write_planes(sys.argv[1], sys.argv[2])
    except MemoryError:
        sys.exit(NO_MEMORY)
    except Exception as error:  # damaged files make Pillow's decoders raise all kinds
        print(f"{error}", file=sys.stderr)
        sys.exit(1)
