"""`prunedge show`: the result in a screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunedge.cli.options import Flag

if TYPE_CHECKING:
    from prunedge.pruning.steps import Step
    from prunedge.runs.run import Run


def show(run: Path, *, json: Flag = False) -> None:
    """The result of a run in a screen: the unpruned model, the best, and each step; of `train`
    what it reached.

    A run that went on from one that was pruned is compared with both: the first model of the
    chain, and its start.

    Example: `prunedge show runs/cracks --json`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`, finished or not.
    json
        Print everything as JSON.
    """
    from prunedge.cli.console import print_json, tell
    from prunedge.report.steps_text import notes_on
    from prunedge.report.text import pruned, trained
    from prunedge.runs.run import open_run
    from prunedge.utils.sanitize import by_kind

    opened = open_run(run)
    if json:
        print_json(opened.summary())
        return
    best = opened.best()
    if opened.verb() == "train":
        _tell_beginning(opened)
        tell(trained(opened))
        return
    _table(opened, best)
    for line in notes_on(opened.steps()):
        tell(line)
    frozen = opened.steps()[-1].frozen
    for line in by_kind({group["name"]: group["reason"] for group in frozen}):
        tell(f"left whole: {line}")
    _tell_beginning(opened)
    tell(pruned(opened))
    if not opened.has_ended():
        tell(
            "this run has not ended: unless a process works on it, go on with "
            f"{opened.how_to_go_on()}"
        )


def _tell_beginning(run: Run) -> None:
    """Where its weights and its learning rate come from, and whether patience ended its
    training.
    """
    from prunedge.cli.console import tell
    from prunedge.models import Loaded
    from prunedge.runs.training import ended_early
    from prunedge.train import Rate

    weights = run.read_as("weights.json", Loaded.from_json)
    rate = run.read_as("lr.json", Rate.from_json)
    for record in (weights, rate):
        if record is not None:
            tell(record.sentence())
    early = ended_early(run)
    if early is not None:
        tell(early)


def _table(opened: Run, best: Step) -> None:
    """Each step in a line, the best in bold."""
    from rich.table import Table

    from prunedge.cli.console import out
    from prunedge.report.metric_text import metric_of
    from prunedge.report.steps_text import became_of, name_of
    from prunedge.utils.wording import megabytes, unit_of

    metric = metric_of(opened.config)
    table = Table(
        title=(
            f"{opened.config.model.name}, {opened.config.prune.criterion}; {metric.name} on "
            "validation data before and after fine-tuning"
        )
    )
    references = opened.references()
    rows = [("first", reference.step) for reference in references[:-1]]
    rows += [(name_of(step), step) for step in opened.steps()]
    macs = unit_of(max(step.macs for _, step in rows))
    params = unit_of(max(step.params for _, step in rows))
    columns = ["step", "channels", "removed", "before", "after"]
    columns += [f"{macs.letter} MACs".strip(), f"{params.letter} params".strip(), "MB"]
    has_times = any(step.latency_ms for _, step in rows)
    columns += ["ms", "s"] if has_times else ["s"]
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("")
    for name, step in rows:
        style = None if step.accepted else "dim"
        if step == best:
            style = "bold"
        ms = [f"{step.latency_ms:.3g}" if step.latency_ms else ""] if has_times else []
        table.add_row(
            name,
            str(step.channels),
            f"{step.fraction_removed:.1%}",
            metric.text(step.metric_before),
            metric.text(step.metric_after),
            macs.text(step.macs, 1),
            params.text(step.params, 3),
            megabytes(step.size_mb, 2),
            *ms,
            f"{step.seconds:.0f}",
            became_of(step, best),
            style=style,
        )
    out.print(table)
