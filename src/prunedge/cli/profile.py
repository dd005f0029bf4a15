"""What `--profile` prints: where the time went, largest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEAST_S = 0.005  # less would be printed as nothing
SLOWEST = 10  # layers that are printed


def print_profile(run: Path) -> None:
    """The parts of a run's time, with the places that each is made of."""
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.runs.profile import FOLDER, OTHER, profile_of

    profile = profile_of(run)
    if profile is None:
        return
    table = Table(title=f"where {profile['wall_s']:,.1f} seconds went")
    table.add_column("part")
    for name in ("s", "share", "times"):
        table.add_column(name, justify="right")
    for part in profile["parts"]:
        within = [span for span in part["within"] if span["seconds"] >= LEAST_S]
        times = f"{part['within'][0]['count']:,}" if len(part["within"]) == 1 else ""
        table.add_row(
            part["part"], f"{part['seconds']:,.2f}", f"{part['share']:.1%}", times, style="bold"
        )
        for span in within if not times else ():
            name = "itself" if span["path"] == part["part"] else span["path"].replace("/", " > ")
            table.add_row(
                f"  {name}",
                f"{span['seconds']:,.2f}",
                f"{span['seconds'] / profile['wall_s']:.1%}",
                f"{span['count']:,}",
            )
    table.add_row(
        OTHER,
        f"{profile['unaccounted_s']:,.2f}",
        f"{profile['unaccounted_share']:.1%}",
        "",
        style="bold",
    )
    out.print(table)
    for part in profile["background"]:
        out.print(f"meanwhile, {part['thread']}: {part['part']} {part['seconds']:,.2f} s")
    out.print(f"every span: {run / FOLDER}/trace*.json, to be opened at ui.perfetto.dev")


def write_bench_profile(profiles: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write what a bench saw, in the place of an earlier one's; gives the trace's path.
    PrunedgeError when that can't be done.
    """
    from prunedge.edge.bench.breakdown import trace_of
    from prunedge.utils import checksums
    from prunedge.utils.files import make_folder, write_text
    from prunedge.utils.machine import unwritable
    from prunedge.utils.tracing import trace_json

    trace = folder / "bench-trace.json"
    try:
        make_folder(folder)
        write_text(
            folder / "bench.json", json.dumps(checksums.sealed(profiles, "profile/bench.json"))
        )
        write_text(trace, json.dumps(trace_json(trace_of(profiles))))
    except OSError as error:
        raise unwritable(error, folder, "can't write the profile") from None
    return trace


def print_layers(profiles: Sequence[Mapping[str, Any]], trace: Path) -> None:
    """The slowest layers of each candidate."""
    from rich.table import Table

    from prunedge.cli.console import out

    for profile in profiles:
        parts = ", ".join(f"{part} {ms:.3f}" for part, ms in profile["image_ms"].items())
        phases = ", ".join(f"{part['part']} {part['seconds']:.2f}" for part in profile["parts"])
        table = Table(
            title=(
                f"{Path(profile['bundle']).name}, {profile['target']}\nms of a batch: "
                f"{parts}\nseconds: {phases}"
            )
        )
        for name in ("", "layer", "takes -> gives"):
            table.add_column(name, no_wrap=True)
        for name in ("ms", "share", "GMAC/s"):
            table.add_column(name, justify="right", min_width=6)  # names give way, figures don't
        for layer in profile["layers"][:SLOWEST]:
            speed = f"{layer['macs_per_ms'] / 1e6:,.1f}" if layer["macs_per_ms"] else ""
            what = f"{layer['kind']} {layer['shape']}"
            table.add_row(
                str(layer["place"] + 1),
                layer["name"],
                what,
                f"{layer['ms']:.3f}",
                f"{layer['share']:.1%}",
                speed,
            )
        if profile["layers"]:
            out.print(table)
        else:
            out.print(f"{table.title}\n{profile['runtime']} tells nothing of its layers")
    out.print(f"every span: {trace}, to be opened at ui.perfetto.dev")
