"""`export` of several forms of which one fails: the others are kept and told, and the exit code is 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge import open_bundle
from prunedge.errors import ExportError
from tests.small_folders import made_run, run

__all__ = ["made_run", "run"]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_forms_that_succeeded_are_told_beside_the_line_of_the_one_that_failed(
    as_json: bool,
    run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(source: object) -> list[str]:
        raise ExportError("ONNX Runtime can't quantise the model", remedy="leave onnx-int8 out")

    monkeypatch.setattr("prunedge.export.onnx_int8.write", fails)
    out = tmp_path / "bundle"
    words = ["export", str(run), "--out", str(out), "--format", "onnx,onnx-int8", "--trust-code"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"] if as_json else words)
    assert ended.value.code == 2
    assert list(open_bundle(out).manifest.forms) == ["onnx"]

    told, line = capfd.readouterr()
    assert line == (
        "error: onnx-int8: ONNX Runtime can't quantise the model: leave onnx-int8 out; "
        f"{out} has onnx alone\n"
    )
    if as_json:
        assert list(json.loads(told)["forms"]) == ["onnx"]
    else:
        assert told.startswith(f"{out}: onnx, ")
        assert told.count("\n") == 1
