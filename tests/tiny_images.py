"""Two classes of tiny images that a small model can tell apart: with a dark line, and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_tiny(
    root: Path,
    count: int = 40,
    size: int = 32,
    seed: int = 0,
    labels: tuple[str, str] = ("crack", "sound"),
) -> Path:
    """Class folders under `root`, `count` images each, those of the first of the `labels` with a line; returns `root`."""
    generator = np.random.default_rng(seed)
    for label in labels:
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = generator.normal(150, 15, (size, size, 3)).clip(0, 255).astype(np.uint8)
            if label == labels[0]:
                row = int(generator.integers(4, size - 6))
                pixels[row : row + 3] = 20
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root
