"""Random numbers that begin at a seed, and go on afterwards as if nothing had drawn any."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

LARGEST = 2**32 - 1  # that numpy takes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's, numpy's and Python's own random numbers begin at `seed` inside the block."""
    of_python = random.getstate()
    of_numpy = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % (LARGEST + 1))
            random.seed(seed)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
