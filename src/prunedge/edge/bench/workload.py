"""What a bench makes each candidate do, and how small a device it plays."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from prunedge.errors import BundleError, MachineError

BLOCKS = 12  # that the run is cut into
ROUNDS = 6  # blocks of each further batch size


@dataclass(frozen=True)
class ResourceLimits:
    """A smaller device on this one: so many processors, so many megabytes (10^6) of data in each
    process. None: no limit. Linux only.
    """

    cpus: int | None = None
    memory_mb: int | None = None

    def no_memory(self, bundle: object) -> BundleError | MachineError:
        """What is told where there is too little memory: the same whoever met it first, Python,
        the runtime or a library.
        """
        what = "there is not enough memory for it"
        remedy = "give a smaller --batch or --batches"
        if self.memory_mb is None:
            return MachineError(what, where=bundle, remedy=remedy)
        # A limit that the user has set is no trouble of the machine's.
        return BundleError(what, where=bundle, remedy=f"{remedy}, or allow more with --memory")

    def given(self) -> dict[str, Any]:
        """Those that limit anything, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Workload:
    """`patches` images in all, `batch` at a time, with `threads` threads; then a few blocks of each
    size in `batches`, for the throughput alone. With `profile` a few more batches are looked at
    closely. Raises BundleError where a number is below 1.
    """

    patches: int = 3720
    batch: int = 1
    threads: int = 1
    batches: tuple[int, ...] = ()
    limits: ResourceLimits = ResourceLimits()
    profile: bool = False

    def __post_init__(self) -> None:
        numbers = {
            "patches": self.patches,
            "batch": self.batch,
            "threads": self.threads,
            "batches": min(self.batches, default=1),
        }
        wrong = [f"--{name}" for name, value in numbers.items() if value < 1]
        if wrong:
            raise BundleError(
                f"{' and '.join(wrong)} must be at least 1", remedy="mend these values"
            )

    @property
    def largest(self) -> int:
        """The largest number of images at a time."""
        return max(self.batch, *self.batches, 1)

    @property
    def total(self) -> int:
        """Batches in all; the last one may bring more images than are asked for."""
        return -(-self.patches // self.batch)

    def blocks(self) -> list[int]:
        """Batches in each block."""
        parts = np.array_split(np.arange(self.total), min(BLOCKS, self.total))
        return [len(part) for part in parts]

    def options(self) -> list[str]:
        """The same as options of `prunedge bench`, for another machine."""
        options = [
            f"--patches={self.patches}",
            f"--batch={self.batch}",
            f"--threads={self.threads}",
        ]
        if self.batches:
            options.append(f"--batches={','.join(map(str, self.batches))}")
        if self.limits.cpus is not None:
            options.append(f"--cpus={self.limits.cpus}")
        if self.limits.memory_mb is not None:
            options.append(f"--memory={self.limits.memory_mb}")
        if self.profile:
            options.append("--profile")
        return options
