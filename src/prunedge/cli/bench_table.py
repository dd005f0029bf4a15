"""What `prunedge bench` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunedge.edge.denormals import TINY
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.edge import BenchResult

# A row's name and a cell for each candidate.
Row = tuple[str, list[str]]


def print_bench(result: BenchResult) -> None:
    """A column for each candidate: a terminal has more room below than beside."""
    from rich.table import Table

    from prunedge.cli.console import out

    table = Table(title=_title(result))
    table.add_column("")
    for record in result.bundles:
        name = f"{Path(record['bundle']).name}\n{record['target']}"
        table.add_column(name, justify="right", overflow="fold")
    for name, cells in [*_figures(result), *_ratios(result)]:
        table.add_row(name, *cells)
    out.print(table)
    _warn_of_denormals(result)
    _warn(result)


def _title(result: BenchResult) -> str:
    """What was measured where."""
    about = [counted(result.device["cores"], "core")]
    if "cpus" in result.limits:
        about.append(f"limited to {counted(result.limits['cpus'], 'processor')}")
    if "memory_mb" in result.limits:
        about.append(f"limited to {result.limits['memory_mb']} MB of data")
    return (
        f"{counted(result.patches, 'patch', 'patches')}, batch {result.batch}, "
        f"{counted(result.threads, 'thread')}\n"
        f"{result.device['processor']}, {', '.join(about)}, {result.device['system']} "
        f"{result.device['machine']}"
    )


def _figures(result: BenchResult) -> list[Row]:
    """What was measured of each candidate."""
    records = result.bundles
    rows: list[Row] = [
        ("runtime", [record["runtime"] for record in records]),
        ("all patches, s", [f"{record['seconds_total']:.1f}" for record in records]),
    ]
    for name in ("median", "p95", "p99"):
        rows.append((f"{name}, ms", [f"{record['latency_ms'][name]:.2f}" for record in records]))
    for size in records[0]["throughput"]:
        cells = [f"{record['throughput'][size]:.0f}" for record in records]
        rows.append((f"a second, batch {size}", cells))
    rows += [
        ("peak memory, MB", [f"{record['peak_rss_mb']:.0f}" for record in records]),
        ("file, MB", [f"{record['size_mb']:.2f}" for record in records]),
        ("load, s", [f"{record['load_seconds']:.2f}" for record in records]),
        ("million MACs", [f"{record['macs'] / 1e6:,.1f}" for record in records]),
        ("self-test answers", [f"{record['self_test']['agreement']:.0%}" for record in records]),
    ]
    if any(record.get("float_layers") for record in records):
        cells = [str(len(record.get("float_layers", []))) for record in records]
        rows.append(("layers left in float", cells))
    scored = {(one["metric"], one["images"]) for record in records if (one := record.get("score"))}
    if len(scored) == 1:
        ((metric, images),) = scored
        name = f"{metric} on {counted(images, 'image')}"
        rows.append((name, [record["score"]["text"] for record in records]))
    if all(record["joules"] is not None for record in records):
        cells = [f"{1e3 * record['joules']:.1f}" for record in records]
        rows.append(("energy an image, mJ", cells))
    return rows


def _ratios(result: BenchResult) -> list[Row]:
    """How each candidate compares with the first; nothing where there is one alone."""
    from prunedge.edge.bench.ratios import speed_of

    if not result.ratios:
        return []
    record = result.to_json()
    speeds = [speed_of(record, number) for number in range(1, len(result.bundles))]
    rows: list[Row] = [
        ("by the median", ["", *(speed.words() for speed in speeds)]),
        ("  ratio in blocks", ["", *(speed.bounds() for speed in speeds)]),
    ]
    words = {
        "memory": "times less memory",
        "size": "times smaller",
        "macs": "times fewer MACs",
        "energy": "times less energy",
    }
    for key, name in words.items():
        if all(key in ratio for ratio in result.ratios):
            rows.append((name, ["", *(f"{ratio[key]:.1f}" for ratio in result.ratios)]))
    return rows


def _warn_of_denormals(result: BenchResult) -> None:
    """A line for each candidate with weights that are so small that they make processors slow."""
    from prunedge.cli.console import out

    for record in result.bundles:
        found = record.get("denormals")
        if found:
            name = f"{Path(record['bundle']).name}, {record['target']}"
            out.print(
                f"mind: {name}: {counted(found['weights'], 'weight')} below {TINY:g}, which its "
                "runtime was asked to take for zeros; where it is not, this machine takes "
                f"{found['slower']:.1f} times as long: export it again, and they are zeros"
            )


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
