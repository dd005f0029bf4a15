"""`prunedge show`: the result in a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def show(run: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """The result of a run in a screen: the unpruned network, the best, and each step.

    A run that went on from one that was pruned is compared with both: the first network of the chain, and its start.

    Example: `prunedge show runs/cracks --json`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`, finished or not.
    json
        Print everything as JSON.
    """
    from rich.table import Table

    from prunedge.cli.console import out, print_json, tell
    from prunedge.runs import open_run

    opened = open_run(run)
    if json:
        print_json(opened.summary())
        return
    from prunedge.cli.prune import sentence
    from prunedge.models import Loaded
    from prunedge.train import Rate

    best, metric = opened.best(), opened.recipe["metric"]
    table = Table(title=f"{opened.recipe['model']}, {opened.recipe['criterion']}; {metric} on validation data before and after fine-tuning")
    for name in ("step", "channels", "removed", "before", "after", "M MACs", "M params", "MB", "s"):
        table.add_column(name, justify="right")
    references = opened.references()
    rows = [("first", one.step) for one in references[:-1]] + [(str(step.index), step) for step in opened.steps()]
    for name, step in rows:
        seconds = step.seconds_rank + step.seconds_surgery + step.seconds_finetune + step.seconds_evaluate
        table.add_row(
            name, str(step.channels), f"{step.fraction_removed:.1%}", f"{step.metric_before:.1%}", f"{step.metric_after:.1%}",
            f"{step.macs / 1e6:,.1f}", f"{step.params / 1e6:.3f}", f"{step.size_mb:.2f}", f"{seconds:.0f}",
            style="bold" if name == str(best.index) else ("dim" if not step.accepted else None),
        )  # fmt: skip
    out.print(table)
    for step in opened.steps():
        if step.limited:
            tell(f"step {step.index}: {step.limited}")
    for told in (opened.read_as("weights.json", Loaded.from_json), opened.read_as("lr.json", Rate.from_json)):
        if told is not None:
            tell(told.sentence())
    tell(sentence(opened))
    if opened.test() is None:
        tell(f"this run has not ended: unless a process works on it, go on with {opened.how_to_go_on()}")
