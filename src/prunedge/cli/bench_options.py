"""The options of `prunedge bench` that say what is measured, and on how small a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prunedge.cli.console import split
from prunedge.cli.options import Flag

if TYPE_CHECKING:
    from prunedge.edge.bench.workload import Workload


@Parameter(name="*")
@dataclass(frozen=True)
class WorkloadOptions:
    """What every candidate is made to do. The defaults are those of the library's `Workload`.

    Parameters
    ----------
    patches
        Images to classify in all.
    batch
        Images at a time.
    batches
        Further numbers of images at a time, for the throughput alone: 8,32.
    threads
        Threads that one inference may use.
    cpus
        Use so many of the processors only, as a smaller device would have (Linux).
    memory
        Megabytes of data that a process may hold (Linux).
    profile
        Afterwards look closely at a few batches more: what each layer takes, and a trace that opens
        in Perfetto. Written into the run's `profile/`, without --out into `prunedge-profile/` here.
    """

    patches: int = 3720
    batch: int = 1
    batches: Annotated[list[int] | None, Parameter(converter=split)] = None
    threads: int = 1
    cpus: int | None = None
    memory: int | None = None
    profile: Flag = False

    def workload(self) -> Workload:
        """The library's workload; BundleError where a number is below 1."""
        from prunedge.edge.bench.workload import ResourceLimits, Workload
        from prunedge.errors import BundleError

        for name, value in (("--cpus", self.cpus), ("--memory", self.memory)):
            if value is not None and value < 1:
                raise BundleError(f"{name} {value}", where=name, remedy="give at least 1")
        return Workload(
            patches=self.patches,
            batch=self.batch,
            threads=self.threads,
            batches=tuple(self.batches or ()),
            limits=ResourceLimits(self.cpus, self.memory),
            profile=self.profile,
        )


# Shared, since it is frozen.
THE_TALKS = WorkloadOptions()
