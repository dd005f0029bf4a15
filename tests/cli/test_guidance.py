"""A command leads on: a mistyped verb names the nearest, help names the whole command, a result the next one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from prunedge.cli.app import main
from prunedge.cli.verbs import STUDIES, VERBS
from tests.refusals import refusal
from tests.tiny_images import write_tiny


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints that ends well."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [("prun", "prune"), ("inspekt", "inspect"), ("reports", "report"), ("exprot", "export")],
)
def test_a_mistyped_verb_names_the_nearest(mistyped: str, meant: str) -> None:
    assert refusal(mistyped).endswith(f"'{mistyped}' is no verb: did you mean prunedge {meant}?")
    assert f"prunedge {meant}?" in refusal(mistyped, "cracks", "--out", "runs/cracks")


def test_what_is_near_to_no_verb_leads_to_the_list() -> None:
    assert refusal("xyzzy").endswith("'xyzzy' is no verb: prunedge --help lists them")


def test_a_mistyped_study_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal("study", "crosval", "cracks", "--out", "studies/cracks")
    assert "did you mean prunedge study crossval?" in line


def test_the_studies_are_those_that_study_has() -> None:
    from prunedge.cli.study import study

    assert {name for name in study if not name.startswith("-")} == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_the_help_of_a_study_names_its_command(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, "study", name, "--help")
    assert text.startswith(f"Usage: prunedge study {name} ")
    assert f"Example: prunedge study {name}" in text


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_has_an_empty_twin(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--empty-" not in printed(capsys, verb, "--help")


def test_a_check_ends_with_the_next_command_for_the_same_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tiny(tmp_path / "my cracks", count=8)
    text = printed(capsys, "check", data, "--size", "32", "--seed", "3")
    _, _, following = text.strip().splitlines()[-1].partition(": ")
    words = shlex.split(following)
    assert words[:5] == ["prunedge", "prune", str(data), "--model", "resnet18"]
    assert "--size=32" in words
    assert "--seed=3" in words
    assert words[-2] == "--out"
