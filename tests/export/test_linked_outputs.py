"""Where --out of an export is a link: it is followed, or refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge import open_bundle
from tests.irregular import Refused, in_time, refused
from tests.small_folders import made_run, run

__all__ = ["in_time", "made_run", "refused", "run"]
pytestmark = pytest.mark.usefixtures("in_time")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_to_a_folder_is_followed(is_there: bool, run: Path, tmp_path: Path) -> None:
    real = tmp_path / "disk" / "bundle"
    if is_there:
        real.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--out", str(link), "--trust-code"])
    assert ended.value.code == 0
    assert link.is_symlink()
    assert open_bundle(real).manifest.task.classes == ("crack", "sound")


@pytest.mark.parametrize("kind", ["loop", "file", "full"])
def test_what_can_not_be_written_is_refused_before_the_work(
    kind: str, run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("prunedge.data.load", worked)
    monkeypatch.setattr("prunedge.runs.run.Run.load", worked)
    monkeypatch.setattr("prunedge.runs.run.Run.state", worked)
    out = tmp_path / "out"
    if kind == "loop":
        out.symlink_to("out")
    elif kind == "file":
        (tmp_path / "file").write_text("kept")
        out.symlink_to("file")
    else:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "kept").touch()
        out.symlink_to("folder")
    told = refused("export", run, "--out", out, "--trust-code")
    assert "out" in told
    assert "--out" in told or "remove the link" in told
    assert out.is_symlink()
