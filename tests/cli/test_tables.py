"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from prunedge.cli.app import main

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
