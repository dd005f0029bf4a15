"""How long to wait before the next try: exponential backoff with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass

MOST_DOUBLINGS = 20  # beyond, numbers only grow: the longest pause was reached long before


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: `first` after the first failure, doubled after each further one, up to
    `longest`.

    `jitter` is the share (0 to 1) by which a pause may be cut at random, so that many devices which
    lost the same server don't come back in the same second.
    """

    first: float
    longest: float
    jitter: float = 0.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1 or more)."""
        doublings = min(failures - 1, MOST_DOUBLINGS)
        pause = min(self.longest, self.first * 2**doublings)
        if not self.jitter:
            return pause
        return pause * random.uniform(1 - self.jitter, 1)
