"""The command that repeats a run turns off what the run had turned off."""

from __future__ import annotations

from pathlib import Path

from prunedge.config import RunConfig
from prunedge.report.run.repeat import command
from prunedge.utils.advice import option, speaking


def test_what_was_turned_off_is_turned_off_again() -> None:
    config = RunConfig.make(
        "prune", data="cracks", model="vgg16", temporary_norms=False, growing_epochs=True
    )
    words = command(config, Path("runs/a")).split()
    assert "--no-temporary-norms" in words
    assert "--temporary-norms" not in words
    assert "--growing-epochs" in words


def test_off_is_said_as_each_place_says_it() -> None:
    with speaking("command"):
        assert option("temporary_norms", False) == "--no-temporary-norms"
    with speaking("study"):
        assert option("temporary_norms", False) == "`temporary_norms = false`"
    assert option("temporary_norms", False) == "temporary_norms=False"
