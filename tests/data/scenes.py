"""Images with something to recognise: random blocks of grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_scene(path: Path, seed: int, size: int) -> Image.Image:
    """Write an image that no other seed's looks like; returns it."""
    blocks = np.random.default_rng(seed).integers(30, 220, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image
