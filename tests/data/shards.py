"""Shards made by hand: what writes them is Python's own tar file."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def image(seed: int, size: int = 16, kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind)
    return out.getvalue()


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return out.getvalue()


def samples(first: int, last: int) -> list[tuple[str, bytes]]:
    """Images of two classes, 0 and 1, in turn."""
    made = []
    for i in range(first, last):
        made += [
            (f"{i:04d}.png", image(i)),
            (f"{i:04d}.cls", str(i % 2).encode()),
            (f"{i:04d}.txt", b"a caption"),
        ]
    return made


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def write_shards(folder: Path, shards: int = 4, each: int = 10, prefix: str = "") -> Path:
    for i in range(shards):
        write_shard(folder / f"{prefix}{i:03d}.tar", samples(i * each, (i + 1) * each))
    return folder
