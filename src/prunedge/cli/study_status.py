"""`prunedge study status`: how far a study is."""

from __future__ import annotations

from prunedge.cli.console import print_json, tell
from prunedge.cli.options import Flag
from prunedge.cli.study_output import progress_text
from prunedge.utils.sanitize import by_kind


def status(folder: str, *, workers: int = 1, json: Flag = False) -> None:
    """What is done, running, failed and left, with the time left.

    Example: `prunedge study status studies/cracks`

    Parameters
    ----------
    folder
        A study's folder or URL.
    workers
        Trials at a time, for the time left.
    json
        Print it as JSON.
    """
    from prunedge.errors import PrunedgeError
    from prunedge.study import open_study

    if workers < 1:
        raise PrunedgeError(
            f"{workers} trials at a time", where="--workers", remedy="give at least 1"
        )
    counts = open_study(folder).counts(workers)
    if json:
        print_json(vars(counts))
        return
    tell(progress_text(counts))
    for title, names in (("running", counts.running), ("left", counts.left)):
        for name in names:
            tell(f"{title}: {name}")
    for line in by_kind(counts.failed):
        tell(f"failed: {line}")
