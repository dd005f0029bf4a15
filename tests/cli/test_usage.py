"""Command lines that can't be followed, in the user's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunedge.config import RunConfig
from prunedge.errors import ConfigError
from tests.refusals import refusal

WORDS = {
    "--batches 8,x: give a whole number, or several": ("bench", "B", "--batches", "8,x"),
    "--channels alll: give a whole number or all": ("audit", "R", "--channels", "alll"),
    "nothing more is expected than what stands before 'extra'": ("show", "R", "extra"),
    "--max-drop is given twice": ("prune", "D", "--max-drop", "1", "--max-drop", "2"),
    "--from needs a value": ("groups", "--from"),
    "--out is missing": ("compare-inspections", "A", "B"),
    "NEW is missing": ("compare-inspections", "A", "--out", "C"),
    "--attention x: give heads or width": ("groups", "--attention", "x"),
    "--epochs 1.5: give a whole number": ("train", "D", "--epochs", "1.5"),
    "a threshold of 300: 0 to 254": ("patches", ".", ".", "--threshold", "300", "--out", "p"),
    "--fold 3 needs --folds": ("train", "D", "--fold", "3", "--out", "r"),
    "--budget -5min: input should be greater than 0": (
        *("prune", "D", "--model", "resnet18", "--out", "r"),
        *("--budget", "-5min"),
    ),
    "--target-latency -5ms: input should be greater than 0": (
        *("prune", "D", "--model", "resnet18", "--out", "r"),
        *("--target-latency", "-5ms"),
    ),
    "--target-macs -10%: give a number": ("prune", "D", "--target-macs", "-10%"),
    "--json -5: give nothing, it stands alone": ("show", "R", "--json", "-5"),
    "--target-latency 5: not a time (prunedge prune): write it as 5ms": (
        *("prune", "D", "--model", "resnet18", "--out", "r"),
        *("--target-latency", "5"),
    ),
}


def test_a_remedy_is_said_once() -> None:
    common = {"data": "D", "model": "resnet18"}
    with pytest.raises(ConfigError) as plain:
        RunConfig.make("options", **common, epochs=-1, sed=0)
    assert plain.value.remedy == "mend these values"
    with pytest.raises(ConfigError, match=r"no such task \(options\): choose") as ours:
        RunConfig.make("options", **common, task="regresion")
    assert str(ours.value.remedy).startswith("choose classification")
    with pytest.raises(ConfigError, match="no such task: choose") as several:
        RunConfig.make("options", **common, epochs=-1, task="regresion")
    assert several.value.remedy == "mend these values"


@pytest.mark.parametrize("words", WORDS)
def test_a_mistake_is_named_as_it_was_typed(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refusal(*WORDS[words])
