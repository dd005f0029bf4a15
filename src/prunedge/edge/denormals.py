"""Numbers so small that their products are denormal: some processors compute with these many times
more slowly, and a model answers the same with zeros in their place.
"""

from __future__ import annotations

import numpy as np

# The smallest normal float32 is 1.2e-38. Well above it, since a weight is multiplied by activations
# and by other weights, and far below what any answer depends on.
TINY = 1e-30
_SIGN = np.uint32(0x7FFFFFFF)


def tiny(values: np.ndarray) -> np.ndarray:
    """Which of these float32 numbers are neither zero nor as large as `TINY`, (...) bool.

    By their bits: where a thread flushes denormal numbers, it takes them for zeros in a comparison
    as well.
    """
    sizes = values.view(np.uint32) & _SIGN
    return (sizes > 0) & (sizes < np.float32(TINY).view(np.uint32))


def count_tiny(values: np.ndarray) -> int:
    """How many of these numbers are tiny; 0 where they are no float32."""
    if values.dtype != np.float32:
        return 0
    return int(np.count_nonzero(tiny(values)))
