"""A study's folder, made and opened: here, or at a URL with a mirror here."""

from __future__ import annotations

from pathlib import Path

from prunedge.config import read_toml
from prunedge.data.paths import is_url
from prunedge.errors import RunError
from prunedge.study.grid import Grid, trials
from prunedge.study.mirror import Remote
from prunedge.study.store import StudyStore
from prunedge.utils.files import held, is_ours, make_folder, write_text
from prunedge.utils.filetypes import instead
from prunedge.utils.formats import FORMAT, KEY, refuse_other
from prunedge.utils.machine import unwritable


def create(path: Path | str, grid: Grid) -> StudyStore:
    """A study's folder, new or with a changed grid: trials that are done stay done.

    RunError when it holds anything else, or a study of another format.
    """
    trials(grid)  # what can't be run is said before it is written
    remote, folder = _locate(path)
    is_study = (folder / "study.toml").exists()
    if folder.exists() and not (folder.is_dir() and (is_study or _is_new(folder))):
        raise RunError(
            "the folder holds something else", where=folder, remedy="choose another --out"
        )
    if is_study:
        _refuse_other_format(folder, path)
    try:
        make_folder(folder)
        with held(folder, "study"):
            write_text(folder / "study.toml", grid.to_toml())
    except OSError as error:
        raise unwritable(error, folder) from None
    if remote:
        remote.push("study.toml")
    return StudyStore(folder, grid, remote)


def open_study(path: Path | str) -> StudyStore:
    """The study in a folder; RunError when there is none, or one of another format."""
    remote, folder = _locate(path)
    if not (folder / "study.toml").is_file():
        why, remedy = instead(folder, "study.toml", "name the folder that --out made")
        raise RunError(f"not a study's folder ({why})", where=path, remedy=remedy)
    _refuse_other_format(folder, path)
    return StudyStore(folder, Grid.from_toml(folder / "study.toml"), remote)


def _refuse_other_format(folder: Path, where: Path | str) -> None:
    """RunError where another version of prunedge has begun the study in a folder."""
    # Where nothing has been run, the file may be one that somebody wrote, who need not name a
    # format.
    has_begun = (folder / "starts").exists() or (folder / "trials").exists()
    values = read_toml(folder / "study.toml", "study")
    version = values.get(KEY, None if has_begun else FORMAT)
    refuse_other(version, "study", where, "run its grid again in a new folder")


def _is_new(folder: Path) -> bool:
    """Whether a folder is empty, but for what a killed process that began a study there has
    left.
    """
    return all(is_ours(file.name) for file in folder.iterdir())


def _locate(path: Path | str) -> tuple[Remote | None, Path]:
    """Where a study lies, if that is elsewhere, and its folder here, with what its table needs."""
    if not is_url(path):
        return None, Path(path)
    remote = Remote.at(str(path))
    remote.pull_records()
    return remote, remote.mirror
