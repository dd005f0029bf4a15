"""`prunedge report`: one HTML page of a run or of a study."""

from __future__ import annotations

from pathlib import Path

from prunedge.cli.options import Flag


def report(folder: str, *, json: Flag = False) -> None:
    """Write FOLDER/report.html. A run: what is found and missed before and after, other thresholds,
    what is decided wrongly, every step, where channels went.

    A study: every combination with its spread, the metric at each pruned fraction, time, Pareto
    fronts, paired comparisons, the table.

    Example: `prunedge report runs/cracks`

    Parameters
    ----------
    folder
        A run folder of `train` or `prune`, or a study's folder or URL.
    json
        Print the page's path as JSON.
    """
    from prunedge.cli.console import print_json, tell
    from prunedge.data.paths import is_url
    from prunedge.errors import RunError
    from prunedge.report import write_report, write_study_report
    from prunedge.runs.run import open_run
    from prunedge.study import open_study

    if is_url(folder) or (Path(folder) / "study.toml").is_file():
        study = open_study(folder)
        page = write_study_report(study)
        if study.remote:
            study.remote.push(page.name)
    elif (Path(folder) / "trials").is_dir() and not (Path(folder) / "config.toml").exists():
        raise RunError(
            "a file of the study is missing",
            where=Path(folder) / "study.toml",
            remedy="bring it back from a copy",
        )
    else:
        page = write_report(open_run(folder))
    if json:
        print_json({"report": str(page)})
    else:
        tell(page)
