"""A large PNG in bands of rows: Pillow decodes images whole, so each band is handed to it as a
small PNG of its own.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {2: 3, 6: 4}  # colour types RGB and RGBA
PIECE = 1 << 16  # bytes


def has_bands(path: Path) -> bool:
    """Whether `bands` can read a file: RGB or RGBA, eight bits a channel, not interlaced."""
    with path.open("rb") as opened:
        head = opened.read(33)
    if not head.startswith(SIGNATURE) or head[12:16] != b"IHDR":
        return False
    depth, colour, _, _, interlaced = head[24:29]
    return depth == 8 and colour in CHANNELS and interlaced == 0


def bands(path: Path, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """The image's rows from the top: where each band starts, and the band (`rows` high, the last
    one what is left).

    A row of a PNG may be stored as the difference to the one above it, so each band is decoded
    below the last row of the one before. Raises OSError when the file ends early or is damaged.
    """
    with path.open("rb") as opened:
        opened.read(len(SIGNATURE))
        header, kept = b"", b""
        for name, length in _chunks(opened):
            if name == b"IDAT":
                break
            data = _checked(opened, name, length)
            header = data if name == b"IHDR" else header
            kept += _chunk(name, data) if name == b"tRNS" else b""
        else:
            raise OSError("no pixels")
        width, height = struct.unpack(">II", header[:8])
        wide = 1 + width * CHANNELS[header[9]]  # bytes of a row: how it is stored, then its pixels
        pixels, above = _Inflated(opened, length), bytes(wide)
        for top in range(0, height, rows):
            high = min(rows, height - top)
            stored = pixels.take(high * wide)
            small = struct.pack(">II", width, high + 1) + header[8:]
            data = zlib.compress(above + stored, 0)
            file = (
                SIGNATURE
                + _chunk(b"IHDR", small)
                + kept
                + _chunk(b"IDAT", data)
                + _chunk(b"IEND", b"")
            )
            with Image.open(io.BytesIO(file), formats=("PNG",)) as decoded:
                band = decoded.crop((0, 1, width, high + 1))
            above = b"\0" + band.crop((0, high - 1, width, high)).tobytes()
            yield top, band


def exif_of(path: Path) -> bytes:
    """The EXIF data, wherever in the file it stands; nothing when there is none. Pillow would
    decode the image to look behind it.
    """
    with path.open("rb") as opened:
        opened.read(len(SIGNATURE))
        for name, length in _chunks(opened):
            if name == b"eXIf":
                return _checked(opened, name, length)
            opened.seek(length + 4, 1)
    return b""


class _Inflated:
    """The bytes of all IDAT chunks, as they are asked for; the file stands in the first, `left`
    bytes before its end.
    """

    def __init__(self, opened: IO[bytes], left: int) -> None:
        self._source, self._ready = _compressed(opened, left), bytearray()
        self._inflater = zlib.decompressobj()

    def take(self, count: int) -> bytes:
        while len(self._ready) < count:
            piece = self._inflater.unconsumed_tail or next(self._source, b"")
            if not piece or self._inflater.eof:
                raise OSError("the file ends early")
            try:
                self._ready += self._inflater.decompress(piece, count)
            except zlib.error as error:
                raise OSError(f"damaged: {error}") from None
        piece = bytes(self._ready[:count])
        del self._ready[:count]
        return piece


def _compressed(opened: IO[bytes], left: int) -> Iterator[bytes]:
    name = b"IDAT"
    while name == b"IDAT":
        check = zlib.crc32(name)
        while left:
            piece = opened.read(min(left, PIECE))
            if not piece:
                return
            left, check = left - len(piece), zlib.crc32(piece, check)
            yield piece
        if opened.read(4) != struct.pack(">I", check):
            raise OSError("a chunk differs from its checksum")
        name, left = next(_chunks(opened), (b"", 0))


def _chunks(opened: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Name and length of each chunk; the reader must read its data and checksum."""
    while len(head := opened.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        yield name, length


def _checked(opened: IO[bytes], name: bytes, length: int) -> bytes:
    data = opened.read(length)
    if opened.read(4) != struct.pack(">I", zlib.crc32(name + data)):
        raise OSError("a chunk differs from its checksum")
    return data


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
