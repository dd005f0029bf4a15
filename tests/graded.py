"""Tiny images with a dark bar as wide as a number says, which a small model can tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DEGREES = ("none", "light", "severe")
WIDTHS = (0, 6, 16)  # pixels of the bar of each degree


def write_bars(root: Path, widths: Sequence[float], head: str, labels: Sequence[str]) -> Path:
    """Images below `root` with bars of these widths (pixels of 32); returns their manifest, a line
    of `labels` for each."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    lines = [head]
    for index, (width, label) in enumerate(zip(widths, labels, strict=True)):
        pixels = generator.normal(170, 12, (32, 32, 3))
        left = int(generator.integers(0, 32 - int(max(widths)) + 1))
        pixels[:, left : left + round(width)] = 20
        name = f"{index:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
        lines.append(f"{name},{label}")
    manifest = root / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def write_degrees(root: Path, count: int = 120) -> Path:
    """Images of `DEGREES`, as many of each."""
    degrees = [index % 3 for index in range(count)]
    widths = [WIDTHS[degree] for degree in degrees]
    return write_bars(root, widths, "path,label", [DEGREES[degree] for degree in degrees])


def write_widths(root: Path, count: int = 120) -> Path:
    """Images with the width of the bar as a number, in a hundredth of a pixel and beside an
    offset, so that nobody takes it for a share."""
    widths = [index * 16 / (count - 1) for index in range(count)]
    return write_bars(root, widths, "path,value", [f"{1000 + 100 * width:.2f}" for width in widths])
