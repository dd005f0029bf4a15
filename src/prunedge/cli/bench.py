"""`prunedge bench`: time and memory of bundles on this machine. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from prunedge.edge import BenchResult


def bench(
    bundle: Path,
    *,
    against: Path | None = None,
    patches: int = 3720,
    batch: int = 1,
    threads: int = 1,
    data: Path | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure a bundle on this machine: total time, latency, memory; against another one, interleaved in one run.

    Example: `prunedge bench bundles/cracks --against bundles/cracks-unpruned --patches 3720 --batch 1 --threads 1`

    Parameters
    ----------
    bundle
        The bundle to measure.
    against
        The bundle to compare it with (usually the unpruned network's).
    patches
        Pictures to classify in all.
    batch
        Pictures at a time.
    threads
        Threads that one inference may use.
    data
        A folder of pictures to classify; without it they are noise, which takes the same time.
    out
        A run folder to note the result in, for its report.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json, progress
    from prunedge.edge import bench as measure
    from prunedge.edge import open_bundle

    bundles = [open_bundle(path) for path in ([against] if against else []) + [bundle]]
    with progress("measuring", quiet=json) as advance:
        result = measure(bundles, patches=patches, batch=batch, threads=threads, pictures=data, progress=advance)
    if out is not None:
        from prunedge.runs import open_run

        open_run(out).write("bench.json", result.to_json())
    if json:
        print_json(result.to_json())
    else:
        _table(result)


def _table(result: BenchResult) -> None:
    from rich.table import Table

    from prunedge.cli.console import out

    table = Table(
        title=f"{result.patches} patches, batch {result.batch}, {result.threads} thread(s), {result.runtime}\n"
        f"{result.device['processor']}, "
        f"{result.device['cores']} core(s), {result.device['system']} {result.device['machine']}"
    )
    for name in ("bundle", "total s", "median ms", "p95 ms", "memory MB", "file MB"):
        table.add_column(name, justify="left" if name == "bundle" else "right")
    for found in result.bundles:
        latency = found["latency_ms"]
        table.add_row(
            found["bundle"], f"{found['seconds_total']:.1f}", f"{latency['median']:.2f}", f"{latency['p95']:.2f}",
            f"{found['peak_rss_mb']:.0f}", f"{found['size_mb']:.2f}",
        )  # fmt: skip
    out.print(table)
    if result.ratios:
        speed = result.ratios["speedup"]
        gain = speed["median"]
        out.print(
            f"{gain if gain >= 1 else 1 / gain:.1f} times {'faster' if gain >= 1 else 'slower'} "
            f"(ratio of the times in blocks {speed['low']:.1f} to {speed['high']:.1f}), {result.ratios['size']:.1f} times smaller, "
            f"{result.ratios['memory']:.1f} times less memory, {result.ratios['macs']:.1f} times fewer MACs"
        )
