"""What an interrupted or failed command says of what is kept and how to go on: only what is true, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.cli.failures import one_line
from prunedge.cli.going_on import how_to_go_on, once_mended
from prunedge.utils.machine import machine_error, machine_trouble

SO_FAR = "what was finished is kept"


def test_nothing_is_said_to_be_kept_before_there_is_anything(tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["train", "cracks", "--out", str(out)]
    assert SO_FAR not in how_to_go_on(asked)
    out.mkdir()
    (out / "config.toml").touch()
    assert SO_FAR not in how_to_go_on(asked)
    assert how_to_go_on(asked).endswith(f"go on with prunedge train --resume {out}")
    (out / "history.jsonl").touch()
    assert SO_FAR in how_to_go_on(asked)


@pytest.mark.parametrize(
    "verb", ["check", "export", "bench", "patches", "report", "show", "inspect", "study", "audit"]
)
def test_verbs_that_have_written_nothing_promise_nothing(verb: str, tmp_path: Path) -> None:
    assert (
        how_to_go_on([verb, "x", "--out", str(tmp_path / "none")])
        == " before there was anything to keep: give the same command again"
    )


def test_what_goes_on_with_the_same_command_says_so_once_it_has_begun(tmp_path: Path) -> None:
    (tmp_path / "study.toml").touch()
    assert (
        how_to_go_on(["study", "x.toml", f"--out={tmp_path}"])
        == f"; {SO_FAR}: the same command goes on"
    )


@pytest.mark.parametrize("make", [machine_error, machine_trouble])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory", "x.png"),
        OSError(28, "No space left", "x.png"),
    ],
)
def test_what_to_do_then_is_said_once(make: object, error: Exception, tmp_path: Path) -> None:
    said = str(make(error, where="x.png")) + once_mended(["check", "cracks"])  # type: ignore[operator]
    assert said.count("again") == 1
    assert said.endswith("and give the same command again")
    (tmp_path / "config.toml").touch()
    said = str(make(error, where="x.png")) + once_mended(["prune", "--resume", str(tmp_path)])  # type: ignore[operator]
    assert "again" not in said
    assert said.endswith(f"; go on with prunedge prune --resume {tmp_path}")


def test_a_path_with_two_spaces_stays_what_it_is() -> None:
    assert one_line(ValueError("a  b\n   c\r\nd")) == "a  b c d"
