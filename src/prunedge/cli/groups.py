"""`prunedge groups`: which channels of a model can leave together, and which can't, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from prunedge.graph import ChannelGraph

_SHOWN = 4  # layers named of each group; --json has them all


def groups(
    *,
    model: str | None = None,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    size: str | None = None,
    attention: Literal["heads", "width"] = "heads",
    svg: Path | None = None,
    trust_code: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show a model's channel graph: groups of channels that leave together, who makes and who
    consumes them, and what stays.

    Example: `prunedge groups --model resnet18 --svg resnet18.svg`

    Parameters
    ----------
    model
        Any torchvision or timm name, or package.module:function of your own; its weights don't
        matter here.
    start
        A run folder, whose best model is shown, instead of --model.
    size
        Pixels of the images, 224 or 128x384 (height x width), which decide the MACs; the run's
        with --from, else 224.
    attention
        What may leave of an attention layer: whole heads, or the same width of every head.
    svg
        Draw the graph into this file, whose name ends in .svg.
    trust_code
        Run code that the run names (package.module:function) from the working directory, as the one
        who made it wanted. What you named there yourself needs no such word.
    json
        Print everything as JSON.
    """
    import torch

    from prunedge.cli.console import print_json, say
    from prunedge.edge.image.size import parse_size, square
    from prunedge.errors import GraphError, PrunedgeError
    from prunedge.graph import trace
    from prunedge.models import build
    from prunedge.report.diagram import diagram
    from prunedge.runs.run import open_run
    from prunedge.utils import trust
    from prunedge.utils.files import behind_links, write_text
    from prunedge.utils.machine import unwritable

    if model is not None and start is not None:
        raise PrunedgeError(
            "two models to look at", remedy="give --model NAME or --from RUN, not both"
        )
    if model is None and start is None:
        raise PrunedgeError("no model to look at", remedy="give --model NAME, or --from RUN")
    if svg is not None and svg.suffix.lower() != ".svg":
        raise PrunedgeError(
            f"'{svg}' is no name of a drawing",
            where="--svg",
            remedy="give a name that ends in .svg",
        )
    trust.trust_everything(trust_code)
    shape = square(224) if size is None else parse_size(size)
    if start is None:
        assert model is not None
        traced_model = build(model, 2, "none")
    else:
        run = open_run(start)
        traced_model = run.load()
        shape = run.config.data.size if size is None else shape
    try:
        graph = trace(traced_model, torch.zeros(2, 3, *shape), attention=attention)
    except GraphError as error:
        # What the model says of the size is no remedy.
        remedy = f"does it take images of {shape} pixels? try another --size ({error.remedy})"
        raise GraphError(error.what, where=error.where, remedy=remedy) from None
    if svg is not None:
        try:
            write_text(behind_links(svg), diagram(graph, title=model or str(start)))
        except OSError as error:
            raise unwritable(error, svg) from None
    if json:
        print_json(describe(graph))
        return
    _show(graph)
    if svg is not None:
        say(f"drawn: {svg}")


def describe(graph: ChannelGraph) -> dict[str, Any]:
    """The graph as plain data: groups in the model's order, what is frozen, totals."""
    total = max(1, graph.macs())
    return {
        "macs": graph.macs(),
        "params": graph.params(),
        "prunable_params": graph.prunable_share(),
        "groups": [
            {
                "name": group.name,
                "channels": group.size,
                "makers": _layers(group.having("out")),
                "consumers": _layers(group.having("in")),
                "along": _layers(group.having("channel")),
                "macs_share": graph.macs_of(group) / total,
            }
            for group in graph.groups
        ],
        "frozen": [
            {"name": frozen.name, "channels": frozen.size, "reason": frozen.reason}
            for frozen in graph.frozen
        ],
    }


def _layers(slices: Any) -> list[str]:
    """The layers whose tensors are sliced, each once."""
    tensors = [slice_.tensor for slice_ in slices]
    return list(dict.fromkeys(tensor.rpartition(".")[0] or tensor for tensor in tensors))


def _show(graph: ChannelGraph) -> None:
    from rich.table import Table

    from prunedge.cli.console import out

    about = describe(graph)
    table = Table(
        "group", "channels", "MACs", "made by", "consumed by", box=None, header_style="bold"
    )
    for group in about["groups"]:
        table.add_row(
            group["name"],
            str(group["channels"]),
            f"{group['macs_share']:.1%}",
            _short(group["makers"]),
            _short(group["consumers"]),
        )
    out.print(table)
    if about["frozen"]:
        stays = Table("stays", "channels", "why", box=None, header_style="bold")
        for frozen in about["frozen"]:
            stays.add_row(frozen["name"], str(frozen["channels"]), frozen["reason"])
        out.print(stays)
    out.print(
        f"{graph.channels} channels in {len(graph.groups)} groups; {about['prunable_params']:.1%} "
        f"of {graph.params() / 1e6:.2f} million "
        f"parameters are prunable; {graph.macs() / 1e6:,.1f} million MACs (a layer's MACs count "
        "for those who make and who consume)"
    )


def _short(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
