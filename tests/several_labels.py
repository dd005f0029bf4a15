"""Tiny images with several labels, or none, that a small model can tell: dark lines, red patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("crack", "rust")


def write_several(root: Path, count: int = 160, size: int = 32, seed: int = 0) -> Path:
    """Images of `CLASSES` below `root`, half of them with each; returns their manifest."""
    generator = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    lines = ["path,label"]
    for index in range(count):
        pixels = generator.normal(150, 15, (size, size, 3))
        labels = []
        if index % 2:
            row = int(generator.integers(4, size - 6))
            pixels[row : row + 3] = 20
            labels.append("crack")
        if index % 4 > 1:
            left, top = generator.integers(0, size - 12, 2)
            pixels[top : top + 12, left : left + 12] = (230, 60, 60)
            labels.append("rust")
        name = f"{index:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
        lines.append(f"{name},{';'.join(labels)}")
    manifest = root / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest
