"""What `prunedge groups` prints: which channels leave together, and which stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunedge.graph import ChannelGraph

SHOWN = 4  # layers named of each group; --json has them all


def print_graph(graph: ChannelGraph) -> None:
    """The groups, what is frozen and why, and how much that is of the model."""
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.graph.description import description
    from prunedge.utils.wording import amount, counted, first_of

    about = description(graph)
    table = Table(
        "group", "channels", "MACs", "made by", "consumed by", box=None, header_style="bold"
    )
    for column in table.columns:
        column.overflow = "fold"  # names can be copied, however narrow the terminal
    for group in about["groups"]:
        table.add_row(
            group["name"],
            str(group["channels"]),
            f"{group['macs_share']:.1%}",
            first_of(group["makers"], SHOWN),
            first_of(group["consumers"], SHOWN),
        )
    out.print(table)
    if about["frozen"]:
        stays = Table("stays", "channels", "why", box=None, header_style="bold")
        for frozen in about["frozen"]:
            stays.add_row(frozen["name"], str(frozen["channels"]), frozen["reason"])
        out.print(stays)
    out.print(
        f"{counted(graph.channels, 'channel')} in {counted(len(graph.groups), 'group')}; "
        f"{about['prunable_params']:.1%} of {amount(graph.params(), 2)} "
        f"parameters are prunable; {amount(graph.macs())} MACs (a layer's MACs count "
        "for those who make and who consume)"
    )
