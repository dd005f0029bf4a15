"""`prunedge groups`: which channels of a model can leave together, and which can't, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from prunedge.cli.options import Flag, TrustCode


def groups(
    *,
    model: str | None = None,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    size: str | None = None,
    in_channels: Literal[1, 3] | None = None,
    attention: Literal["heads", "width"] = "heads",
    svg: Path | None = None,
    trust_code: TrustCode = False,
    json: Flag = False,
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
    in_channels
        What the model sees of an image, 3 (colours) or 1 (grey); the run's with --from, else 3.
    attention
        What may leave of an attention layer: whole heads, or the same width of every head.
    svg
        Draw the graph into this file, whose name ends in .svg.
    json
        Print everything as JSON.
    """
    import torch

    from prunedge.cli.console import print_json, say
    from prunedge.cli.groups_tables import print_graph
    from prunedge.edge.image.size import parse_size, square
    from prunedge.errors import GraphError, PrunedgeError
    from prunedge.graph import trace
    from prunedge.graph.description import description
    from prunedge.models import build
    from prunedge.report.diagram import diagram
    from prunedge.runs.run import open_run
    from prunedge.runs.task import refuse_own_trainer
    from prunedge.utils import trust
    from prunedge.utils.files import behind_links, write_text
    from prunedge.utils.machine import unwritable
    from prunedge.utils.wording import counted

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
        channels = in_channels or 3
        traced_model = build(model, 2, "none", in_channels=channels)
    else:
        run = open_run(start)
        refuse_own_trainer(run.config)
        traced_model = run.load()
        shape = run.config.data.size if size is None else shape
        channels = run.config.data.in_channels
        if in_channels not in (None, channels):
            raise PrunedgeError(
                f"the model of {start} sees {counted(channels, 'channel')}",
                where=f"--in-channels {in_channels}",
                remedy="leave it out",
            )
    try:
        graph = trace(traced_model, torch.zeros(2, channels, *shape), attention=attention)
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
        print_json(description(graph))
        return
    print_graph(graph)
    if svg is not None:
        say(f"drawn: {svg}")
