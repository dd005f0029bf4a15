"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from prunedge.cli.app import main
from prunedge.cli.console import UNCUT, Plain

GROUPS = ["groups", "--model", "mobilenet_v2", "--size", "32"]
LONG = "features.17.conv.0.0"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_where_a_program_reads_names_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, *GROUPS)
    assert "…" not in text
    assert any(LONG in line and "features.17.conv.2" in line for line in text.splitlines())


def test_a_width_that_another_program_handed_on_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    assert Plain().width == UNCUT
    assert Plain(force_terminal=True).width == 80
    assert Plain(width=140).width == 140
