"""Bundles beside each other that do not do the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.edge import open_bundle
from prunedge.edge.bench.candidates import unlike
from tests.edge.made_bundles import write_convolutional


def made(folder: Path, classes: list[str]) -> Path:
    return write_convolutional(folder, model="small", classes=classes)


def test_bundles_of_other_classes_are_told_before_they_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = made(tmp_path / "first", ["crack", "sound"])
    other = made(tmp_path / "other", ["rust", "sound"])
    line = f"{first} and {other} differ in classes (crack, sound; rust, sound)"
    assert unlike([open_bundle(first), open_bundle(other), open_bundle(first)]) == [line]
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(other), "--against", str(first), "--patches", "4"])
    assert ended.value.code == 0
    assert f"mind: {line}" in capsys.readouterr().err
