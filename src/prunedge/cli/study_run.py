"""Running a grid from the command line: where its trials run, and what is printed of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from prunedge.cli.options import Flag
from prunedge.cli.study_output import (
    failure_text,
    progress_text,
    rest_text,
    small_networks_table,
    summary_table,
)
from prunedge.utils.advice import command
from prunedge.utils.wording import counted

if TYPE_CHECKING:
    from prunedge.study import Grid, StudyProgress


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where the trials run.

    Parameters
    ----------
    out
        The study's folder, or any fsspec URL (s3://bucket/study). With that of an earlier study,
        what is done there is not done again.
    engine
        Processes on this machine, or Ray.
    address
        Of a running Ray cluster (`auto` finds it); without it Ray starts on this machine.
    workers
        Trials at a time (as many as the cores allow); a running Ray cluster has its own number.
    threads
        Threads of each trial (the cores divided by the workers).
    gpus
        With Ray: the share of a GPU that each trial asks for.
    json
        Print the summary as JSON.
    """

    out: str
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    gpus: float = 0.0
    json: Flag = False


def run_grid(grid: Grid, where: Where) -> None:
    """Run what is left of a grid, and print its table; PrunedgeError where a trial failed."""
    from prunedge.cli.console import out, print_json, progress, say, tell
    from prunedge.errors import PrunedgeError
    from prunedge.report.study.numbers import groups
    from prunedge.report.study.small_networks import better_networks
    from prunedge.study import create, execute
    from prunedge.study.engines.local import NOT_NOTED
    from prunedge.study.small_networks import beside_small
    from prunedge.study.summary import axes_of, metric_of, summary
    from prunedge.study.validate import check
    from prunedge.train.collapse import ANEW

    engine = execute.StudyEngine(
        where.engine, where.address, where.workers, where.threads, where.gpus
    )
    check(grid, here=engine.name == "local")
    study = create(where.out, grid)
    if not where.json:
        trials = counted(len(study.trials), "trial")
        say(f"{trials} from {counted(len(study.starts), 'starting model')}")

    with progress("study", quiet=where.json) as advance:
        total = len(study.trials) + len(study.starts)

        def on_counts(counts: StudyProgress) -> None:
            advance(len(counts.done), total, rest_text(counts))

        callbacks = execute.StudyCallbacks(
            on_line=(lambda line: None) if where.json else say, on_counts=on_counts
        )
        counts, rows = execute.run(study, engine, callbacks)

    axes = axes_of(rows, study.grid.axes)
    lines = summary(rows, axes)
    finished = groups(rows, axes)
    small = beside_small(finished)
    if where.json:
        print_json(
            {
                "counts": vars(counts),
                "summary": [asdict(line) for line in lines],
                "small": [asdict(line) for line in small],
            }
        )
    else:
        metric = metric_of(rows)
        out.print(summary_table(axes, lines, metric))
        if small:
            out.print(small_networks_table(small, metric))
        for line in better_networks(finished, metric):
            tell(f"mind: {line}")
        tell(progress_text(counts))
        tell(f"tables: {study.path / 'study.csv'}, study.parquet")
        tell(f"next: {command('report', where.out)}")

    remedy = "mend it and give the same command again"
    if counts.failed and all(ANEW in why for why in counts.failed.values()):
        remedy = "what is done is not done again: this command would begin from the same models"
    if counts.failed:
        raise PrunedgeError(failure_text(counts.failed, where.out), remedy=remedy)
    if counts.left:
        left = counted(len(counts.left), "trial is", "trials are")
        what = f"{left} left, {counts.left[0]} first: {NOT_NOTED}"
        raise PrunedgeError(what, remedy=remedy)
