"""Which images were answered right, as a short text that a history keeps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def packed(correct: Sequence[bool] | np.ndarray) -> str:
    """Which images were answered right, as hexadecimal digits: `count:bits`."""
    bits = np.asarray(correct, dtype=bool)
    return f"{len(bits)}:{np.packbits(bits).tobytes().hex()}"


def unpacked(text: str) -> np.ndarray:
    """The (n,) bool that `packed` was given."""
    count, _, digits = text.partition(":")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
    return bits[: int(count)].astype(bool)
