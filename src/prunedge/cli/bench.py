"""`prunedge bench`: time, memory and energy of bundles, on this machine or on a device. Needs no
torch.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from prunedge.cli.console import split
from prunedge.utils.files import real_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunedge.edge import BenchResult, Bundle


def bench(
    *bundles: Path,
    against: Path | None = None,
    runtime: Annotated[list[str] | None, Parameter(converter=split, negative="")] = None,
    patches: int = 3720,
    batch: int = 1,
    batches: Annotated[list[int] | None, Parameter(converter=split, negative="")] = None,
    threads: int = 1,
    data: Path | None = None,
    device: str | None = None,
    cpus: int | None = None,
    memory: int | None = None,
    out: Path | None = None,
    profile: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Measure bundles: total time, latency, throughput, memory, energy; several are interleaved in
    one run and compared with the first.

    Each must first give the answers that it gave where it was exported.

    Example: `prunedge bench bundles/cracks --against bundles/cracks-unpruned --patches 3720 --batch
    1 --threads 1`

    Parameters
    ----------
    bundles
        What to measure.
    against
        The bundle to compare them with (usually the unpruned model's).
    runtime
        Which of a bundle's forms to run (onnx, onnx-int8, openvino, ...); several with commas
        between them. Without it, its first.
    patches
        Images to classify in all.
    batch
        Images at a time.
    batches
        Further numbers of images at a time, for the throughput alone: 8,32.
    threads
        Threads that one inference may use.
    data
        A folder of images to classify; without it they are noise, which takes the same time.
    device
        ssh://user@host: copy the bundles there, measure there with the prunedge that is installed
        there, bring the result back.
    cpus
        Use so many of the processors only, as a smaller device would have (Linux).
    memory
        Megabytes of data that a process may hold (Linux).
    out
        A run folder to note the result in, for its report.
    profile
        Afterwards look closely at a few batches more: what each layer takes, and a trace that opens
        in Perfetto. Written into the run's `profile/`, without --out into `prunedge-profile/` here.
    json
        Print the result as JSON.
    """
    from prunedge.cli.console import print_json
    from prunedge.cli.profile import print_layers, write_bench_profile
    from prunedge.edge import open_bundle
    from prunedge.errors import BundleError

    paths = [*([against] if against else []), *bundles]
    if not paths:
        raise BundleError(
            "no bundle to measure",
            remedy="prunedge bench BUNDLE, a folder that `prunedge export` made",
        )
    for name, value in (("cpus", cpus), ("memory", memory)):
        if value is not None and value < 1:
            raise BundleError(f"--{name} {value}", where=f"--{name}", remedy="give at least 1")
    opened = [open_bundle(path) for path in paths]
    if device is not None and data is not None:
        raise BundleError(
            "--data and --device exclude each other",
            remedy="leave --data out: noise takes the same time",
        )
    numbers = {
        "patches": patches,
        "batch": batch,
        "threads": threads,
        "cpus": cpus,
        "memory": memory,
        "profile": profile or None,
    }
    with ExitStack() as stack:
        run = None
        if out is not None:
            # Before the measuring, which is lost when the run folder is not one, is in use, or
            # needs what a device does not have.
            from prunedge.runs.new import writing
            from prunedge.runs.run import open_run

            run = open_run(out)
            stack.enter_context(writing(out))
        if device is None:
            result = _here(opened, runtime or [None], batches or [], data, numbers, json)
        else:
            result = _there(device, opened, runtime or [], batches or [], numbers, json)
        if run is not None:
            run.write("bench.json", replace(result, profile=None).to_json())
    written = (
        write_bench_profile(
            result.profile, Path("prunedge-profile") if out is None else out / "profile"
        )
        if result.profile
        else None
    )
    if json:
        print_json(result.to_json())
        return
    _table(result)
    if written is not None:
        print_layers(result.profile or [], written)


def _here(
    bundles: Sequence[Bundle],
    runtimes: Sequence[str | None],
    batches: Sequence[int],
    data: Path | None,
    numbers: dict[str, Any],
    json: bool,
) -> BenchResult:
    from prunedge.cli.console import progress
    from prunedge.edge import Candidate
    from prunedge.edge import bench as measure
    from prunedge.edge.bench.measure import ResourceLimits

    candidates = [Candidate(bundle, target) for bundle in bundles for target in runtimes]
    limits = ResourceLimits(numbers["cpus"], numbers["memory"])
    with progress("measuring", quiet=json) as advance:
        return measure(
            candidates,
            patches=numbers["patches"],
            batch=numbers["batch"],
            threads=numbers["threads"],
            batches=batches,
            images=data,
            limits=limits,
            profile=bool(numbers["profile"]),
            progress=advance,
        )


def _there(
    device: str,
    bundles: Sequence[Bundle],
    runtimes: Sequence[str],
    batches: Sequence[int],
    numbers: dict[str, Any],
    json: bool,
) -> BenchResult:
    from prunedge.cli.console import say
    from prunedge.edge import BenchResult
    from prunedge.edge.bench.ssh import Host, files_of
    from prunedge.errors import BundleError

    host = Host.parse(device)
    names = [f"{place}-{real_path(bundle.path).name}" for place, bundle in enumerate(bundles)]
    files = {
        there: here
        for name, bundle in zip(names, bundles, strict=True)
        for there, here in files_of(bundle, name).items()
    }
    lists = {"runtime": ",".join(runtimes), "batches": ",".join(map(str, batches))}
    given = {key: value for key, value in {**numbers, **lists}.items() if value not in (None, "")}
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in given.items()]
    if not json:
        size = sum(file.stat().st_size for file in files.values()) / 1e6
        say(f"copying {size:,.1f} MB to {host.destination}, then measuring there")
    found = host.run(["bench", *names, *options, "--json"], files)
    try:
        result = BenchResult(**found)
    except TypeError:
        raise BundleError(
            "its answer is another prunedge's",
            where=host.destination,
            remedy="install the same version there",
        ) from None
    result.device["address"] = host.destination
    for one in [*result.bundles, *(result.profile or [])]:
        one["bundle"] = str(bundles[names.index(one["bundle"])].path)
    return result


def _table(result: BenchResult) -> None:
    """A column for each candidate: a terminal has more room below than beside."""
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.edge.bench.ratios import speed_of

    limits = {"cpus": "limited to {} processor(s)", "memory_mb": "limited to {} MB of data"}
    about = ", ".join(
        [
            f"{result.device['cores']} core(s)",
            *(limits[key].format(value) for key, value in result.limits.items()),
        ]
    )
    table = Table(
        title=f"{result.patches:,} patches, batch {result.batch}, {result.threads} thread(s)\n"
        f"{result.device['processor']}, {about}, {result.device['system']} "
        f"{result.device['machine']}"
    )
    table.add_column("")
    for found in result.bundles:
        table.add_column(
            f"{Path(found['bundle']).name}\n{found['target']}", justify="right", overflow="fold"
        )
    rows: list[tuple[str, list[str]]] = [
        ("runtime", [one["runtime"] for one in result.bundles]),
        ("all patches, s", [f"{one['seconds_total']:.1f}" for one in result.bundles]),
        *(
            (f"{name}, ms", [f"{one['latency_ms'][name]:.2f}" for one in result.bundles])
            for name in ("median", "p95", "p99")
        ),
        *(
            (
                f"a second, batch {size}",
                [f"{one['throughput'][size]:.0f}" for one in result.bundles],
            )
            for size in result.bundles[0]["throughput"]
        ),
        ("peak memory, MB", [f"{one['peak_rss_mb']:.0f}" for one in result.bundles]),
        ("file, MB", [f"{one['size_mb']:.2f}" for one in result.bundles]),
        ("load, s", [f"{one['load_seconds']:.2f}" for one in result.bundles]),
        ("million MACs", [f"{one['macs'] / 1e6:,.1f}" for one in result.bundles]),
        ("self-test labels", [f"{one['self_test']['agreement']:.0%}" for one in result.bundles]),
    ]
    if all(one["joules"] is not None for one in result.bundles):
        rows.append(
            ("energy an image, mJ", [f"{1e3 * one['joules']:.1f}" for one in result.bundles])
        )
    if result.ratios:
        record = result.to_json()
        speeds = [speed_of(record, place) for place in range(1, len(result.bundles))]
        rows.append(("by the median", ["", *(one.said() for one in speeds)]))
        rows.append(("  ratio in blocks", ["", *(one.bounds() for one in speeds)]))
        words = {
            "memory": "times less memory",
            "size": "times smaller",
            "macs": "times fewer MACs",
            "energy": "times less energy",
        }
        keys = [key for key in words if all(key in one for one in result.ratios)]
        rows += [(words[key], ["", *(f"{one[key]:.1f}" for one in result.ratios)]) for key in keys]
    for name, cells in rows:
        table.add_row(name, *cells)
    out.print(table)
    _warn(result)


def _warn(result: BenchResult) -> None:
    """What the device's state says about the figures."""
    from prunedge.cli.console import out

    before, after = result.before, result.after
    if after.get("throttled", 0) > before.get("throttled", 0) or (
        result.device["machine"] == "aarch64" and after.get("throttled")
    ):
        out.print(
            "mind: the device throttled itself meanwhile "
            f"({after.get('celsius', float('nan')):.0f} degrees Celsius): cool it, and "
            "repeat"
        )
    if result.device.get("governor") not in (None, "performance"):
        out.print(
            f"the governor is '{result.device['governor']}': with 'performance' the clock "
            "would not change under way"
        )
