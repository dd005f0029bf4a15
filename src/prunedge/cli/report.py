"""`prunedge report`: one HTML page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(run: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Write RUN/report.html: before and after, every step, where channels went, what the pruned network gets wrong.

    Example: `prunedge report runs/cracks`

    Parameters
    ----------
    run
        A run folder of `train` or `prune`.
    json
        Print the page's path as JSON.
    """
    from prunedge.cli.console import print_json
    from prunedge.report import write_report
    from prunedge.runs import open_run

    page = write_report(open_run(run))
    if json:
        print_json({"report": str(page)})
    else:
        print(page)
