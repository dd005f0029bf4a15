"""Two classes of images with greys of more than eight bits, with a dark line and without, in a small part of what could be."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

LOW, HIGH = 1000, 1146  # of a twelve-bit X-ray in sixteen bits


def scene(seed: int, is_cracked: bool, shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    """An image's greys from 0 to 1, float64."""
    generator = np.random.default_rng(seed)
    greys = generator.normal(0.7, 0.07, shape)
    if is_cracked:
        row = int(generator.integers(4, shape[0] - 6))
        greys[row : row + 3] = 0.1
    return greys.clip(0, 1)


def write_deep(
    root: Path,
    count: int = 40,
    kind: str = "png",
    low: float = LOW,
    high: float = HIGH,
    shape: tuple[int, int] = (32, 32),
) -> Path:
    """Class folders `crack` and `sound` under `root`, `count` images each, as 16-bit PNG (or TIFF), `int32` or `float` TIFF."""
    for place, label in enumerate(("crack", "sound")):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            values = low + scene(1000 * place + i, label == "crack", shape) * (high - low)
            save(folder / f"{i:03d}.{'png' if kind == 'png' else 'tif'}", values, kind)
    return root


def save(path: Path, values: np.ndarray, kind: str) -> Path:
    """Write one image of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "float":
        Image.fromarray(values.astype(np.float32)).save(path)
    elif kind == "int32":
        Image.fromarray(values.round().astype(np.int32)).save(path)
    elif kind == "big-endian":
        height, width = values.shape
        Image.frombytes("I;16B", (width, height), values.round().astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(values.round().astype(np.uint16)).save(path)
    return path


def colour_png(path: Path, values: np.ndarray) -> Path:
    """A PNG of colours of sixteen bits, which Pillow reads but doesn't write; values (height, width, 3) uint16."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def tiff(path: Path, values: np.ndarray, sample_format: int, endian: str = "<") -> Path:
    """A grey TIFF whose numbers (2-D) are of a kind that Pillow doesn't write: 1 unsigned, 2 signed, 3 floats."""
    data = values.tobytes()
    height, width = values.shape
    bits = values.dtype.itemsize * 8
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: height,
        279: len(data),
        339: sample_format,
    }
    entries = b"".join(
        struct.pack(endian + "HHII", tag, 4, 1, value) for tag, value in tags.items()
    )
    directory = struct.pack(endian + "H", len(tags)) + entries + struct.pack(endian + "I", 0)
    start = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", 8 + len(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + data + directory)
    return path
