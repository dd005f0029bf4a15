"""What `prunedge audit` prints: how each criterion agrees with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.importance.audit import Audit


def print_audit(result: Audit, target: Path) -> None:
    """The table, what could not be judged, and the recommendation; `target` holds the files."""
    from rich.table import Table

    from prunedge.cli.console import Plain, out, tell

    truth = result.truth
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (
        "criterion",
        "channels",
        "per layer",
        "all, raw",
        "all, l2",
        "all, mean",
        "all, rank",
        "signed, l2",
    ):
        table.add_column(column, justify="left" if column == "criterion" else "right", no_wrap=True)
    signed = {agreement.criterion: agreement for agreement in result.signed}
    for agreement in sorted(result.absolute, key=lambda entry: -_key(entry.overall["l2"].rho)):
        table.add_row(
            agreement.criterion,
            str(agreement.channels),
            str(agreement.per_layer),
            _short(agreement.overall["none"].rho),
            str(agreement.overall["l2"]),
            *(_short(agreement.overall[how].rho) for how in ("mean", "rank")),
            _short(signed[agreement.criterion].overall["l2"].rho),
        )
    tell(
        "Spearman's rank correlation with the oracle, the absolute change of the validation loss "
        "when a channel is zeroed.\n"
        f"{result.model}, {counted(truth.channels, 'channel')}, "
        f"{counted(truth.examples, 'image')}; 95 % intervals from "
        "resampled channels\n"
    )
    # A table of figures is of no use when it is broken to fit.
    Plain(width=max(out.width, 140)).print(table)
    tell()
    for name, why in result.unjudged.items():
        tell(f"{name}: {why}")
    tell(
        f"a channel cost {truth.fraction:.2f} of an evaluation of the whole model "
        f"({truth.seconds:.0f} s for {counted(truth.channels, 'channel')})"
    )
    tell(result.recommendation)
    tell(f"written: {target}/audit.json, audit.csv, channels.csv")


def _short(rho: float) -> str:
    return "-" if rho != rho else f"{rho:.2f}"


def _key(rho: float) -> float:
    return -2.0 if rho != rho else rho
