"""A bench on another machine: bundles go there, its `prunedge bench` measures, the result comes
back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunedge.edge.bench.measure import BenchResult
from prunedge.edge.bench.ssh import Host, files_of
from prunedge.edge.bench.workload import Workload
from prunedge.edge.bundle import Bundle
from prunedge.errors import BundleError
from prunedge.utils.files import real_path


def bench_on(
    device: str,
    bundles: Sequence[Bundle],
    runtimes: Sequence[str],
    workload: Workload,
    on_line: Callable[[str], None],
) -> BenchResult:
    """Measure bundles on `device` (`ssh://user@host`) with the prunedge that is installed there.

    `runtimes` are the forms of each to run, its first where none is named; `on_line` is told what
    is copied. BundleError where another version answers, PrunedgeError where the device can't be
    reached.
    """
    host = Host.parse(device)
    names = []
    files = {}
    for number, bundle in enumerate(bundles):
        name = f"{number}-{real_path(bundle.path).name}"
        names.append(name)
        files.update(files_of(bundle, name))

    options = workload.options()
    if runtimes:
        options.append(f"--runtime={','.join(runtimes)}")

    size_mb = sum(file.stat().st_size for file in files.values()) / 1e6
    on_line(f"copying {size_mb:,.1f} MB to {host.destination}, then measuring there")
    answer = host.run(["bench", *names, *options, "--json"], files)
    try:
        result = BenchResult(**answer)
    except TypeError:
        raise BundleError(
            "its answer is another prunedge's",
            where=host.destination,
            remedy="install the same version there",
        ) from None

    result.device["address"] = host.destination
    for record in [*result.bundles, *(result.profile or [])]:
        record["bundle"] = str(bundles[names.index(record["bundle"])].path)
    return result
