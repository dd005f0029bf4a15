"""What `--profile` prints: where the time went, largest first."""

from __future__ import annotations

from pathlib import Path

LEAST_S = 0.005  # less would be printed as nothing


def print_profile(run: Path) -> None:
    """The parts of a run's time, with the places that each is made of."""
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.profile import FOLDER, OTHER, profile_of

    found = profile_of(run)
    if found is None:
        return
    table = Table(title=f"where {found['wall_s']:,.1f} seconds went")
    table.add_column("part")
    for name in ("s", "share", "times"):
        table.add_column(name, justify="right")
    for part in found["parts"]:
        within = [one for one in part["within"] if one["seconds"] >= LEAST_S]
        if not within:
            continue
        times = f"{within[0]['count']:,}" if len(within) == 1 else ""
        table.add_row(part["part"], f"{part['seconds']:,.2f}", f"{part['share']:.1%}", times, style="bold")
        for one in within if len(within) > 1 else ():
            name = one["path"].replace("/", " > ")
            table.add_row(f"  {name}", f"{one['seconds']:,.2f}", f"{one['seconds'] / found['wall_s']:.1%}", f"{one['count']:,}")
    table.add_row(OTHER, f"{found['unaccounted_s']:,.2f}", f"{found['unaccounted_share']:.1%}", "", style="bold")
    out.print(table)
    for one in found["background"]:
        out.print(f"meanwhile, {one['thread']}: {one['part']} {one['seconds']:,.2f} s", markup=False)
    out.print(f"every span: {run / FOLDER}/trace*.json, to be opened at ui.perfetto.dev", markup=False)
