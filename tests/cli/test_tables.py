"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from prunedge.cli.app import main
from prunedge.cli.console import UNCUT, Plain
from prunedge.cli.inspect_tables import print_inspection
from prunedge.edge.inspect.runner import InspectionOutcome

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


def test_the_table_of_photographs_says_what_it_is_ordered_by(
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = {"name": "a.jpg", "regions": [{}], "patches": 4, "seconds": 1.0}
    record |= {"damaged_share": 0.2, "probability": 0.9}
    print_inspection(InspectionOutcome([record, {**record, "name": "b.jpg"}], [], 0), None)
    text = " ".join(capsys.readouterr().out.split())
    assert "worst first (by damaged area times mean probability)" in text
