"""`prunedge report`: one HTML page of a run or of a study, and the cards of an inspection's
defects.
"""

from __future__ import annotations

from pathlib import Path

from prunedge.cli.options import Flag


def report(
    folder: str, *, pdf: Flag = False, photos: Path | None = None, json: Flag = False
) -> None:
    """Write FOLDER/report.html. A run: what is found and missed before and after, other thresholds,
    what is decided wrongly, every step, where channels went.

    A study: every combination with its spread, the metric at each pruned fraction, time, Pareto
    fronts, paired comparisons, the table.

    Of an inspection it writes FOLDER/defects.html: a card for each defect, to be noted on and
    signed, which prints on A4.

    Example: `prunedge report runs/cracks`

    Parameters
    ----------
    folder
        A run folder of `train` or `prune`, a study's folder or URL, or the --out of an inspection.
    pdf
        Of an inspection: print the cards into FOLDER/defects.pdf as well (needs Chromium).
    photos
        Of an inspection: where the photographs are now, if not where they were inspected.
    json
        Print the page's path as JSON.
    """
    from prunedge.cli.console import print_json, tell

    if (Path(folder) / "inspection.json").is_file():
        files = _cards(Path(folder), photos, pdf=pdf)
        if json:
            print_json({file.suffix[1:]: str(file) for file in files})
        for file in [] if json else files:
            tell(file)
        return
    _refuse_cards(folder, photos, pdf=pdf)

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


def _cards(folder: Path, photos: Path | None, *, pdf: bool) -> list[Path]:
    """The files of an inspection's cards. Needs no torch."""
    from prunedge.edge.inspect.cards import browser_for_cards, write_cards
    from prunedge.edge.inspect.kept import open_inspection

    browser = browser_for_cards() if pdf else None
    return write_cards(open_inspection(folder), photos=photos, browser=browser)


def _refuse_cards(folder: str, photos: Path | None, *, pdf: bool) -> None:
    from prunedge.errors import DataError

    if pdf or photos is not None:
        raise DataError(
            "--pdf and --photos are for inspections",
            where=folder,
            remedy="leave them out, or name the --out of a `prunedge inspect`",
        )
