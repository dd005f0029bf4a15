"""What an error's line says is what can be done there."""

from __future__ import annotations

from pathlib import Path

from tests.refusals import refusal


def test_two_networks(tmp_path: Path) -> None:
    assert "not both" in refusal("groups", "--model", "resnet18", "--from", tmp_path)


def test_a_study_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    assert "study.toml" in refusal("report", tmp_path)
